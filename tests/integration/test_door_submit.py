"""What the door takes, what it refuses, and what is in the tables when it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from harness.engine import ALICE, BOB, CLAUDE, Engine, Proposal
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, Invalid, Stale
from interlock.core.evidence import EvidenceKind
from interlock.core.run import Run, RunState

FORBID = """
@id("all")
@reason("all")
@risk("none")
permit (principal, action, resource);

@id("no-agents")
@reason("agents change nothing here")
@risk("high")
@effect("forbid")
forbid (principal is Agent, action, resource is Plan) when { resource.changes };
"""


async def count(engine: Engine, table: str) -> int:
    """How many rows a table has."""
    return int((await engine.query(f"select count(*) as n from {table}"))[0]["n"])  # noqa: S608 - our own names


async def test_an_ask_is_recorded_with_its_evidence_before_anything_happens(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False)
    run = await engine.ask(ALICE, {"target": "a"}, reason="because")
    assert run.state is RunState.QUEUED
    assert await engine.kinds(run.number) == ["asked", "decided", "approved"]
    assert [row["kind"] for row in await engine.query("select kind from event")] == ["run.asked"]
    assert await count(engine, "unsealed") == 3
    assert engine.lines() == []


async def test_a_record_that_fails_leaves_nothing_behind(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False)
    await engine.execute_as_owner("alter table event add constraint never check (kind <> 'run.asked')")
    with pytest.raises(psycopg.errors.CheckViolation):
        await engine.ask(ALICE, {"target": "a"})
    for table in ("run", "evidence", "unsealed", "event", "run_target", "approval"):
        assert await count(engine, table) == 0, table
    assert engine.lines() == []


async def test_the_same_key_and_ask_is_the_same_run(engine: Engine) -> None:
    first = await engine.ask(ALICE, {}, key="k")
    again = await engine.ask(ALICE, {}, key="k")
    assert again.number == first.number
    await engine.rest(first.number)
    assert len(engine.lines()) == 2  # do and check, once


async def test_the_same_key_for_another_ask_is_a_conflict(engine: Engine) -> None:
    await engine.ask(ALICE, {}, key="k")
    with pytest.raises(Conflict) as refused:
        await engine.ask(ALICE, {}, {}, key="k")
    assert refused.value.code == "run.key_reused"


async def test_a_key_belongs_to_its_actor(engine: Engine) -> None:
    first = await engine.ask(ALICE, {}, key="k")
    other = await engine.ask(BOB, {}, {}, key="k")
    assert other.number != first.number


async def test_the_same_key_at_the_same_moment_is_one_run(engine: Engine) -> None:
    runs = await asyncio.gather(*(engine.ask(ALICE, {}, key="k") for _ in range(12)))
    assert len({run.number for run in runs}) == 1
    await engine.rest(runs[0].number)
    assert len([line for line in engine.lines() if line.endswith(" do")]) == 1


async def test_another_ask_under_the_same_key_at_the_same_moment_is_a_conflict(engine: Engine) -> None:
    asks = [engine.ask(ALICE, *([{}] * steps), key="k") for steps in (1, 2, 1, 2, 1, 2)]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    taken = {answer.number for answer in answers if isinstance(answer, Run)}
    refused = [answer for answer in answers if not isinstance(answer, Run)]
    assert len(taken) == 1
    assert refused
    assert all(isinstance(answer, Conflict) and answer.code == "run.key_reused" for answer in refused)


async def test_what_is_not_confirmed_is_shown_and_not_recorded(engine: Engine) -> None:
    shown = await engine.door.submit(ALICE, engine.ask_of({}, confirmed=False))
    assert isinstance(shown, Proposal)
    assert await count(engine, "run") == 0
    assert engine.lines() == []


async def test_a_digest_binds_the_ask_to_the_plan_that_was_shown(engine: Engine) -> None:
    facts = engine.folder / "facts"
    facts.write_text("before", encoding="utf-8")
    ask = engine.ask_of({}, args={"facts": str(facts)}, confirmed=False)
    shown = await engine.door.submit(ALICE, ask)
    assert isinstance(shown, Proposal)
    facts.write_text("after", encoding="utf-8")
    with pytest.raises(Stale):
        await engine.door.submit(ALICE, ask.model_copy(update={"confirmed": True, "digest": shown.digest}))
    assert await count(engine, "run") == 0


async def test_a_denied_run_never_performs_and_is_recorded(opened: Callable[..., Any]) -> None:
    engine = await opened(policy=FORBID)
    run = await engine.ask(CLAUDE, {"target": "a"})
    assert run.state is RunState.DENIED
    assert await engine.kinds(run.number) == ["asked", "decided", "closed"]
    again = await engine.ask(CLAUDE, {"target": "a"})
    assert again.number == run.number
    assert engine.lines() == []


async def test_a_plan_that_a_person_denied_is_not_asked_again_for_half_an_hour(opened: Callable[..., Any]) -> None:
    engine = await opened(policy="small-team")
    run = await engine.ask(CLAUDE, {"target": "a"})
    assert run.state is RunState.WAITING
    await engine.approvals.decide(BOB, run.number, verdict=False, reason="not today")
    with pytest.raises(Denied) as refused:
        await engine.ask(CLAUDE, {"target": "a"})
    assert refused.value.code == "run.denied_before"
    assert "do not retry" in str(refused.value.fix)
    other = await engine.ask(CLAUDE, {"target": "b"})
    assert other.state is RunState.WAITING
    await engine.execute("update run set closed_at = closed_at - interval '31 minutes' where number = %s", run.number)
    assert (await engine.ask(CLAUDE, {"target": "a"})).state is RunState.WAITING


async def test_an_agent_has_at_most_three_asks_waiting(opened: Callable[..., Any]) -> None:
    engine = await opened(policy="small-team")
    for number in range(3):
        await engine.ask(CLAUDE, {"target": f"t{number}"})
    with pytest.raises(Conflict) as refused:
        await engine.ask(CLAUDE, {"target": "more"})
    assert refused.value.code == "run.too_many_waiting"


async def test_an_agent_has_at_most_three_asks_waiting_however_fast_it_asks(opened: Callable[..., Any]) -> None:
    engine = await opened(policy="small-team")
    asks = [engine.ask(CLAUDE, {"target": f"t{number}"}) for number in range(12)]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, Run)]) == 3
    assert all(answer.code == "run.too_many_waiting" for answer in answers if isinstance(answer, Conflict))


async def test_open_runs_are_bounded(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False, project={"limits": {"open_runs_max": 10}})
    for _ in range(10):
        await engine.ask(ALICE, {"target": "a"})
    with pytest.raises(Conflict) as refused:
        await engine.ask(ALICE, {"target": "a"})
    assert refused.value.code == "run.too_many_open"


@pytest.mark.parametrize("text", ["a \0 b", "half \ud800"])
@pytest.mark.parametrize("place", ["reason", "key", "args"])
async def test_text_that_no_table_can_hold_is_refused(engine: Engine, text: str, place: str) -> None:
    async def asked() -> None:
        ask = engine.ask_of({"target": text}) if place == "args" else engine.ask_of({}, **{place: text})
        await engine.door.submit(ALICE, ask)

    with pytest.raises((Invalid, ValidationError)):
        await asked()
    assert await count(engine, "run") == 0


async def test_many_long_names_fit_into_evidence(engine: Engine) -> None:
    name = "\N{CJK UNIFIED IDEOGRAPH-6587}" * 1000
    reason = "\N{CJK UNIFIED IDEOGRAPH-56E0}" * 2000
    run = await engine.ask(ALICE, *({"target": f"{index}{name}"} for index in range(60)), reason=reason)
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_an_unknown_action_and_wrong_arguments_are_refused(engine: Engine) -> None:
    for ask in (Ask(action="test.nothing"), Ask(action="test.steps", args={"journal": 7})):
        with pytest.raises((Invalid, Exception)) as refused:
            await engine.door.submit(ALICE, ask)
        assert refused.value.code in ("action.unknown", "args.invalid")


async def test_an_undo_is_a_run_of_its_own(engine: Engine) -> None:
    run = await engine.run({"undo": {}}, {"undo": {}})
    undo = await engine.interventions.undo(BOB, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert (undo.undo_of, undo.actor.id) == (run.number, "person:bob")
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{undo.number}:0 undo", f"{undo.number}:1 undo"]


async def test_a_run_that_did_not_go_well_is_asked_again_and_one_that_did_is_not(engine: Engine) -> None:
    failed = await engine.run({"do": {"outcome": "invalid"}})
    again = await engine.interventions.retry(BOB, failed.number, Ask(action="-", confirmed=True))
    assert isinstance(again, Run)
    assert again.retry_of == failed.number
    fine = await engine.run({})
    with pytest.raises(Conflict):
        await engine.interventions.retry(BOB, fine.number, Ask(action="-", confirmed=True))


async def test_evidence_of_a_closed_run_cannot_be_changed(engine: Engine) -> None:
    run = await engine.run({})
    for statement in ("update evidence set line = ''", "delete from evidence", "truncate evidence"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await engine.execute(statement)
    assert (await engine.data(run.number, EvidenceKind.CLOSED))[0]["state"] == "succeeded"
