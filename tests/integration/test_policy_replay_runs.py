"""Recorded Runs are replayed from the table, in processes of their own, while the resident process goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.engine import ALICE, PERMISSIVE, Engine
from interlock.bootstrap import replaying
from interlock.bootstrap.replaying import Period, period_of
from interlock.core.errors import Conflict, Invalid, Transient
from interlock.engine import replay_store
from interlock.engine.policy.load import PolicySet, read_layers, with_project_files

from .conftest import OpenEngine

NO_SLOW = """
@id("team.no-slow") @reason("nothing is called slow") @risk("low") @effect("forbid")
forbid (principal, action == Action::"test.steps", resource is Plan)
when { resource.targets.contains("thing:slow") };
"""
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
ALWAYS = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


async def quietly(_decided: int, _total: int) -> None:
    """Nobody listens."""


def _set(engine: Engine, text: str) -> PolicySet:
    project = engine.parts.project.read()
    sources = with_project_files(read_layers(project)[0], [("proposed/team.cedar", text)])
    found: PolicySet = engine.parts.loader.load_sources(project, sources)
    return found


async def _replay(engine: Engine, text: str, period: Period = ALWAYS) -> Any:
    return await engine.parts.replays.replay(_set(engine, text), engine.parts.book.current, period, quietly)


async def test_runs_are_decided_again_page_by_page_and_what_is_broken_is_listed(
    open_apart: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_store, "PAGE_ROWS", 3)
    async with open_apart() as engine:
        slow = [(await engine.run({"target": "slow"})).number for _ in range(5)]
        other = [(await engine.run({"target": "fast"})).number for _ in range(5)]
        same = await _replay(engine, PERMISSIVE)
        assert (same["decided"], same["different"], same["unreplayable"]) == (10, 0, 0)
        await engine.execute("update run set decision = %s where number = %s", '{"old": 1}', other[2])
        found = await _replay(engine, PERMISSIVE + NO_SLOW)
        assert (found["decided"], found["different"], found["unreplayable"]) == (9, 5, 1)
        (group,) = found["differences"]
        assert (group["policy"], group["from"], group["to"]) == ("team.no-slow", "permit", "forbid")
        assert {each["run"] for each in group["examples"]} == set(slow)
        example = group["examples"][0]
        assert (example["actor"], example["action"]) == (ALICE.id, "test.steps")
        assert found["unreplayable_by_cause"][0]["runs"] == str(other[2])
        assert found["in_force"] == engine.parts.book.current.digest != found["policy_set"]
        assert (await engine.run({"target": "slow"})).state == "succeeded", "nothing was put in force"


async def test_only_runs_of_the_period_are_decided(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        first, second, third = [(await engine.run()).number for _ in range(3)]
        for number, day in ((first, 1), (second, 2), (third, 3)):
            await engine.execute("update run set created_at = %s where number = %s", NOW + timedelta(days=day), number)
        found = await _replay(engine, NO_SLOW, Period(NOW + timedelta(days=2), NOW + timedelta(days=3)))
        assert (found["decided"], found["differences"][0]["runs"]) == (1, str(second))
        nothing = await _replay(engine, NO_SLOW, Period(NOW, NOW + timedelta(hours=1)))
        assert (nothing["decided"], nothing["different"]) == (0, 0)


async def test_one_replay_runs_at_a_time_and_ends_when_nobody_listens_any_more(
    open_apart: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "TELL_SECONDS", 0.01)
    async with open_apart() as engine:
        await engine.run()
        proposed, in_force, heard = _set(engine, PERMISSIVE), engine.parts.book.current, asyncio.Event()

        async def hang_up(_decided: int, total: int) -> None:
            assert total == 1
            heard.set()
            raise ConnectionResetError

        replays = engine.parts.replays
        first = asyncio.create_task(replays.replay(proposed, in_force, ALWAYS, hang_up))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="another replay"):
            await replays.replay(proposed, in_force, ALWAYS, quietly)
        with pytest.raises(ConnectionResetError):
            await first
        assert heard.is_set()
        assert (await _replay(engine, PERMISSIVE))["decided"] == 1


async def test_a_process_that_dies_is_told(open_apart: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_PROGRAM", "interlock.no_such_module")
    async with open_apart() as engine:
        await engine.run()
        with pytest.raises(Transient, match="ended before it had answered"):
            await _replay(engine, PERMISSIVE)


@pytest.mark.parametrize(
    ("since", "until", "begin", "end"),
    [
        ("30d", None, NOW - timedelta(days=30), NOW),
        ("12h", "1h", NOW - timedelta(hours=12), NOW - timedelta(hours=1)),
        ("2026-03-01", "2026-03-02", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        ("2026-03-01T08:00+08:00", None, datetime(2026, 3, 1, tzinfo=UTC), NOW),
    ],
)
def test_a_period_is_written_as_people_do(since: str, until: str | None, begin: datetime, end: datetime) -> None:
    assert period_of(since, until, NOW) == Period(begin, end)


@pytest.mark.parametrize(("since", "until"), [("soon", None), ("1d", "2d"), ("2027-01-01", None), ("-1d", None)])
def test_a_period_that_is_none_is_refused(since: str, until: str | None) -> None:
    with pytest.raises(Invalid):
        period_of(since, until, NOW)
