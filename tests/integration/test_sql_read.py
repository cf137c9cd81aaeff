"""`sql.read` against a real PostgreSQL: exact results within bounds, and nothing but reading."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.engine import ALICE, CLAUDE, Engine
from harness.guarded_database import GuardedServer, Shop, databases_of, engine_for, output_of, parser_of, shop
from interlock.adapters.secret_files import SecretFiles
from interlock.adapters.sql_databases import PostgresDatabases
from interlock.core.ask import Ask
from interlock.core.databases import StatementShape
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRAPS = """
create schema evil;
create table public.touched (what text);
create function evil.now() returns timestamptz language plpgsql volatile as
    $$ begin insert into public.touched values ('evil.now'); return pg_catalog.now(); end $$;
create function public.lower(varchar) returns text language plpgsql volatile as
    $$ begin insert into public.touched values ('public.lower'); return $1; end $$;
create function public.peek(public.orders) returns text language plpgsql volatile as
    $$ begin insert into public.touched values ('public.peek'); return 'x'; end $$;
create function public.plus(numeric, numeric) returns numeric language plpgsql as
    $$ begin insert into public.touched values ('public.plus'); return $1; end $$;
create operator public.@@@ (leftarg = numeric, rightarg = numeric, function = public.plus);
create operator evil.+ (leftarg = numeric, rightarg = numeric, function = public.plus);
create function public.net_price(numeric) returns numeric language sql stable as $$ select $1 / 1.19 $$;
create function public.looks_harmless(text) returns boolean language plpgsql immutable as
    $$ begin perform pg_sleep(100); return true; end $$;
create domain evil.picky as text check (public.looks_harmless(value));
create type public.mood as enum ('well', 'ill');
create view public.calls as select public.looks_harmless('x') as a;
grant usage on schema evil to reader;
grant select on all tables in schema public to reader;
grant insert on public.touched to reader;
"""


@pytest.fixture(scope="module")
def guarded(guarded_postgres: GuardedServer) -> Any:
    with shop(guarded_postgres, TRAPS) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, guarded: Shop) -> AsyncIterator[Engine]:
    databases = {
        "shop": guarded.declaration(
            secret=["public.secrets", "*.hidden_*"],
            functions=["public.net_price"],
            rows_max=50,
            bytes_max=20_000,
            cell_bytes_max=100,
            statement_timeout_seconds=1.0,
        ),
        "owned": guarded.declaration(read_user="owner", read_credential=guarded.server.secret("owner")),
        "super": guarded.declaration(read_user="super", read_credential=guarded.server.secret("super")),
        "wrong": guarded.declaration(read_credential=guarded.server.secret("super")),
        "nowhere": {**guarded.declaration(), "url": "postgresql:///shop?host=/nonexistent"},
        "roleless": {"url": guarded.declaration()["url"]},
    }
    async with engine_for(postgres_endpoint, databases=databases) as opened:
        yield opened


async def ask(engine: Engine, sql: str, *parameters: Any, actor: Any = ALICE, **more: Any) -> Run:
    args: JsonObject = {"database": "shop", "sql": sql, "parameters": list(parameters), **more}
    run = await engine.door.submit(actor, Ask(action="sql.read", args=args))
    assert isinstance(run, Run)
    return await engine.rest(run.number)


async def lines_of(engine: Engine, run: Run) -> list[Any]:
    assert run.state is RunState.SUCCEEDED, run.state_reason
    return [json.loads(line) for line in (await output_of(engine, run.number)).splitlines()]


async def rows(engine: Engine, sql: str, *parameters: Any) -> list[Any]:
    return (await lines_of(engine, await ask(engine, sql, *parameters)))[1:-1]


# What is read is exact, and bounded.


async def test_values_are_exact(engine: Engine) -> None:
    found = await rows(
        engine,
        "select 9007199254740993::int8, 0.1::numeric + 0.2, 1e300::float8, 'NaN'::float8, null, true,"
        " date '2026-02-28', timestamptz '2026-03-01 12:00:00.123456+02', 'a\nb', '{\"n\": 1.10}'::json, 7::int2,"
        " '\\x00ff'::bytea,"
        " interval '1 mon 2 days', array[1, null, 3]",
    )
    assert found == [
        [
            *("9007199254740993", "0.3", 1e300, "NaN", None, True, "2026-02-28", "2026-03-01 10:00:00.123456+00"),
            *("a\nb", '{"n": 1.10}', 7, "\\x00ff", "1 mon 2 days", "{1,NULL,3}"),
        ]
    ]


async def test_parameters_are_values_and_never_text_of_the_statement(engine: Engine) -> None:
    assert await rows(engine, "select id from orders where state = $1", "x' or '1' = '1") == []
    assert await rows(engine, "select count(*) from orders where id < $1 and total > $2", 5, 1.5) == [[3]]
    assert await rows(engine, "select count(*) from customers where id = any($1::int[])", "{1,2,3}") == [[3]]
    with pytest.raises(Invalid, match="has 1 parameters, and 0 were given"):
        await ask(engine, "select id from orders where id = $1")


async def test_more_rows_or_bytes_than_allowed_are_cut_and_it_says_so(engine: Engine) -> None:
    lines = await lines_of(engine, await ask(engine, "select id from orders order by id"))
    assert [len(lines) - 2, lines[-1]] == [50, {"end": {"rows": 50, "truncated": True, "cells_cut": 0}}]
    lines = await lines_of(engine, await ask(engine, "select string_agg(email, '') from customers"))
    assert len(lines[1][0]) == 100
    assert lines[-1] == {"end": {"rows": 1, "truncated": False, "cells_cut": 1}}
    lines = await lines_of(engine, await ask(engine, "select *, email || email from orders, customers"))
    assert lines[-1]["end"]["truncated"]
    table = await ask(engine, "select id, state from orders order by id", format="table")
    text = await output_of(engine, table.number)
    assert text.splitlines()[:3] == ["id  state", "--  -----", "1   open"]
    assert "(50 rows; TRUNCATED" in text


@pytest.mark.parametrize(
    "sql",
    [
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select n from r",
        "select id, row_number() over (partition by state order by id) from orders limit 3",
        "select o.id from orders o join customers c on c.id = o.customer where c.email like 'c1%' limit 3",
        "select * from order_names limit 2",
        "select state, count(*) filter (where total > 5) from orders group by rollup (state)",
        "values (1), (2)",
        "table customers",
        "select coalesce(note ->> 'n', 'none'), greatest(1, 2), extract(year from placed_at) from orders limit 1",
        "select public.net_price(total) from orders limit 1",
        "select net_price(119)",
        "select 'well'::mood",
        "select relname from pg_class limit 1",
        "select table_name from information_schema.tables limit 1",
        "explain select * from orders",
        "explain (costs off, format json) select * from orders",
        "select 1 -- the end",
        "select /* ; delete from orders */ 'delete from orders; --'",
        "select now(), current_user, current_date",
        "select exists (select from orders)",
        "select case when id > 1 then 'a' end, id between 1 and 3, id in (1, 2) from orders limit 1",
    ],
)
async def test_plain_reads_run(engine: Engine, sql: str) -> None:
    assert (await ask(engine, sql)).state is RunState.SUCCEEDED


async def test_targets_are_what_the_catalogue_says_through_views_too(engine: Engine) -> None:
    run = await ask(engine, 'select * from "order_names" limit 1')
    assert [target.key for target in run.plan.targets] == [
        "table:shop/public.customers",
        "table:shop/public.order_names",
        "table:shop/public.orders",
    ]
    assert (run.plan.changes, run.plan.discloses, run.plan.operations) == (False, "content", ("sql.read",))


@pytest.mark.parametrize("sql", ["select name from secrets", "table hidden", 'select 1 from public."secrets"'])
async def test_a_table_marked_secret_discloses_a_secret_by_any_name(engine: Engine, sql: str) -> None:
    args: JsonObject = {"database": "shop", "sql": sql}
    proposal = await engine.door.propose(CLAUDE, Ask(action="sql.read", args=args))
    assert (proposal.plan.discloses, proposal.decision.outcome) == ("secret", "forbid")


# What is no plain read is refused before anything runs.

HOSTILE = (
    "delete from orders",
    "DELETE FROM orders WHERE true",
    "insert into touched values ('x')",
    "update orders set state = 'x'",
    "merge into orders o using customers c on o.id = c.id when matched then delete",
    "truncate orders",
    "drop table orders",
    "with gone as (delete from orders returning *) select * from gone",
    "with a as (with b as (insert into touched values ('x') returning *) select * from b) select * from a",
    "select * into stolen from orders",
    "create table stolen as select * from orders",
    "create temp table t (a int)",
    "select * from orders for update",
    "select * from (select * from orders for share) o",
    "select 1; delete from orders",
    "select 1;;select 2",
    "/* */ ; ; delete from orders -- ",
    "explain analyze delete from orders",
    "explain (analyze true) select * from orders",
    "explain analyze select 1",
    "explain delete from orders",
    "explain (buffers) select 1",
    "copy orders to stdout",
    "copy orders to program 'id'",
    "copy (select 1) to '/tmp/x'",
    "do $$ begin delete from orders; end $$",
    "call nothing()",
    "prepare p as delete from orders",
    "execute p",
    "deallocate all",
    "set role owner",
    "set transaction read write",
    "reset all",
    "show all",
    "begin",
    "commit",
    "rollback; delete from orders",
    "savepoint a",
    "lock table orders in access exclusive mode",
    "listen x",
    "notify x, 'y'",
    "vacuum",
    "analyze orders",
    "checkpoint",
    "reindex table orders",
    "cluster orders",
    "discard all",
    "load 'x'",
    "grant select on orders to public",
    "alter system set work_mem = '1GB'",
    "declare c cursor for select 1",
    "fetch all from c",
    "refresh materialized view x",
    "create function f() returns int language sql as 'select 1'",
    "select set_config('transaction_read_only', 'off', false)",
    "select pg_sleep(10)",
    "select PG_SLEEP(10)",
    'select "pg_sleep"(10)',
    "select pg_catalog.pg_sleep(10)",
    'select U&"pg_\\0073leep"(10)',
    "select U&\"pg!0073leep\" UESCAPE '!' (10)",
    "select pg_/**/sleep(1)",
    "select pg_sleep/**/(10)",
    "select case when true then pg_sleep(10) end",
    "select 1 where exists (select pg_sleep(10))",
    "select * from pg_sleep(10)",
    "select * from rows from (pg_sleep(10), generate_series(1, 2)) as x",
    "select 1 order by (select pg_sleep(10))",
    "select count(*) filter (where pg_sleep(10) is not null) from orders",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_xact_lock(1)",
    "select pg_terminate_backend(1)",
    "select pg_cancel_backend(1)",
    "select pg_notify('x', 'y')",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select lo_import('/etc/passwd')",
    "select lo_create(0)",
    "select lo_export(1, '/tmp/x')",
    "select nextval('orders_id_seq')",
    "select setval('orders_id_seq', 1)",
    "select random()",
    "select clock_timestamp()",
    "select dblink('host=x', 'select 1')",
    "select query_to_xml('delete from orders', true, false, '')",
    "select table_to_xml('secrets', true, false, '')",
    "select database_to_xml(true, false, '')",
    "select txid_current()",
    "select current_setting('data_directory')",
    "select pg_current_logfile()",
    "select domain_in('x', 1, 1)",
    "select record_in('(1)', 1, 1)",
    "select textin('x')",
    "select repeat('x', 1000000000)",
    "select evil.now()",
    'select "evil"."now"()',
    "select lower(state) from orders",
    "select o.peek from orders o",
    "select (o).peek from orders o",
    "select peek(o) from orders o",
    "select 1.0 operator(evil.+) 2.0",
    "select 1.0 @@@ 2.0",
    "select 'x'::evil.picky",
    "select cast('x' as evil.picky)",
    "select public.looks_harmless('x')",
    "select * from calls",
    "select '<a/>'::xml",
    "select xmlparse(document '<a/>')",
    "select * from xmltable('/a' passing '<a/>' columns b text)",
    "select 'x' collate evil.c",
    "select * from orders tablesample system (1)",
    "select 1::orders.id%type",
    "select * from pg_stat_activity",
    "select * from pg_catalog.pg_settings",
    "select * from pg_shadow",
    "select * from pg_user_mapping",
    "select * from evil.nothing_here",
    "select * from postgres.public.orders",
    "select * from orders_id_seq",
    "select * from no_such_table",
    "select no_such_function()",
    "",
    ";",
    "-- nothing",
    "selec 1",
    "select 'a\0b'",
    "select " + "+".join(["1"] * 32_000),
    "select " + "+".join(["1"] * 8_000),
    "select " + "(" * 7_000 + "1" + ")" * 7_000 + " + pg_sleep(10)",
    "select 1 where 1 in (" + ",".join(["1"] * 20_000) + ")",
    "select " + "not " * 4_000 + "true",
)


@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: repr(sql[:60]))
async def test_what_is_no_plain_read_is_refused_and_not_recorded(engine: Engine, guarded: Shop, sql: str) -> None:
    args: JsonObject = {"database": "shop", "sql": sql}
    with pytest.raises((Denied, Invalid, NotFound)) as caught:
        await engine.door.submit(ALICE, Ask(action="sql.read", args=args))
    assert caught.value.fix
    assert guarded.execute("select count(*) from orders") == [(60,)]
    assert guarded.execute("select * from touched") == []


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from generate_series(1, 10000000000)",
        "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r",
        "select count(*) from orders a, orders b, orders c, orders d, orders e, orders f",
    ],
)
async def test_a_query_without_end_is_ended(engine: Engine, sql: str) -> None:
    run = await ask(engine, sql)
    assert (run.state, run.state_code) == (RunState.FAILED, "sql.timeout")


async def test_the_server_itself_refuses_what_the_parser_might_miss(engine: Engine, guarded: Shop) -> None:
    """The second wall: a plain role in a read-only transaction behind a cursor, one statement at a time."""
    databases = databases_of(engine)
    shape = parser_of(engine).parse("select 1")
    for text in (
        "delete from orders returning id",
        "select evil.now()",
        "select 1) as q; delete from orders; --",
        "select nextval('orders_id_seq')",
        "select pg_read_file('/etc/passwd')",
        "select lo_create(0)",
        "with a as (insert into touched values ('x') returning *) select * from a",
    ):
        names = databases.look_up("shop", shape, writing=False)
        with pytest.raises((Denied, Invalid, NotFound, Exception)) as caught:
            databases.read("shop", shape.model_copy(update={"text": text}), (), names, lambda: None)
        assert type(caught.value).__module__ == "interlock.core.errors", caught.value
    assert guarded.execute("select count(*) from orders") == [(60,)]
    assert guarded.execute("select * from touched") == []


# As whom.


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("owned", "sql.role"),
        ("super", "sql.role"),
        ("wrong", "sql.login"),
        ("nowhere", "sql.unreachable"),
        ("roleless", "sql.no_role"),
        ("unheard-of", "sql.unknown_database"),
    ],
)
async def test_a_database_is_reached_as_a_plain_role_or_not_at_all(
    engine: Engine, guarded: Shop, name: str, code: str
) -> None:
    args: JsonObject = {"database": name, "sql": "select 1"}
    with pytest.raises(Exception, match=name) as caught:
        await engine.door.submit(ALICE, Ask(action="sql.read", args=args))
    assert getattr(caught.value, "code", None) == code
    told = json.dumps(caught.value.to_json()) + repr(caught.value.__context__) + repr(caught.value.__cause__)  # type: ignore[attr-defined]
    assert not [secret for secret in guarded.server.passwords.values() if secret in told]


async def test_a_name_that_came_to_mean_something_else_makes_the_run_stale(engine: Engine, guarded: Shop) -> None:
    guarded.execute("set role owner; create table swapped (a int); grant select on swapped to reader")
    args: JsonObject = {"database": "shop", "sql": "select * from swapped"}
    proposal = await engine.door.propose(ALICE, Ask(action="sql.read", args=args))
    guarded.execute("set role owner; drop table swapped; create view swapped as select 1 as a")
    names = proposal.plan.steps[0].params["names"]
    again = await engine.door.propose(ALICE, Ask(action="sql.read", args=args))
    assert again.plan.steps[0].params["names"] != names
    assert again.digest != proposal.digest


async def test_the_connection_that_the_server_closed_is_replaced(engine: Engine, guarded: Shop) -> None:
    assert await rows(engine, "select 1") == [[1]]
    guarded.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader'")
    assert await rows(engine, "select 2") == [[2]]


async def test_an_interlocks_own_records_are_no_guarded_database(guarded_postgres: GuardedServer) -> None:
    own = "; ".join(f"create table {name} (a int)" for name in ("evidence", "unsealed", "checkpoint", "leaf"))
    with shop(guarded_postgres, own) as found:
        databases = PostgresDatabases({"own": found.declared()}.copy, SecretFiles(Path("/nonexistent")))
        with pytest.raises(Denied, match="keeps its own records"):
            databases.look_up("own", StatementShape(text="select 1", kind="select", root="select_stmt"), writing=False)
        databases.close()
