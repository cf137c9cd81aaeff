"""However many Runs are over, only verification reads them all: counted by the database itself, not by a clock."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bench.finished_runs import fill

from harness.databases import database
from harness.engine import ALICE, BOB, CLAUDE, Engine, open_engine, write_project
from interlock.core.ask import Ask
from interlock.core.run import Run, RunState
from interlock.engine.store import Caps
from interlock.engine.view_store import RUNS_MAX

RUNS = 20_000
MANY = 2_000
"""A table with so many rows must not be read from end to end."""
READ_MAX = 1_000
"""Entries of indexes that one small thing may read."""
GONE_SECONDS = 10.0
in_one_loop = pytest.mark.asyncio(loop_scope="module")
Reads = dict[str, tuple[int, int]]
"""Table -> how often it was read whole, and how many entries of its indexes were read."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(postgres_endpoint: Any) -> AsyncIterator[Callable[..., Any]]:
    """Opens engines on a database with many finished Runs."""
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        locations = write_project(Path(folder), "small-team")
        async with open_engine(app, owner, locations) as young:
            await young.run()
            await young.parts.reconcilers.seal()
            key = young.parts.key
        await asyncio.to_thread(fill, owner, RUNS, key)
        yield lambda **options: open_engine(app, owner, locations, **options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(place: Callable[..., Any]) -> AsyncIterator[Engine]:
    """An engine with a long history."""
    async with place() as opened:
        yield opened


async def _told(engine: Engine) -> Reads:
    """As the database counts them, of each table that has many rows, when all connections told what they did."""
    async with AsyncExitStack() as stack:
        for _ in range(engine.database.pool_statistics["pool_size"]):
            connection = await stack.enter_async_context(engine.database.connection())
            await connection.execute("select pg_stat_force_next_flush()")
    rows = await engine.query(
        """select t.relname, t.seq_scan, coalesce(sum(i.idx_tup_read), 0)::bigint as entries
           from pg_stat_user_tables t left join pg_stat_user_indexes i using (relid)
           where t.n_live_tup > %s group by t.relname, t.seq_scan""",
        MANY,
    )
    return {row["relname"]: (row["seq_scan"], row["entries"]) for row in rows}


@asynccontextmanager
async def little_is_read(engine: Engine, what: object, at_most: int = READ_MAX) -> AsyncIterator[None]:
    """What happens within reads no large table whole, and only few entries of its indexes."""
    before = await _told(engine)
    yield
    after = await _told(engine)
    assert {"run", "evidence", "leaf", "approval", "event", "output"} <= after.keys()
    for table, (whole, entries) in after.items():
        assert whole == before[table][0], f"{what} reads the whole table {table}"
        assert entries - before[table][1] <= at_most, f"{what} reads {entries - before[table][1]} entries of {table}"


async def _view(engine: Engine, name: str, **arguments: Any) -> Any:
    views = engine.parts.views
    return await views.read(ALICE, name, views.views[name].Args.model_validate(arguments, strict=False))


@in_one_loop
async def test_a_list_of_runs_reads_its_own_page_only(engine: Engine) -> None:
    states = (None, "open", "succeeded", "undone")
    actions = (None, "bench.action3", "bench.rare", "no.such")
    actors = (None, "service:ci", "person:rare")
    for given in itertools.product(states, actions, actors, (None, RUNS // 2)):
        named = zip(("state", "action", "actor", "before"), given, strict=True)
        filters = {name: value for name, value in named if value is not None}
        limit = RUNS_MAX if "before" in filters else 50
        async with little_is_read(engine, filters, at_most=limit * (len(RunState) + 2)):
            await _view(engine, "runs", limit=limit, **filters)


@in_one_loop
async def test_no_view_reads_what_is_over(engine: Engine) -> None:
    read = []
    for name, view in sorted(engine.parts.views.views.items()):
        fields = view.Args.model_fields
        arguments = {"run": RUNS // 2} if "run" in fields else {}
        if any(field.is_required() for field in fields.values()) and not arguments:
            continue
        async with little_is_read(engine, name):
            await _view(engine, name, **arguments)
        read.append(name)
    assert {"evidence", "metrics", "pending", "run", "runs", "status", "why"} <= set(read)


@in_one_loop
async def test_the_life_of_a_run_reads_nothing_of_the_others(engine: Engine) -> None:
    async with little_is_read(engine, "an ask"):
        done = await engine.run({"undo": {}})
        for _ in range(2):
            again = await engine.ask(ALICE, key="again")
            await engine.rest(again.number)
    async with little_is_read(engine, "an undo"):
        undo = await engine.interventions.undo(BOB, done.number, Ask(action="-", confirmed=True))
        assert isinstance(undo, Run)
        await engine.rest(undo.number)
    engine.door.attach(engine.runner, fast_path=False)
    async with little_is_read(engine, "the queue"):
        for run in [await engine.ask(ALICE, {"do": {"outcome": "invalid"}}) for _ in range(5)]:
            await engine.rest(run.number)
    async with little_is_read(engine, "a retry"):
        retry = await engine.interventions.retry(BOB, run.number, Ask(action="-", confirmed=True))
        assert isinstance(retry, Run)
        await engine.rest(retry.number)


@in_one_loop
async def test_a_verdict_reads_nothing_of_the_other_runs(engine: Engine) -> None:
    async with little_is_read(engine, "verdicts"):
        for verdict in (True, False):
            run = await engine.ask(CLAUDE, {"target": f"verdict-{verdict}"})
            assert run.state is RunState.WAITING
            await engine.approvals.decide(BOB, run.number, verdict=verdict, reason=None)
            await engine.rest(run.number)
        waiting = await engine.ask(CLAUDE, {"target": "nobody-answers"})
        await engine.interventions.cancel(ALICE, waiting.number, None)


@in_one_loop
async def test_work_that_nobody_asks_for_reads_what_is_open_only(engine: Engine) -> None:
    store, reconcilers = engine.store, engine.parts.reconcilers
    caps = Caps(per_actor=16, per_action={"bench.rare": 1})
    statements: dict[str, Callable[[], Awaitable[object]]] = {
        "owners": store.owners,
        "claim": lambda: store.claim("nobody:0:test", caps),
        "take_over": lambda: store.take_over("nobody:0:test", ["nobody"], held=[1], abandoned=[2]),
        "renew": lambda: store.renew("nobody:0:test", [1, 2, 3]),
        "expired": lambda: store.expired(100),
        "seal": reconcilers.seal,
        "expire": reconcilers.expire,
    }
    for name, statement in statements.items():
        async with little_is_read(engine, name):
            await statement()


@in_one_loop
async def test_retention_reads_what_it_drops(engine: Engine) -> None:
    old = 200
    kept = "select (select count(*) from event) as events, (select count(*) from output) as pieces"
    await engine.execute("update event set at = now() - interval '40 days' where run > %s", RUNS - old)
    await engine.execute("update output set at = now() - interval '100 days' where run > %s", RUNS - old)
    before = (await engine.query(kept))[0]
    async with little_is_read(engine, "retention", at_most=20 * old):
        await engine.parts.reconcilers.retain()
    after = (await engine.query(kept))[0]
    assert min(before[what] - after[what] for what in ("events", "pieces")) >= old


@in_one_loop
async def test_a_start_reads_nothing_of_what_is_over(engine: Engine, place: Callable[..., Any]) -> None:
    async with little_is_read(engine, "a start"):
        async with place(reconcile=True) as second:
            await _view(second, "status")
        await _gone(engine)


async def _gone(engine: Engine) -> None:
    """Until the connections of the other engine have ended; with their end they hand in what they counted."""
    pool = engine.database.pool_statistics["pool_size"]
    end = time.monotonic() + GONE_SECONDS
    while True:
        rows = await engine.query(
            "select count(*) as count from pg_stat_activity where datname = current_database()"
            " and backend_type = 'client backend'"
        )
        if rows[0]["count"] <= pool + 1 or time.monotonic() > end:
            return
        await asyncio.sleep(0.05)
