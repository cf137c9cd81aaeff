"""Schedules on a real database, with a clock that the test turns: each instant is asked for once, none in silence."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.engine import ALICE, CLAUDE, Engine
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Invalid, NotFound
from interlock.core.run import Run, RunState
from interlock.schedules.arrangements import ScheduleArrangements
from interlock.schedules.inspection import inspect_schedules
from interlock.schedules.scheduler import Scheduler
from interlock.schedules.store import ScheduleStore
from interlock.schedules.views import PreviewView, ScheduleDesk, SchedulesView

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
HOURLY = {"cron": "0 * * * *", "as": "nightly", "action": "test.steps"}


class Killed(BaseException):
    """What ends a process at this very place."""


class TurnedClock:
    """A wall clock that stands still until it is turned."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def turn(self, **by: float) -> None:
        self.moment += timedelta(**by)


class Stage:
    """An engine whose schedules follow the turned clock. The engine's own timers are off."""

    def __init__(self, engine: Engine, clock: TurnedClock | None = None) -> None:
        self.engine, self.clock = engine, clock or TurnedClock(MIDNIGHT)
        self.store = ScheduleStore(engine.database)
        self.scheduler = Scheduler(
            self.store,
            engine.store,
            engine.door,
            engine.parts.project,
            self.clock,
        )

    def declare(self, **schedules: dict[str, Any]) -> None:
        """Put schedules in force; each writes its name into the journal unless it says otherwise."""
        file = self.engine.parts.locations.project_file
        body = yaml.safe_load(file.read_text())
        body["services"] = {"nightly": {"roles": ["operator"]}, "guest": {"roles": ["viewer"]}}
        args = {"journal": str(self.engine.journal)}
        body["schedules"] = {name: {**HOURLY, "args": args, **schedule} for name, schedule in schedules.items()}
        file.write_text(yaml.safe_dump(json.loads(json.dumps(body))))  # without aliases
        parts = self.engine.parts
        parts.project.reload(parts.catalog, parts.book)

    async def look(self, **turned: float) -> None:
        """Turn the clock, look twice (the second time sees what became of the Runs of the first), and let Runs end."""
        self.clock.turn(**turned)
        await self.scheduler.tick()
        await self.settle()
        await self.scheduler.tick()

    async def settle(self) -> None:
        for row in await self.engine.query("select number from run where state in ('queued', 'running')"):
            await self.engine.rest(row["number"])

    async def instants(self, name: str = "hourly") -> list[tuple[str, str, int]]:
        rows = await self.engine.query(
            "select instant, state, count from schedule_instant where schedule = %s order by instant", name
        )
        return [(f"{row['instant'].astimezone(UTC):%d %H:%M}", row["state"], row["count"]) for row in rows]

    async def events(self) -> list[str]:
        rows = await self.engine.query("select kind from event where starts_with(kind, 'schedule.') order by id")
        return [row["kind"] for row in rows]

    async def runs(self) -> list[dict[str, Any]]:
        return await self.engine.query("select number, state, key, actor_id from run where key is not null order by 1")

    def troubles(self) -> list[str]:
        return [error.code for error in self.scheduler.troubles]

    async def do(self, action: str, /, **args: Any) -> Run:
        """An action as alice, on the turned clock's side: arrangements write its time."""
        run = await self.engine.door.submit(ALICE, Ask(action=action, args=args, confirmed=True))
        assert isinstance(run, Run)
        return await self.engine.rest(run.number)

    def arrange(self) -> ScheduleArrangements:
        return ScheduleArrangements(self.store, self.clock)

    async def view(self, name: str | None = None) -> dict[str, Any]:
        desk = ScheduleDesk(self.store, self.engine.parts.project, self.clock)
        return await SchedulesView(desk).read(ALICE, SchedulesView.Args(name=name))


@pytest.fixture
def stage(engine: Engine) -> Stage:
    return Stage(engine)


async def test_each_instant_is_asked_for_once_as_its_service(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    assert await stage.runs() == []
    await stage.look(minutes=59, seconds=59)
    assert await stage.runs() == []
    for _ in range(3):
        await stage.look(seconds=1)
    await stage.look(hours=1)
    runs = await stage.runs()
    assert [(run["key"], run["actor_id"], run["state"]) for run in runs] == [
        ("schedule:hourly:2026-11-20T01:00:00.000000Z", "service:nightly", "succeeded"),
        ("schedule:hourly:2026-11-20T02:00:00.000000Z", "service:nightly", "succeeded"),
    ]
    assert await stage.instants() == [("20 01:00", "succeeded", 1), ("20 02:00", "succeeded", 1)]
    assert stage.troubles() == []
    assert await stage.events() == []


async def test_an_instant_that_nobody_could_ask_for_is_missed_and_said(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    await stage.look(hours=5, minutes=30)
    assert await stage.runs() == []
    assert await stage.instants() == [("20 05:00", "missed", 5)]
    assert await stage.events() == ["schedule.missed"]
    assert stage.troubles() == ["schedule.missed"]
    shown = (await stage.view())["schedules"][0]
    assert (shown["missed"], shown["last"]["state"], shown["next_at"]) == (5, "missed", "2026-11-20T06:00:00.000000Z")
    await stage.look(minutes=30)
    assert stage.troubles() == [], "the next one went well"


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("once", [("20 04:00", "missed", 4), ("20 05:00", "succeeded", 1)]),
        ("all", [("20 02:00", "missed", 2), *((f"20 0{hour}:00", "succeeded", 1) for hour in (3, 4, 5))]),
    ],
)
async def test_missed_instants_are_caught_up_as_declared(
    stage: Stage, catch_up: str, expected: list[tuple[str, str, int]]
) -> None:
    stage.declare(hourly={"catch_up": catch_up, "backlog_max": 3})
    await stage.look()
    for _ in range(5):
        await stage.look(hours=5, minutes=30) if stage.clock.moment == MIDNIGHT else await stage.look()
    assert await stage.instants() == expected
    assert len(await stage.runs()) == sum(state == "succeeded" for _, state, _ in expected)


async def test_two_months_without_a_clock_is_counted_in_bounded_turns(stage: Stage) -> None:
    stage.declare(hourly={"cron": "*/5 * * * *"})
    await stage.look()
    for _ in range(8):
        await stage.look(days=60 if stage.clock.moment == MIDNIGHT else 0)
    assert sum(count for _, _, count in await stage.instants()) == 60 * 24 * 12
    assert len(await stage.runs()) == 1
    assert len(await stage.instants()) < 150


@pytest.mark.parametrize(
    ("overlap", "during", "after"),
    [
        ("skip", ["submitted", "skipped"], ["succeeded", "skipped"]),
        ("queue", ["submitted", "queued"], ["succeeded", "succeeded"]),
        ("allow", ["submitted", "submitted"], ["succeeded", "succeeded"]),
    ],
)
async def test_what_comes_while_an_earlier_one_runs_follows_the_overlap_policy(
    stage: Stage, tmp_path: Path, overlap: str, during: list[str], after: list[str]
) -> None:
    gate = tmp_path / "gate"
    args = {"journal": str(stage.engine.journal), "steps": [{"do": {"gate": str(gate)}}]}
    stage.declare(hourly={"overlap": overlap, "args": args})
    await stage.scheduler.tick()
    for _ in range(2):
        stage.clock.turn(hours=1)
        await stage.scheduler.tick()
    assert [state for _, state, _ in await stage.instants()] == during
    gate.touch()
    await stage.settle()
    for _ in range(2):
        await stage.look()
    assert [state for _, state, _ in await stage.instants()] == after
    assert await stage.events() == (["schedule.overlapped"] if overlap == "skip" else [])


async def test_a_run_that_fails_or_cannot_be_planned_is_told_and_a_denied_one_too(stage: Stage, tmp_path: Path) -> None:
    journal = str(stage.engine.journal)
    stage.declare(
        broken={"args": {"journal": journal, "steps": [{"do": {"outcome": "permanent"}, "repeatable": True}]}},
        unplanned={"args": {"journal": journal, "facts": str(tmp_path / "none"), "steps": 7}},
        unknown={"action": "no.such"},
    )
    await stage.look()
    await stage.look(hours=1)
    assert [state for name in ("broken", "unplanned", "unknown") for _, state, _ in await stage.instants(name)] == [
        "failed"
    ] * 3
    assert await stage.events() == ["schedule.failed"] * 3
    assert len(stage.troubles()) == 3


async def test_a_service_without_the_right_is_denied_and_that_is_told(opened: Any) -> None:
    stage = Stage(await opened(policy="small-team"))
    stage.declare(hourly={"as": "guest", "args": {"journal": str(stage.engine.journal)}})
    await stage.look()
    await stage.look(hours=1)
    state = (await stage.instants())[0][1]
    runs = await stage.runs()
    assert (state, runs[0]["state"]) in {("submitted", "waiting"), ("denied", "denied")}
    assert stage.engine.lines() == []


async def test_what_needs_approval_waits_for_a_person_and_later_instants_do_not_pile_up(opened: Any) -> None:
    stage = Stage(await opened(policy="small-team"))
    steps = [{"target": "x", "risk": "high"}]
    stage.declare(hourly={"args": {"journal": str(stage.engine.journal), "steps": steps}})
    await stage.look()
    for _ in range(3):
        await stage.look(hours=1)
    runs = await stage.runs()
    assert [run["state"] for run in runs] == ["waiting"]
    assert [state for _, state, _ in await stage.instants()] == ["submitted", "skipped", "skipped"]
    await stage.engine.approvals.decide(ALICE, runs[0]["number"], verdict=True, reason="go on")
    await stage.engine.rest(runs[0]["number"])
    await stage.look()
    assert (await stage.instants())[0][1] == "succeeded"


async def test_jitter_puts_an_instant_off_always_by_the_same(stage: Stage) -> None:
    stage.declare(hourly={"jitter_seconds": 600})
    await stage.look()
    preview = PreviewView(ScheduleDesk(stage.store, stage.engine.parts.project, stage.clock))
    shown = await preview.read(ALICE, PreviewView.Args(name="hourly", count=3))
    assert shown == await preview.read(ALICE, PreviewView.Args(name="hourly", count=3))
    first: Any = shown["instants"][0]  # type: ignore[index,call-overload]
    due = datetime.fromisoformat(first["due_at"])
    assert timedelta(0) < due - datetime.fromisoformat(first["instant"]) <= timedelta(seconds=600)
    stage.clock.moment = due - timedelta(seconds=1)
    await stage.look()
    assert await stage.runs() == []
    await stage.look(seconds=1)
    assert len(await stage.runs()) == 1
    with pytest.raises(NotFound):
        await preview.read(ALICE, PreviewView.Args(name="none"))


async def test_several_processes_on_one_database_ask_once(stage: Stage) -> None:
    stage.declare(**{f"job{index}": {} for index in range(6)})
    await stage.look()
    stage.clock.turn(hours=1)
    others = [Stage(stage.engine, stage.clock) for _ in range(4)]
    await asyncio.gather(*(each.scheduler.tick() for each in (stage, *others)))
    await stage.look()
    assert len(await stage.runs()) == 6
    assert len([line for line in stage.engine.lines() if " do" in line]) == 6


async def test_whoever_dies_between_the_ask_and_its_record_neither_doubles_nor_loses_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.declare(hourly={})
    await stage.look()

    honest = stage.store.change

    async def die(*_: Any) -> None:
        raise Killed

    async def die_when_asked(name: str, changes: Any) -> None:
        if any(change.state == "submitted" for change in changes):
            raise Killed
        await honest(name, changes)

    for boundary, death in (("begin_attempt", die), ("change", die_when_asked)):
        with monkeypatch.context() as patch:
            patch.setattr(stage.store, boundary, death)
            stage.clock.turn(hours=1)
            with pytest.raises(BaseExceptionGroup):
                await stage.scheduler.tick()
        await stage.settle()
        await stage.look()
    # Hours later, when it would be too late to ask: what was asked for before is found by its key.
    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "change", die_when_asked)
        stage.clock.turn(hours=1)
        with pytest.raises(BaseExceptionGroup):
            await stage.scheduler.tick()
    stage.clock.turn(minutes=50)
    await stage.look()
    assert [state for _, state, _ in await stage.instants()] == ["succeeded"] * 3
    assert len(await stage.runs()) == 3


async def test_a_clock_that_jumps_back_asks_for_nothing_twice_and_stands_still_for_nobody(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    await stage.look(hours=1)
    await stage.look(hours=1)
    await stage.look(hours=-2)
    assert "schedule.clock_moved_back" in await stage.events()
    await stage.look(hours=1)
    await stage.look(hours=1)
    assert len(await stage.runs()) == 2
    await stage.look(hours=1)
    assert len(await stage.runs()) == 3
    # As far ahead as a broken clock goes, and back: what lies between is asked for when its time comes.
    await stage.look(days=600)
    await stage.look(days=-600)
    assert len(await stage.runs()) == 4, "the instant of that hour"
    await stage.look(hours=1)
    assert len(await stage.runs()) == 5


async def test_a_paused_schedule_asks_for_nothing_and_says_who_paused_it(stage: Stage) -> None:
    stage.declare(hourly={"catch_up": "all"})
    await stage.look()
    run = await stage.do("schedule.pause", name="hourly", reason="the disk is full")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    await stage.look(hours=3)
    shown = (await stage.view())["schedules"][0]
    assert shown["paused"] == {"by": "person:alice", "reason": "the disk is full", "until": None}
    assert await stage.runs() == []
    resumed = await stage.engine.ask(ALICE)  # any Run: the arrangement writes the turned clock's time
    await stage.arrange().resume(resumed, {"name": "hourly"})
    await stage.look()
    assert await stage.instants() == [("20 03:00", "skipped", 3)]
    assert await stage.events() == ["schedule.paused", "schedule.resumed", "schedule.skipped"]
    assert stage.troubles() == [], "a pause was somebody's wish"
    await stage.look(hours=1)
    assert (await stage.instants())[-1] == ("20 04:00", "succeeded", 1)


async def test_a_pause_that_was_given_an_end_ends(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    some = await stage.engine.ask(ALICE)
    await stage.arrange().pause(some, {"name": "hourly", "reason": "a release", "minutes": 90})
    await stage.look(hours=1)
    assert await stage.instants() == []
    await stage.look(hours=1)
    assert await stage.instants() == [("20 01:00", "skipped", 1), ("20 02:00", "succeeded", 1)]


async def test_a_schedule_that_comes_back_counts_from_then(stage: Stage) -> None:
    stage.declare(hourly={}, other={})
    await stage.look()
    stage.declare(other={})
    await stage.look()
    stage.clock.turn(hours=3)
    stage.declare(hourly={}, other={"cron": "30 * * * *"})
    await stage.look()
    assert await stage.instants() == []
    assert await stage.instants("other") == []
    await stage.look(minutes=30)
    assert [state for _, state, _ in await stage.instants("other")] == ["succeeded"]


async def test_a_one_off_is_asked_for_once_as_whoever_wanted_it(stage: Stage) -> None:
    stage.clock.moment = datetime.now(UTC)
    at = stage.clock.moment + timedelta(hours=2)
    args: dict[str, Any] = {"name": "later", "action": "test.steps", "at": at.isoformat()}
    args["args"] = {"journal": str(stage.engine.journal)}
    assert (await stage.do("schedule.once", **args)).state is RunState.SUCCEEDED
    with pytest.raises(Conflict, match="already"):
        await stage.do("schedule.once", **args)
    await stage.look(hours=1)
    assert await stage.runs() == []
    await stage.look(hours=1, seconds=1)
    await stage.look(hours=1)
    assert [(run["actor_id"], run["state"]) for run in await stage.runs()] == [("person:alice", "succeeded")]
    assert (await stage.view())["schedules"] == [], "it is done"


async def test_a_cancelled_one_off_is_not_asked_for(stage: Stage) -> None:
    stage.clock.moment = datetime.now(UTC)
    at = (stage.clock.moment + timedelta(hours=2)).isoformat()
    args = {"journal": str(stage.engine.journal)}
    run = await stage.do("schedule.once", name="later", action="test.steps", at=at, args=args)
    assert run.plan.risk == "medium", "as bad as what it will ask for"
    assert (await stage.do("schedule.cancel", name="later")).state is RunState.SUCCEEDED
    await stage.look(hours=3)
    assert await stage.runs() == []


async def test_an_agents_one_off_has_no_more_rights_than_the_agent_when_its_time_comes(opened: Any) -> None:
    stage = Stage(await opened(policy="small-team"))
    stage.clock.moment = datetime.now(UTC)
    at = (stage.clock.moment + timedelta(hours=2)).isoformat()
    args = {"name": "later", "action": "test.steps", "at": at, "args": {"journal": str(stage.engine.journal)}}
    run = await stage.engine.door.submit(CLAUDE, Ask(action="schedule.once", args=args, confirmed=True))
    assert isinstance(run, Run)
    assert run.state is RunState.WAITING
    await stage.engine.approvals.decide(ALICE, run.number, verdict=True, reason="fine")
    assert (await stage.engine.rest(run.number)).state is RunState.SUCCEEDED
    await stage.look(hours=2, seconds=1)
    assert [(each["actor_id"], each["state"]) for each in await stage.runs()] == [("agent:claude", "waiting")]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"at": "2020-01-01T00:00:00Z"}, "schedule.past"),
        ({"at": "2999-01-01T00:00:00Z"}, "schedule.far"),
        ({"action": "schedule.cancel", "args": {"name": "x"}}, "schedule.nested"),
        ({"args": {"steps": 7}}, "args.invalid"),
    ],
)
async def test_a_one_off_that_makes_no_sense_is_refused_when_it_is_asked_for(
    stage: Stage, changed: dict[str, Any], code: str
) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    args: dict[str, Any] = {"name": "later", "action": "test.steps", "at": at, "args": {"journal": "/tmp/j"}, **changed}
    with pytest.raises(Invalid) as caught:
        await stage.do("schedule.once", **args)
    assert code in {caught.value.code, "args.invalid"}


async def test_an_open_one_off_keeps_its_name_from_a_declared_schedule(stage: Stage) -> None:
    stage.clock.moment = datetime.now(UTC)
    at = (stage.clock.moment + timedelta(hours=2)).isoformat()
    args = {"journal": str(stage.engine.journal)}
    await stage.do("schedule.once", name="later", action="test.steps", at=at, args=args)
    stage.declare(later={})
    await stage.look()
    assert stage.troubles() == ["schedule.name"]
    await stage.look(hours=2, seconds=1)
    assert "person:alice" in {run["actor_id"] for run in await stage.runs()}
    await stage.look()
    assert stage.troubles() == []


async def test_a_world_that_does_not_answer_is_asked_again_until_it_is_too_late(stage: Stage, tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    facts.write_text("transient")
    args = {"journal": str(stage.engine.journal), "facts": str(facts)}
    stage.declare(patient={"args": args}, hasty={"args": args})
    await stage.look()
    await stage.look(hours=1)
    assert [state for _, state, _ in await stage.instants("patient")] == ["due"]
    facts.write_text("here")
    await stage.look(seconds=10)
    assert [state for _, state, _ in await stage.instants("patient")] == ["succeeded"]
    facts.write_text("transient")
    await stage.look(hours=1)
    await stage.look(minutes=5)
    assert [state for _, state, _ in await stage.instants("patient")][-1] == "missed"
    reason = (await stage.view("patient"))["instants"][0]["reason"]
    assert "the world does not answer" in reason


async def test_check_finds_what_cannot_be_planned(stage: Stage) -> None:
    stage.declare(
        good={}, unknown={"action": "no.such"}, wrong={"args": {"steps": 7}}, over={"end": "2020-01-01T00:00Z"}
    )
    parts = stage.engine.parts
    found = list(inspect_schedules(parts.project(), parts.catalog, MIDNIGHT))
    assert sorted(str(each["level"]) for each in found) == ["error", "error", "ok", "warning"]
    told = " ".join(str(each["message"]) for each in found if each["level"] == "error")
    assert "schedules.unknown" in told
    assert "schedules.wrong" in told


async def test_old_instants_are_pruned_and_the_newest_stays(stage: Stage) -> None:
    stage.declare(hourly={})
    await stage.look()
    for _ in range(3):
        await stage.look(hours=1)
    await stage.store.prune(stage.clock.now() + timedelta(days=31))
    assert await stage.instants() == [("20 03:00", "succeeded", 1)]


async def test_a_schedule_without_a_declared_service_is_refused_with_its_line(stage: Stage) -> None:
    for wrong in ({"as": "nobody"}, {"cron": "61 * * * *"}, {"timezone": "Mars/Olympus"}, {"at": "2027-01-01T00:00Z"}):
        with pytest.raises(Invalid) as caught:
            stage.declare(hourly=wrong)
        assert caught.value.details["line"], caught.value.message


async def test_what_was_ordered_with_a_token_is_denied_once_that_is_no_more(stage: Stage) -> None:
    stage.clock.moment = datetime.now(UTC)
    bearer = ALICE.model_copy(update={"via": "aaaaaaaaaaaa"})
    at = (stage.clock.moment + timedelta(hours=2)).isoformat()
    args = {"name": "later", "action": "test.steps", "at": at, "args": {"journal": str(stage.engine.journal)}}
    run = await stage.engine.door.submit(bearer, Ask(action="schedule.once", args=args, confirmed=True))
    assert isinstance(run, Run)
    await stage.engine.rest(run.number)
    await stage.look(hours=2, seconds=1)
    assert [state for _, state, _ in await stage.instants("later")] == ["denied"]
    assert stage.troubles() == ["schedule.token"]
    assert await stage.runs() == []


@pytest.mark.parametrize("who", ["person", "agent", "service"])
@pytest.mark.parametrize("became", ["viewer", None])
async def test_a_one_off_of_somebody_who_may_less_by_then_or_is_gone_does_nothing(
    stage: Stage, who: str, became: str | None
) -> None:
    stage.clock.moment = datetime.now(UTC)
    section = {"person": "people", "agent": "agents", "service": "services"}[who]
    file = stage.engine.parts.locations.project_file

    def declare(roles: list[str] | None) -> None:
        body = yaml.safe_load(file.read_text())
        body |= {"roles": {}, "people": {"ann": {"user": "ann", "roles": ["admin"]}}}
        body[section] = {**body.get(section, {}), "other": {"roles": ["asker"]}}
        if roles is not None:
            body[section]["vera"] = {"roles": roles}
        else:
            body[section].pop("vera", None)
        file.write_text(yaml.safe_dump(body))
        stage.engine.parts.project.reload(stage.engine.parts.catalog, stage.engine.parts.book)

    declare(["asker"])
    at = (stage.clock.moment + timedelta(hours=2)).isoformat()
    args = {"name": "later", "action": "test.steps", "at": at, "args": {"journal": str(stage.engine.journal)}}
    vera = Actor.model_validate({"kind": who, "name": "vera", "roles": ("asker",)})
    run = await stage.engine.door.submit(vera, Ask(action="schedule.once", args=args, confirmed=True))
    assert isinstance(run, Run)
    assert (await stage.engine.rest(run.number)).state is RunState.SUCCEEDED
    declare([became] if became is not None else None)
    await stage.look(hours=2, seconds=1)
    await stage.look(hours=1)
    assert [each["state"] for each in await stage.runs()] == ([] if became is None else ["denied"])
    assert [state for _, state, _ in await stage.instants("later")] == ["denied"]
    assert not stage.engine.journal.exists() or not stage.engine.journal.read_text()
