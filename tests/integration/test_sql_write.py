"""`sql.write` against a real PostgreSQL: rehearsed, exact, once, and taken back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from harness.engine import ALICE, BOB, CLAUDE, Engine, Proposal
from harness.guarded_database import GuardedServer, Shop, databases_of, engine_for, shop
from interlock.core.ask import Ask
from interlock.core.errors import Denied, Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState

pytestmark = pytest.mark.asyncio(loop_scope="module")

MORE = """
create table public.audit (at timestamptz, what text);
create table public.touched (what text);
create table public.watched (id int primary key, what text);
create table public.stamped (id int primary key, what text, changed_at timestamptz);
create table public.parents (id int primary key);
create table public.children (id int primary key, parent int references public.parents on delete cascade);
create table public.vault (id int primary key, parent int references public.parents on delete cascade);
create table public.parted (id int, at int, primary key (id, at)) partition by range (at);
create table public.parted_1 partition of public.parted for values from (0) to (10);
create table public.many (id int primary key, n int not null);
create table public.exact (
    id uuid primary key default gen_random_uuid(), big numeric, f float8, b bytea, t timestamptz, j json, a text[],
    nothing text, twice numeric generated always as (big * 2) stored, "odd ""name" text
);
create table public.ruled (id int primary key);
create rule r as on delete to public.ruled do instead nothing;
create table public.lazy (id int primary key, slow text default pg_sleep(100)::text);
create function public.watch() returns trigger language plpgsql as
    $$ begin insert into public.audit values (now(), 'watched'); return new; end $$;
create trigger watch after update on public.watched for each row execute function public.watch();
create function public.stamp() returns trigger language plpgsql as
    $$ begin new.changed_at = now(); return new; end $$;
create trigger stamp before update on public.stamped for each row execute function public.stamp();
insert into public.watched values (1, 'a'), (2, 'b');
insert into public.stamped values (1, 'a', '2026-01-01'), (2, 'b', '2026-01-01');
insert into public.parents values (1), (2); insert into public.children values (1, 1);
insert into public.parted values (1, 1), (2, 2);
insert into public.many select n, 0 from generate_series(1, 300) n;
insert into public.exact (big, f, b, t, j, a, "odd ""name") values
    (12345678901234567890.12345, 0.1, '\\x00ff', '2026-03-01 12:00:00.123456+02', '{"a":  1}', '{1,NULL,"x y"}', 'q');
grant select, insert, update, delete on all tables in schema public to writer;
grant select on all tables in schema public to reader;
"""


@pytest.fixture(scope="module")
def guarded(guarded_postgres: GuardedServer) -> Iterator[Shop]:
    with shop(guarded_postgres, MORE) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, guarded: Shop) -> AsyncIterator[Engine]:
    declaration = guarded.declaration(
        write_rows_without_approval=100,
        pre_image_rows_max=200,
        write_rows_max=250,
        lock_timeout_seconds=0.3,
        functions=["public.stamp"],
        secret=["public.secrets"],
    )
    async with engine_for(
        postgres_endpoint,
        policy="small-team",
        databases={"shop": declaration},
        protected=["table:shop/public.vault"],
        people={"alice": {"roles": ["operator"]}, "bob": {"roles": ["operator"]}},
        agents={"claude": {"on_behalf_of": "alice"}},
    ) as opened:
        yield opened


def ask_of(sql: str, *parameters: Any, confirmed: bool = True) -> Ask:
    args: JsonObject = {"database": "shop", "sql": sql, "parameters": list(parameters)}
    return Ask(action="sql.write", args=args, confirmed=confirmed)


async def write(engine: Engine, sql: str, *parameters: Any) -> Run:
    run = await engine.door.submit(ALICE, ask_of(sql, *parameters))
    assert isinstance(run, Run), run
    return await engine.rest(run.number)


async def propose(engine: Engine, sql: str, *parameters: Any, actor: Any = ALICE) -> Proposal:
    return await engine.door.propose(actor, ask_of(sql, *parameters))


async def undo(engine: Engine, number: int) -> Run:
    run = await engine.interventions.undo(ALICE, number, Ask(action="-", confirmed=True))
    assert isinstance(run, Run)
    return await engine.rest(run.number)


async def test_a_proposal_shows_exact_rows_and_changes_nothing(engine: Engine, guarded: Shop) -> None:
    before = guarded.execute("select * from orders order by id")
    found = await propose(engine, "update orders set state = 'void' where customer = $1", 3)
    assert found.plan.summary == "update 3 rows of public.orders in shop"
    assert "3 rows of public.orders, rehearsed" in (found.plan.preview or "")
    assert "- id=2, customer=3, state=open" in (found.plan.preview or "")
    assert "+ id=2, customer=3, state=void" in (found.plan.preview or "")
    assert guarded.execute("select * from orders order by id") == before
    assert (await propose(engine, "update orders set state = 'void' where customer = $1", 3)).digest == found.digest
    guarded.execute("update orders set note = '{}' where id = 2")
    assert (await propose(engine, "update orders set state = 'void' where customer = $1", 3)).digest != found.digest


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("update orders set state = 'void', note = null, total = total * 2 where customer = 4", "orders"),
        (
            "update orders o set state = c.email from customers c where c.id = o.customer and c.id < 5 -- all of them",
            "orders",
        ),
        ("delete from orders where customer = 5", "orders"),
        ("insert into orders (customer, total) values (6, 7.5), (7, 1), (8, null)", "orders"),
        ("insert into orders as o (customer, total) select id, balance from customers where id < 4", "orders"),
        (
            (
                "insert into customers (id, email) values (1, 'new@x'), (900, 'n@x')"
                " on conflict (id) do update set email = excluded.email"
            ),
            "customers",
        ),
        ("insert into customers (id, email) values (1, 'new@x'), (901, 'n@x') on conflict do nothing", "customers"),
        (
            (
                "with few as (select id from orders order by id limit 2)"
                " update orders set placed_at = now() where id in (select id from few)"
            ),
            "orders",
        ),
        (
            (
                "update exact set big = 1, f = 1e-300, b = null, t = now(), j = null, a = '{}', nothing = 'x',"
                ' "odd ""name" = \'z\''
            ),
            "exact",
        ),
        ("delete from exact", "exact"),
        ("update orders set state = 'void' where false", "orders"),
        ("delete from parted where id = 1", "parted"),
    ],
)
async def test_what_was_written_is_taken_back_to_the_last_bit(
    engine: Engine, guarded: Shop, sql: str, table: str
) -> None:
    look = f"select t::text, t.tableoid::regclass::text from {table} t order by 1"
    before = guarded.execute(look)
    run = await write(engine, sql)
    if run.state is RunState.WAITING:
        run = await confirm_again(engine, run)
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert run.plan.undoable
    assert "where false" in sql or guarded.execute(look) != before
    back = await undo(engine, run.number)
    assert back.state is RunState.SUCCEEDED, back.state_reason
    assert guarded.execute(look) == before


async def confirm_again(engine: Engine, run: Run) -> Run:
    await engine.approvals.decide(ALICE, run.number, digest=run.digest, verdict=True, reason=None)
    return await engine.rest(run.number)


# Whoever may not, does not even rehearse; and who may needs a yes for many rows.


async def test_for_whom_policy_forbids_it_nothing_is_rehearsed(engine: Engine, guarded: Shop) -> None:
    with guarded.server.connect(guarded.name, "owner") as holder:
        holder.execute(b"begin; lock table vault in access exclusive mode")
        found = await propose(engine, "delete from vault where id = 1", actor=ALICE)
    assert found.decision.outcome == "forbid"
    assert "not rehearsed" in (found.plan.preview or "")


@pytest.mark.parametrize(
    "sql",
    [
        "insert into vault (id) values (1)",
        'update public."vault" set parent = 1',
        'update U&"v\\0061ult" set parent = 1',
        "delete from parents where id = 2",
        "update watched set what = 'x' where id = 1",
    ],
)
async def test_a_protected_table_has_no_path_by_cascade_trigger_or_another_name(engine: Engine, sql: str) -> None:
    for actor in (ALICE, CLAUDE):
        found = await propose(engine, sql, actor=actor)
        assert found.decision.outcome == "forbid", found.plan.targets
        assert "invariant.protected" in {reason.policy for reason in found.decision.reasons}


async def test_reading_a_protected_table_while_writing_another_is_open(engine: Engine) -> None:
    found = await propose(engine, "delete from orders where id in (select id from vault)")
    assert found.decision.outcome != "forbid"


async def test_an_agents_write_waits_for_a_person(engine: Engine, guarded: Shop) -> None:
    run = await engine.door.submit(CLAUDE, ask_of("update orders set state = 'void' where id = 40"))
    assert isinstance(run, Run)
    assert run.state is RunState.WAITING
    assert guarded.execute("select state from orders where id = 40") != [("void",)]
    await engine.approvals.decide(BOB, run.number, digest=run.digest, verdict=True, reason=None)
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    assert guarded.execute("select state from orders where id = 40") == [("void",)]


async def test_an_agent_is_not_shown_a_secret_table_by_writing_to_it(engine: Engine) -> None:
    found = await propose(engine, "update secrets set name = name || 'x'", actor=CLAUDE)
    assert (found.decision.outcome, found.plan.discloses) == ("forbid", "secret")
    assert "a value that nobody may see" not in found.plan.model_dump_json()


async def test_values_of_a_secret_table_stand_in_no_plan(engine: Engine) -> None:
    found = await propose(engine, "update secrets set value = value || 'x'")
    assert "1 row of public.secrets, rehearsed" in (found.plan.preview or "")
    assert "are not shown" in (found.plan.preview or "")
    assert "a value that nobody may see" not in found.plan.model_dump_json()


async def test_more_rows_than_declared_need_another_person(engine: Engine, guarded: Shop) -> None:
    run = await engine.door.submit(ALICE, ask_of("update many set n = 1 where id <= 101"))
    assert isinstance(run, Run)
    assert (run.state, run.plan.risk) == (RunState.WAITING, "high")
    assert "sql.write_many" in run.plan.operations
    assert any(requirement.approvals for requirement in run.decision.requirements)
    few = await engine.door.submit(ALICE, ask_of("update many set n = 1 where id <= 100"))
    assert isinstance(few, Run)
    assert (await engine.rest(few.number)).state is RunState.SUCCEEDED
    await engine.approvals.decide(ALICE, run.number, digest=run.digest, verdict=True, reason=None)
    assert (await engine.store.by_number(run.number)).state is RunState.WAITING, "she alone is not enough"
    await engine.approvals.decide(BOB, run.number, digest=run.digest, verdict=True, reason=None)
    assert (await engine.rest(run.number)).state is RunState.STALE, "somebody wrote the same rows meanwhile"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("update no_key set b = 'z' where a = 1", "no primary key"),
        ("update customers set id = 1000 where id = 20 and false", "changes a key"),
        ("delete from parents where id = 77", "follow when rows"),
        ("update many set n = 2 where id <= 201", "more rows than are kept"),
        ("update watched set what = 'x' where id = 1", "nobody knows what it brings along: the trigger watch"),
    ],
)
async def test_what_cannot_be_taken_back_says_why(engine: Engine, sql: str, why: str) -> None:
    (step,) = (await propose(engine, sql)).plan.steps
    assert step.undo is None
    assert why in (step.irreversible or "")


async def test_a_trigger_that_its_owner_vouches_for_is_rehearsed_and_undo_tells_what_it_cannot_do(
    engine: Engine, guarded: Shop
) -> None:
    run = await write(engine, "update stamped set what = 'x' where id = 1")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    back = await undo(engine, run.number)
    assert (back.state, back.state_code) == (RunState.FAILED, "sql.not_restored")
    assert guarded.execute("select what from stamped where id = 1") == [("x",)], "all of the undo or nothing"


async def test_more_rows_than_may_be_written_at_all_are_refused(engine: Engine, guarded: Shop) -> None:
    with pytest.raises(Invalid, match="more than 250 rows"):
        await propose(engine, "update many set n = n + 1")


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "update orders set state = 'x' returning id",
        "with a as (delete from orders returning id) insert into touched select id::text from a",
        "insert into touched select pg_sleep(100)::text",
        "insert into touched values (nextval('orders_id_seq')::text)",
        "insert into lazy (id) values (1)",
        "insert into lazy (id, slow) values (1, default)",
        "update order_names set email = 'x'",
        "delete from ruled",
        "truncate orders",
        "merge into orders o using customers c on o.id = c.id when matched then delete",
        "delete from orders; delete from customers",
        "delete from pg_catalog.pg_class",
        "insert into orders_id_seq values (1)",
        "update orders set state = 'x' where current of c",
        "with touched as (select 1) insert into touched values ('x')",
        "copy orders from stdin",
        "do $$ begin end $$",
        "delete from nowhere",
    ],
)
async def test_what_is_no_plain_write_is_refused(engine: Engine, guarded: Shop, sql: str) -> None:
    if sql == "delete from ruled":
        assert (await propose(engine, sql)).decision.outcome == "forbid", "a rule may do anything"
        return
    with pytest.raises((Denied, Invalid, NotFound)) as caught:
        await propose(engine, sql)
    assert caught.value.fix
    assert guarded.execute("select count(*) from touched") == [(0,)]


# Between plan and effect.


async def waiting(engine: Engine, sql: str) -> Run:
    run = await engine.door.submit(CLAUDE, ask_of(sql))
    assert isinstance(run, Run)
    assert run.state is RunState.WAITING
    return run


async def approved(engine: Engine, run: Run) -> Run:
    await engine.approvals.decide(BOB, run.number, digest=run.digest, verdict=True, reason=None)
    return await engine.rest(run.number)


@pytest.mark.parametrize(
    "meanwhile",
    [
        "update orders set note = '[]' where id = 41",
        "delete from orders where id = 41",
        "insert into orders (customer, state, total) values (2, 'open', 1)",
    ],
)
async def test_rows_that_changed_while_it_waited_make_it_stale(engine: Engine, guarded: Shop, meanwhile: str) -> None:
    run = await waiting(engine, "update orders set state = 'void' where id >= 41 and state <> 'never'")
    guarded.execute(meanwhile)
    assert (await approved(engine, run)).state is RunState.STALE
    assert guarded.execute("select count(*) from orders where id >= 41 and state = 'void'") == [(0,)]


async def test_a_time_that_moved_on_does_not_make_it_stale(engine: Engine, guarded: Shop) -> None:
    run = await waiting(engine, "insert into orders (customer, placed_at) values (9, now())")
    assert "(decided when it happens)" in (run.plan.preview or "")
    assert (await approved(engine, run)).state is RunState.SUCCEEDED


async def test_rows_that_changed_since_are_not_overwritten_by_an_undo(engine: Engine, guarded: Shop) -> None:
    run = await write(engine, "update orders set state = 'void' where id in (10, 11)")
    assert run.state is RunState.SUCCEEDED
    guarded.execute("update orders set total = 99 where id = 11")
    back = await undo(engine, run.number)
    assert (back.state, back.state_code) == (RunState.FAILED, "sql.rows_changed")
    assert guarded.execute("select state from orders where id in (10, 11)") == [("void",), ("void",)]


async def test_a_lock_that_somebody_holds_is_not_waited_for_long(engine: Engine, guarded: Shop) -> None:
    with guarded.server.connect(guarded.name, "owner") as holder:
        holder.execute(b"begin")
        holder.execute(b"select * from orders where id = 12 for update")
        with pytest.raises(Transient) as caught:
            await propose(engine, "update orders set state = 'void' where id = 12")
        holder.execute(b"rollback")
    assert caught.value.code == "sql.locked"


async def test_what_the_database_refuses_is_undone_and_tells_no_value_of_a_row(engine: Engine, guarded: Shop) -> None:
    with pytest.raises(Invalid) as caught:
        await propose(engine, "insert into customers (id, email) select 1, value from secrets")
    assert "a value that nobody may see" not in json.dumps(caught.value.to_json())
    with pytest.raises(Invalid) as caught:
        await propose(engine, "update orders set customer = value::int from secrets where orders.id = 1")
    assert "a value that nobody may see" not in json.dumps(caught.value.to_json())


# Once, whatever breaks.


@pytest.mark.parametrize("when", ["before the commit", "after it"])
async def test_a_connection_lost_before_the_commit_is_repeated_and_one_lost_after_it_is_not(
    engine: Engine, guarded: Shop, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Added to a balance twice would show."""
    owner: Any = type(databases_of(engine))
    honest = owner.write
    calls: list[str] = []

    def broken(self: Any, database: str, request: Any, accept: Any, before_commit: Any) -> Any:
        calls.append(when)

        def cut(identity: Any, outcome: Any) -> None:
            before_commit(identity, outcome)
            if when == "before the commit" and len(calls) == 1:
                guarded.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'writer'")

        outcome = honest(self, database, request, accept, cut)
        if when == "after it":
            msg = "as told: nobody heard that it was committed"
            raise Transient(msg)
        return outcome

    monkeypatch.setattr(owner, "write", broken)
    look = "select balance from customers where id = 15"
    before = guarded.execute(look)[0][0]
    run = await write(engine, "update customers set balance = balance + 1 where id = 15")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert len(calls) == (2 if when == "before the commit" else 1)
    assert guarded.execute(look)[0][0] == before + 1
    monkeypatch.undo()
    assert (await undo(engine, run.number)).state is RunState.SUCCEEDED
    assert guarded.execute(look)[0][0] == before
