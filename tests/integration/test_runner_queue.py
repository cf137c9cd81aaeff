"""The queue: order, exclusion, caps, freezes, cancels."""

# ruff: noqa: ASYNC110, ASYNC240 - tables and gates tell nobody; a gate is a file on this machine
from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.engine import ALICE, BOB, CLAUDE, SERVICE, Engine
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied
from interlock.core.evidence import EvidenceKind
from interlock.core.run import Run, RunState


async def until(condition: Callable[[], Any], seconds: float = 6.0) -> None:
    """Wait until an awaitable condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def state(engine: Engine, number: int) -> RunState:
    """Where a Run stands."""
    return (await engine.store.by_number(number)).state


async def begun(engine: Engine, number: int) -> None:
    """Wait until a step of a Run waits at its gate."""

    async def started() -> bool:
        return "started" in await engine.kinds(number)

    await until(started)


def held(gate: Path, **step: Any) -> dict[str, Any]:
    """A step that waits for a file."""
    return {"do": {"gate": str(gate)}, **step}


@pytest.fixture
def gate(engine: Engine) -> Path:
    """A file that does not exist yet."""
    return engine.folder / "gate"


@pytest.mark.parametrize("fast", [True, False])
async def test_runs_of_one_target_go_one_after_another_in_order(opened: Callable[..., Any], *, fast: bool) -> None:
    engine = await opened(fast=fast)
    gate = engine.folder / "gate"
    runs = [await engine.ask(SERVICE, held(gate, target="a"))]
    runs += [await engine.ask(SERVICE, {"target": "a"}) for _ in range(6)]
    await begun(engine, runs[0].number)
    assert [await state(engine, run.number) for run in runs[1:]] == [RunState.QUEUED] * 6
    gate.touch()
    for run in runs:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    order = [int(line.split(":")[0]) for line in engine.lines() if line.endswith(" do")]
    assert order == [run.number for run in runs]


async def test_one_target_is_never_in_two_hands_however_many_ask_at_once(engine: Engine, gate: Path) -> None:
    await engine.execute_as_owner(
        "create function wait_for_all() returns trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock_shared(42); return new; end $$",
        "create trigger wait_for_all before insert on run_target for each row execute function wait_for_all()",
    )
    owner = await psycopg.AsyncConnection.connect(engine.parts.address.owner)
    async with owner:  # all of them find the target free, and only then may any of them write
        await owner.execute("select pg_advisory_xact_lock(42)")
        asks = [asyncio.create_task(engine.ask(SERVICE, held(gate, target="a"))) for _ in range(3)]

        async def all_wait() -> bool:
            rows = await engine.query("select count(*) as n from pg_locks where locktype = 'advisory' and not granted")
            return bool(rows[0]["n"] == len(asks))

        await until(all_wait)
        await owner.rollback()
        runs = await asyncio.gather(*asks)
    assert [run.state for run in runs].count(RunState.RUNNING) == 1
    gate.touch()
    for run in runs:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_a_run_of_several_targets_waits_for_all_and_is_not_overtaken(engine: Engine, gate: Path) -> None:
    first = await engine.ask(ALICE, held(gate, target="a"))
    both = await engine.ask(ALICE, {"target": "a"}, {"target": "b"})
    later = await engine.ask(ALICE, {"target": "b"})
    apart = await engine.run({"target": "c"})
    assert apart.state is RunState.SUCCEEDED
    assert [await state(engine, run.number) for run in (both, later)] == [RunState.QUEUED] * 2
    gate.touch()
    await engine.rest(later.number)
    order = [line for line in engine.lines() if line.endswith(" do")]
    steps = [f"{first.number}:0 do", f"{both.number}:0 do", f"{both.number}:1 do", f"{later.number}:0 do"]
    assert [line for line in order if not line.startswith(f"{apart.number}:")] == steps


async def test_reading_neither_waits_nor_makes_wait(engine: Engine, gate: Path) -> None:
    held_run = await engine.ask(ALICE, held(gate, target="a"))
    await begun(engine, held_run.number)
    read = await engine.ask(ALICE, {"target": "a", "changes": False})
    assert (await engine.rest(read.number, 5)).state is RunState.SUCCEEDED
    gate.touch()


async def test_what_is_free_runs_at_once_and_what_is_not_goes_through_the_queue(engine: Engine, gate: Path) -> None:
    first = await engine.ask(ALICE, held(gate, target="a"))
    second = await engine.ask(ALICE, {"target": "a"})
    assert (first.state, second.state) == (RunState.RUNNING, RunState.QUEUED)
    gate.touch()
    assert (await engine.rest(second.number)).state is RunState.SUCCEEDED


@pytest.mark.parametrize("fast", [True, False])
async def test_caps_of_actor_and_action_hold_however_many_ask_at_once(
    opened: Callable[..., Any], *, fast: bool
) -> None:
    limits = {"runs_at_once_per_actor_max": 3, "runs_at_once_per_action": {"test.unchecked": 1}}
    engine = await opened(fast=fast, project={"limits": limits})
    gate = engine.folder / "gate"
    own = [engine.ask(ALICE, held(gate, target=f"a{index}")) for index in range(8)]
    others = [engine.ask(SERVICE, held(gate, target=f"b{index}"), action="test.unchecked") for index in range(4)]
    runs = await asyncio.gather(*own, *others)

    async def full() -> bool:
        rows = await engine.query("select actor_id, count(*) as n from run where state = 'running' group by actor_id")
        return {row["actor_id"]: row["n"] for row in rows} == {ALICE.id: 3, SERVICE.id: 1}

    await until(full)
    await asyncio.sleep(1.2)  # longer than a sweep
    assert await full()
    started = await engine.query("select count(distinct run) as n from evidence where kind = 'started'")
    assert started[0]["n"] == 4
    gate.touch()
    for run in runs:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_slots_are_bounded(opened: Callable[..., Any]) -> None:
    engine = await opened(project={"limits": {"runs_at_once_max": 2, "runs_at_once_per_actor_max": 50}})
    gate = engine.folder / "gate"
    runs = await asyncio.gather(*(engine.ask(ALICE, held(gate, target=f"a{index}")) for index in range(6)))
    await asyncio.sleep(1.2)
    assert engine.runner.running == 2
    gate.touch()
    for run in runs:
        await engine.rest(run.number)


@pytest.mark.parametrize("fast", [True, False])
async def test_all_agents_together_leave_room_for_people(opened: Callable[..., Any], *, fast: bool) -> None:
    engine = await opened(fast=fast, project={"limits": {"runs_at_once_max": 4}})
    gate = engine.folder / "gate"
    agents = [Actor(kind="agent", name=f"a{index}", on_behalf_of=ALICE.id) for index in range(6)]
    looks = [held(gate, target=f"a{index}", changes=False) for index in range(6)]
    asked = await asyncio.gather(*(engine.ask(*each) for each in zip(agents, looks, strict=True)))

    async def two() -> bool:
        found = await engine.query("select count(distinct run) as n from evidence where kind = 'started'")
        return bool(found[0]["n"] == 2)

    await until(two)
    person = await engine.ask(ALICE, held(engine.folder, target="b"))
    assert (await engine.rest(person.number)).state is RunState.SUCCEEDED
    assert engine.runner.running == 2
    gate.touch()
    for run in asked:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def freeze(engine: Engine, pattern: str) -> None:
    """Put a freeze in force."""
    order = {"scope": "targets", "pattern": pattern, "reason": "quiet please", "minutes": None}
    await engine.control.set_freeze(1, "person:bob", order)


async def test_a_freeze_stops_a_run_between_two_steps_until_it_is_lifted(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, held(gate, target="a"), {"target": "a"})
    await begun(engine, run.number)
    await freeze(engine, "thing:a")
    gate.touch()

    async def first_is_done() -> bool:
        return "done" in await engine.kinds(run.number)

    await until(first_is_done)
    await asyncio.sleep(0.5)
    assert [line for line in engine.lines() if line.endswith(" do")] == [f"{run.number}:0 do"]
    await engine.control.lift_freeze("person:bob", "targets", "thing:a")
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_what_waits_for_a_freeze_has_written_down_what_it_did(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, held(gate, target="a"), {}, action="test.unchecked")
    await begun(engine, run.number)
    await freeze(engine, "*")
    gate.touch()

    async def written() -> bool:
        return "done" in await engine.kinds(run.number)

    await until(written, 3)
    await engine.interventions.cancel(ALICE, run.number, None)
    assert (await engine.rest(run.number)).state is RunState.UNRESOLVED  # the first step has no undo


async def test_a_waiting_and_a_queued_run_are_cancelled_at_once(opened: Callable[..., Any]) -> None:
    engine = await opened(policy="small-team", work=False, fast=False)
    waiting = await engine.ask(CLAUDE, {})
    queued = await engine.ask(ALICE, {"target": "a"})
    for run in (waiting, queued):
        after = await engine.interventions.cancel(ALICE, run.number, "enough")
        assert after.state is RunState.CANCELLED
        assert (await engine.data(run.number, EvidenceKind.CLOSED))[0]["state"] == "cancelled"
    assert await engine.query("select * from run_target") == []
    with pytest.raises(Conflict):
        await engine.interventions.cancel(ALICE, queued.number, None)


async def test_only_the_asker_or_a_person_cancels(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, held(gate))
    with pytest.raises(Denied):
        await engine.interventions.cancel(CLAUDE, run.number, None)
    await engine.interventions.cancel(BOB, run.number, None)
    assert (await engine.rest(run.number)).state is RunState.CANCELLED


async def test_a_running_run_is_cancelled_and_taken_back(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, {"undo": {}}, held(gate, undo={}))

    async def at_the_gate() -> bool:
        return (await engine.kinds(run.number)).count("started") == 2

    await until(at_the_gate)
    await engine.interventions.cancel(ALICE, run.number, None)
    after = await engine.rest(run.number)
    assert after.state is RunState.UNDONE
    assert [line for line in engine.lines() if line.endswith("undo")] == [
        f"{run.number}:0 undo",
        f"{run.number}:0 check-undo",
    ]


async def test_cancelling_does_not_kill_the_programs_that_take_it_back(engine: Engine, tmp_path: Path) -> None:
    told, gate, begun_file = tmp_path / "told", tmp_path / "gate", tmp_path / "begun"
    script = f"case $1$2 in *:1content*) : > {begun_file}; while [ ! -e {gate} ]; do sleep 0.02; done;; esac"
    args = {"fifo": str(told), "repeatable": [False, False], "undo": True, "script": script}
    run = await engine.door.submit(ALICE, Ask(action="test.ledger", args=args, confirmed=True))
    assert isinstance(run, Run)

    async def second_runs() -> bool:
        return begun_file.exists()

    await until(second_runs)
    await engine.interventions.cancel(ALICE, run.number, None)
    after = await engine.rest(run.number)
    assert (after.state, after.state_reason) == (RunState.UNDONE, "signal 15")
    assert told.read_text(encoding="utf-8").splitlines()[-1] == f"{run.number}:0 undo-0"


async def test_a_cancel_does_not_outlive_what_a_person_decides_afterwards(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, {"do": {"gate": str(gate), "deaf": True, "outcome": "transient"}}, {})
    await begun(engine, run.number)
    await engine.interventions.cancel(ALICE, run.number, None)
    gate.touch()
    assert (await engine.rest(run.number)).state is RunState.UNRESOLVED
    await engine.interventions.resolve(BOB, run.number, "skip", "it did happen")
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_a_cancel_ends_the_wait_before_the_next_attempt(engine: Engine) -> None:
    run = await engine.ask(ALICE, {"do": {"outcome": "not_sent"}})

    async def tried_twice() -> bool:
        return (await engine.kinds(run.number)).count("started") == 2

    await until(tried_twice)
    await engine.interventions.cancel(ALICE, run.number, None)
    assert (await engine.rest(run.number)).state is RunState.CANCELLED


async def test_a_run_that_takes_too_long_stops_between_steps(engine: Engine, gate: Path) -> None:
    run = await engine.ask(ALICE, held(gate, undo={}), {}, timeout_seconds=0.2)
    await begun(engine, run.number)
    await asyncio.sleep(0.3)
    gate.touch()
    after = await engine.rest(run.number)
    assert (after.state, "longer than" in str(after.state_reason)) == (RunState.UNDONE, True)


async def test_a_target_held_for_a_person_is_touched_by_nobody_else(engine: Engine) -> None:
    ask = Ask(action="target.hold", args={"target": "port:5432", "command": ["./migrate"]}, confirmed=True)
    run = await engine.door.submit(ALICE, ask)
    assert isinstance(run, Run)
    engine.parts.holds.attach(run.number)
    (target,) = [target.id for target in run.plan.targets]
    taken = await engine.query("select target from run_target where holding and run = %s", run.number)
    assert [row["target"] for row in taken] == [f"port:{target}"]
    engine.parts.holds.ended(run.number, 0)
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
