"""Owners, fences and leases: who may write, who takes over, and what a stop gives back."""

# ruff: noqa: ASYNC110 - tables and gates tell nobody; a gate is a file on this machine
from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.engine import ALICE, SERVICE, Engine
from interlock.core.evidence import Chain, EvidenceKind
from interlock.core.run import Run, RunState
from interlock.engine.store import LeaseLost, event_of

DEAD = "somewhere/boot/1/1"


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until an awaitable condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def has_begun(engine: Engine, number: int) -> bool:
    """Whether a step was started."""
    return "started" in await engine.kinds(number)


async def test_a_worker_whose_run_was_taken_over_writes_nothing_more(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False)
    asked = await engine.ask(ALICE, {"target": "a"})
    old = await engine.store.claim("old", engine.runner.limits.caps)
    await engine.execute("update run set lease_until = now() - interval '1 second' where number = %s", asked.number)
    new = await engine.store.take_over("new", [], held=[], abandoned=[])
    assert old is not None
    assert new is not None
    assert new.run.fence == old.run.fence + 1
    rows = await engine.store.evidence(asked.number)
    row = Chain.after(asked.number, rows).extend(EvidenceKind.NOTED, engine.parts.clock.now(), {"note": "zombie"})
    for run in (old.run, old.run.model_copy(update={"owner": "new"})):
        with pytest.raises(LeaseLost):
            await engine.store.append(run, (row,))
        with pytest.raises(LeaseLost):
            await engine.store.leave(run, RunState.SUCCEEDED, None, None, (row,), (event_of(1, "x", ALICE, "x"),))
    assert await engine.store.evidence(asked.number) == rows
    assert [event["kind"] for event in await engine.query("select kind from event")] == ["run.asked"]
    await engine.store.append(new.run, (row,))


async def test_a_lease_that_lasts_is_not_taken_over_and_that_of_the_dead_is(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False)
    run = await engine.ask(ALICE, {})
    await engine.store.claim(DEAD, engine.runner.limits.caps)
    assert await engine.store.take_over("new", [], held=[], abandoned=[]) is None
    assert await engine.store.take_over("new", [DEAD], held=[run.number], abandoned=[]) is None
    taken = await engine.store.take_over("new", [DEAD], held=[], abandoned=[])
    assert taken is not None
    assert taken.run.number == run.number


async def test_an_abandoned_run_is_taken_up_again_by_its_own_worker(opened: Callable[..., Any]) -> None:
    engine = await opened(work=False, fast=False)
    run = await engine.ask(ALICE, {})
    await engine.store.claim("me", engine.runner.limits.caps)
    assert await engine.store.take_over("me", [], held=[], abandoned=[]) is None
    again = await engine.store.take_over("me", [], held=[], abandoned=[run.number])
    assert again is not None


async def test_a_lease_is_renewed_for_what_is_performed_and_for_nothing_else(engine: Engine) -> None:
    gate = engine.folder / "gate"
    run = await engine.ask(ALICE, {"do": {"gate": str(gate)}})
    await until(lambda: has_begun(engine, run.number))
    query = "select extract(epoch from lease_until - now()) as left from run where number = %s"
    await engine.execute("update run set lease_until = now() + interval '3 seconds' where number = %s", run.number)

    async def renewed() -> bool:
        return float((await engine.query(query, run.number))[0]["left"]) > 6

    await until(renewed)
    gate.touch()
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_a_lost_database_connection_in_the_middle_breaks_no_chain_and_loses_no_run(engine: Engine) -> None:
    gate = engine.folder / "gate"
    step = {"do": {"gate": str(gate)}, "repeatable": True}
    runs = [await engine.ask(ALICE, step, {"repeatable": True}, {"repeatable": True}) for _ in range(3)]
    for run in runs:
        await until(lambda number=run.number: has_begun(engine, number))
    await kill_connections(engine)
    gate.touch()
    for run in runs:
        await until(lambda number=run.number: is_closed(engine, number), 25)
        assert (await engine.store.by_number(run.number)).state is RunState.SUCCEEDED
    assert (await engine.verify()).findings == ()


async def test_after_a_lost_write_nothing_more_is_written(engine: Engine, tmp_path: Path) -> None:
    """The identity of a guard could not be written: had the step been tried again at once, a row would be missing."""
    told = tmp_path / "told"
    os.mkfifo(told)
    reader = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    await engine.execute_as_owner(
        "create sequence lost",
        "grant usage on sequence lost to public",
        "create function lose() returns trigger language plpgsql as $$ begin "
        "if new.kind = 'noted' and nextval('lost') = 1 then "
        "raise exception 'gone' using errcode = '57P01'; end if; return new; end $$",
        "create trigger lose before insert on evidence for each row execute function lose()",
    )
    args = {"fifo": str(told), "repeatable": [False, False]}
    run = await engine.door.submit(ALICE, engine.ask_of(action="test.ledger").model_copy(update={"args": args}))
    assert isinstance(run, Run)
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    rows = await engine.store.evidence(run.number)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert len(os.read(reader, 1000).splitlines()) == 2
    os.close(reader)
    assert (await engine.verify()).findings == ()


async def is_closed(engine: Engine, number: int) -> bool:
    """Whether a Run is closed; a broken connection is an answer too."""
    rows = await patient(engine, "select closed_at from run where number = %s", number)
    return bool(rows) and rows[0]["closed_at"] is not None


async def patient(engine: Engine, query: str, *parameters: Any) -> list[dict[str, Any]]:
    """A select; nothing when the connection was one of the broken."""
    from interlock.core.errors import Transient  # noqa: PLC0415 - only here

    try:
        return await engine.query(query, *parameters)
    except Transient:
        return []


async def kill_connections(engine: Engine) -> None:
    """End every connection of the engine, the listener's too, from inside the server."""
    await patient(
        engine,
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where usename = current_user and pid <> pg_backend_pid() and datname = current_database()",
    )


async def test_the_listener_comes_back_after_its_connection_was_killed(opened: Callable[..., Any]) -> None:
    engine = await opened(fast=False)
    await engine.run({})
    await kill_connections(engine)
    query = "select count(*) as n from pg_stat_activity where application_name = 'interlock-listener'"

    async def listens() -> bool:
        rows = await patient(engine, query)
        return bool(rows) and rows[0]["n"] >= 1

    await until(listens)
    assert (await engine.run({})).state is RunState.SUCCEEDED


async def test_the_pool_is_bounded(engine: Engine) -> None:
    runs = await asyncio.gather(*(engine.ask(SERVICE, {"changes": False}) for _ in range(60)))
    await asyncio.gather(*(engine.rest(run.number) for run in runs))
    assert engine.database.pool_statistics["pool_size"] <= engine.database.pool_statistics["pool_max"] == 20


async def test_a_stop_gives_back_what_was_not_begun_and_lets_a_step_end(open_apart: Callable[..., Any]) -> None:
    async with open_apart() as engine:
        gate = engine.folder / "gate"
        run = await engine.ask(ALICE, {"do": {"gate": str(gate), "deaf": True}}, {})
        await until(lambda: has_begun(engine, run.number))
        stopping = asyncio.create_task(engine.runner.stop(10.0))
        await asyncio.sleep(0.1)
        gate.touch()
        await stopping
        given = await engine.store.by_number(run.number)
        assert (given.state, given.owner) == (RunState.QUEUED, None)
        assert engine.lines()[-1] == f"{run.number}:0 check-do"
    async with open_apart() as engine:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
        done = [line for line in engine.lines() if line.endswith(" do")]
        assert done == [f"{run.number}:0 do", f"{run.number}:1 do"]


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_program_that_a_stop_kills_is_resumed_or_unresolved(
    open_apart: Callable[..., Any], tmp_path: Path, *, repeatable: bool
) -> None:
    fifo, gate = tmp_path / "told", tmp_path / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    args = {"fifo": str(fifo), "repeatable": [repeatable], "script": script}
    async with open_apart() as engine:
        run = await engine.door.submit(ALICE, engine.ask_of(action="test.ledger").model_copy(update={"args": args}))
        assert isinstance(run, Run)

        async def guarded() -> bool:
            return any(row["note"] == "guard" for row in await engine.data(run.number, EvidenceKind.NOTED))

        await until(guarded)
        await engine.runner.stop(0.1)
        state = (await engine.store.by_number(run.number)).state
        assert state is (RunState.QUEUED if repeatable else RunState.UNRESOLVED)
    gate.touch()
    if repeatable:
        async with open_apart() as engine:
            assert (await engine.rest(run.number)).state is RunState.SUCCEEDED


async def test_two_workers_share_the_work_and_no_step_is_done_twice(opened: Callable[..., Any]) -> None:
    engine = await opened(fast=False, project={"limits": {"runs_at_once_per_actor_max": 64}})
    await opened(fast=False)
    runs = [await engine.ask(SERVICE, {"target": f"t{number % 7}"}, {}) for number in range(40)]
    for run in runs:
        assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    done = [line for line in engine.lines() if line.endswith(" do")]
    assert len(done) == len(set(done)) == 80


async def test_a_bug_of_the_engine_leaves_the_run_unresolved_and_the_worker_alive(engine: Engine) -> None:
    gate = engine.folder / "gate"
    run = await engine.ask(ALICE, {"do": {"gate": str(gate)}}, {})
    await until(lambda: has_begun(engine, run.number))
    await engine.execute(
        "insert into evidence (run, seq, kind, line, hash) "
        "select run, seq + 1, 'noted', line, hash from evidence where run = %s order by seq desc limit 1",
        run.number,
    )
    gate.touch()
    after = await engine.rest(run.number)
    assert (after.state, after.state_code) == (RunState.UNRESOLVED, "bug")
    assert (await engine.run({})).state is RunState.SUCCEEDED


async def test_after_a_lost_connection_the_other_broken_ones_are_cleared_away(engine: Engine) -> None:
    await asyncio.gather(*(engine.query("select pg_sleep(0.1)") for _ in range(12)))  # so that there are many
    await kill_connections(engine)
    await patient(engine, "select 1")
    await asyncio.sleep(0.5)
    for _ in range(20):
        assert await engine.query("select 1 as one") == [{"one": 1}]
