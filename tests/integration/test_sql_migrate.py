"""`sql.migrate` against a real PostgreSQL: numbered files, each once, in order, as they were planned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.engine import ALICE, Engine
from harness.guarded_database import GuardedServer, Shop, engine_for, shop
from interlock.core.ask import Ask
from interlock.core.errors import InterlockError
from interlock.core.run import Run, RunState


@pytest.fixture
def guarded(guarded_postgres: GuardedServer) -> Iterator[Shop]:
    with shop(guarded_postgres) as found:
        yield found


@pytest_asyncio.fixture
async def engine(postgres_endpoint: Any, guarded: Shop) -> AsyncIterator[Engine]:
    declaration = guarded.declaration(migrations="migrations")
    async with engine_for(postgres_endpoint, databases={"shop": declaration}) as opened:
        folder_of(opened).mkdir()
        yield opened


def folder_of(engine: Engine) -> Path:
    return engine.parts.locations.project_folder / "migrations"


def put(engine: Engine, **files: str) -> None:
    for name, text in files.items():
        (folder_of(engine) / f"{name.lstrip('_')}.sql".replace("__down", ".down")).write_text(text)


async def migrate(engine: Engine, to: str | None = None) -> Run:
    args: dict[str, Any] = {"database": "shop", **({"to": to} if to else {})}
    run = await engine.door.submit(ALICE, Ask(action="sql.migrate", args=args, confirmed=True))
    assert isinstance(run, Run)
    return await engine.rest(run.number)


def applied(guarded: Shop) -> list[str]:
    return [row[0] for row in guarded.execute("select version from interlock_migrations order by version::int")]


def exists(guarded: Shop, table: str) -> bool:
    return bool(guarded.execute(f"select to_regclass('public.{table}') is not null")[0][0])


async def test_files_are_applied_in_order_each_once_and_taken_back(engine: Engine, guarded: Shop) -> None:
    put(
        engine,
        _001_one="create table one (a int); insert into one values (1);",
        _001_one__down="drop table one",
        _002_two="alter table one add b text; -- and\ncomment on table one is 'a;b'",
        _002_two__down="alter table one drop b",
        _010_ten="create table ten ()",
        _010_ten__down="drop table ten",
    )
    first = await migrate(engine, to="2")
    assert first.state is RunState.SUCCEEDED, first.state_reason
    assert [step.summary for step in first.plan.steps] == ["apply 001_one.sql to shop", "apply 002_two.sql to shop"]
    assert {"database:shop", "table:shop/public.orders"} <= {target.key for target in first.plan.targets}
    assert applied(guarded) == ["1", "2"]
    second = await migrate(engine)
    assert (second.state, applied(guarded)) == (RunState.SUCCEEDED, ["1", "2", "10"])
    with pytest.raises(InterlockError) as caught:
        await migrate(engine)
    assert caught.value.code == "sql.nothing_to_migrate"
    for run in (second, first):
        undo = await engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
        assert isinstance(undo, Run)
        undone = await engine.rest(undo.number)
        assert undone.state is RunState.SUCCEEDED, undone.state_reason
    assert (applied(guarded), exists(guarded, "one"), exists(guarded, "ten")) == ([], False, False)


async def test_a_file_that_fails_leaves_nothing_and_takes_back_what_went_before(engine: Engine, guarded: Shop) -> None:
    put(
        engine,
        _1_good="create table good (a int)",
        _1_good__down="drop table good",
        _2_bad="create table bad (a int); insert into bad values ('x')",
        _2_bad__down="drop table bad",
    )
    run = await migrate(engine)
    assert run.state is RunState.UNDONE, run.state_reason
    assert "statement 2 of 2_bad.sql" in (run.state_reason or "")
    assert (applied(guarded), exists(guarded, "good"), exists(guarded, "bad")) == ([], False, False)


async def test_changed_lost_and_late_files_are_refused(engine: Engine, guarded: Shop) -> None:
    put(engine, _5_five="create table five (a int)")
    assert (await migrate(engine)).state is RunState.SUCCEEDED
    put(engine, _3_three="create table three (a int)")
    await refused(engine, "sql.migration_order")
    (folder_of(engine) / "3_three.sql").unlink()
    put(engine, _5_five="create table five (a int, b int)", _6_six="select 1")
    await refused(engine, "sql.migration_changed")
    (folder_of(engine) / "5_five.sql").unlink()
    await refused(engine, "sql.migration_gone")


async def refused(engine: Engine, code: str) -> None:
    with pytest.raises(InterlockError) as caught:
        await migrate(engine)
    assert caught.value.code == code
    assert caught.value.fix


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"_1_a": "select 1; commit; drop table orders"}, "sql.refused"),
        ({"_1_a": "begin; select 1"}, "sql.refused"),
        ({"_1_a": "copy orders to program 'id'"}, "sql.refused"),
        ({"_1_a": "selec 1"}, "sql.syntax"),
        ({"_1_a": "-- nothing"}, "sql.statements"),
        ({"_1_a": "select 1", "_01_b": "select 2"}, "sql.migration_twice"),
        ({"_a": "select 1"}, "sql.migration_name"),
        ({"_1_a": "select 1", "_1_a__down": "rollback"}, "sql.refused"),
        ({"_1_a": "select '" + "x" * 300_000 + "'"}, "sql.migration_text"),
        ({}, "sql.nothing_to_migrate"),
    ],
)
async def test_what_is_no_migration_is_refused(engine: Engine, files: dict[str, str], code: str) -> None:
    put(engine, **files)
    await refused(engine, code)


async def test_a_file_swapped_for_a_link_or_changed_after_the_plan_is_not_applied(
    engine: Engine, guarded: Shop
) -> None:
    put(engine, _1_a="create table a (a int)")
    proposal = await engine.door.propose(ALICE, Ask(action="sql.migrate", args={"database": "shop"}))
    put(engine, _1_a="drop table orders cascade")
    action = engine.parts.catalog.action("sql.migrate")
    with pytest.raises(InterlockError) as caught:
        action.perform(proposal.plan.steps[0], None)  # type: ignore[arg-type] - it does not come that far
    assert caught.value.code == "sql.migration_changed"
    (folder_of(engine) / "1_a.sql").rename(folder_of(engine).parent / "elsewhere")
    (folder_of(engine) / "1_a.sql").symlink_to(folder_of(engine).parent / "elsewhere")
    await refused(engine, "sql.no_migration")
    assert exists(guarded, "orders")


async def test_a_file_without_transaction_may_do_what_none_may_inside_and_breaks_off_loudly(
    engine: Engine, guarded: Shop
) -> None:
    mark = "-- interlock: no transaction\n"
    put(engine, _1_table=f"{mark}create table t (a int); create index concurrently t_a on t (a)")
    run = await migrate(engine)
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert not run.plan.steps[0].repeatable
    put(engine, _2_half=f"{mark}create table h (a int); select 1 / 0", _2_half__down="drop table h")
    run = await migrate(engine)
    assert (run.state, run.state_code) == (RunState.UNRESOLVED, "sql.half_migrated")
    await engine.interventions.resolve(ALICE, run.number, "undo", None)
    assert (await engine.rest(run.number)).state is RunState.UNDONE
    assert (applied(guarded), exists(guarded, "h")) == (["1"], False)


async def test_nothing_that_a_file_sets_for_its_session_stays(engine: Engine, guarded: Shop) -> None:
    put(engine, _1_set="set search_path = pg_catalog; set statement_timeout = 0")
    assert (await migrate(engine)).state is RunState.SUCCEEDED
    put(engine, _2_make="create table made (a int)")
    assert (await migrate(engine)).state is RunState.SUCCEEDED
    assert exists(guarded, "made")
