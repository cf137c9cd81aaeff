"""The log on a real PostgreSQL: sealing beside writers, verification, receipts, exports, attacks on the tables."""

# ruff: noqa: S608, ASYNC110, ASYNC240 - attacks are put together from constants; backends end without telling us
from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from harness import sealed_runs
from interlock.core.checkpoint import Checkpoint, link_of
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent, Transient
from interlock.core.evidence import GENESIS, Evidence, leaf_hash
from interlock.engine.audit import store as audit_store
from interlock.engine.audit import verify_bundle
from interlock.engine.audit.export import export_log, export_run
from interlock.engine.audit.receipt import Receipt, make_receipt, verify_receipt
from interlock.engine.audit.seal import Sealed, after_restore, seal
from interlock.engine.audit.verify import Verification, Witness, read_witness, verify
from interlock.engine.db import Connection, DatabaseAddress, migrate
from interlock.engine.keys import signing_key
from interlock.lib.merkle import Frontier
from interlock.lib.note import SigningKey, open_note, sign_note

KEY = SigningKey.generate("log.example/team")
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@dataclass
class Log:
    """A migrated database with a connection as the app and one as the owner, who can do everything."""

    app: Connection
    owner: Connection
    address: DatabaseAddress

    async def connect(self) -> Connection:
        """One more connection as the app."""
        return await psycopg.AsyncConnection[Any].connect(self.address.app, autocommit=True, row_factory=dict_row)

    async def add(self, run: int, *, state: str | None = "succeeded") -> list[Evidence]:
        """A whole Run, in a transaction of its own."""
        rows = evidence_of(run, state)
        async with self.app.transaction():
            await insert_run(self.app, run, state or "running")
            for row in rows:
                await insert(self.app, row)
        return rows

    async def add_approved(self, run: int) -> None:
        """A Run that somebody approved and that is not sealed yet."""
        new = sealed_runs.asked(run)
        verdict = sealed_runs.verdict_on(new)
        async with self.app.transaction():
            await sealed_runs.insert_run(self.app, new, "running", verdict)
            for row in sealed_runs.evidence_of(new, None, verdict):
                await insert(self.app, row)

    async def seal(self, rows_max: int = 1000) -> Sealed:
        """Seal, as the only sealer."""
        sealed = await seal(self.app, KEY, NOW, rows_max)
        assert sealed is not None
        return sealed

    async def seal_all(self, rows_max: int = 1000) -> list[str]:
        """Seal until nothing is left; the notes."""
        notes = []
        while (sealed := await self.seal(rows_max)).rows:
            notes.append(sealed.note or "")
        return notes

    async def tamper(self, *statements: str) -> None:
        """What the owner of the tables can do: switch the triggers off and write."""
        async with self.owner.transaction():
            for statement in (*switch("disable"), *statements, *switch("enable")):
                await self.owner.execute(statement.encode())

    async def verify(self, since: Witness | None = None) -> Verification:
        """Verify with the right key."""
        return await verify(self.app, KEY.verifier, since)

    async def codes(self, since: Witness | None = None) -> set[str]:
        """The codes of what verification finds."""
        found = await self.verify(since)
        assert found.intact == (not found.findings)
        return {finding.code for finding in found.findings}


def switch(verb: str) -> list[str]:
    return [f"alter table {table} {verb} trigger user" for table in ("evidence", "leaf", "checkpoint")]


def evidence_of(run: int, state: str | None) -> list[Evidence]:
    return sealed_runs.evidence_of(sealed_runs.asked(run), state)


async def insert(connection: Connection, row: Evidence) -> None:
    await connection.execute(
        "insert into evidence (run, seq, kind, line, hash) values (%s, %s, %s, %s, %s)",
        (row.run, row.seq, row.kind.value, row.line, row.hash),
    )
    await connection.execute("insert into unsealed (run, seq) values (%s, %s)", (row.run, row.seq))


async def insert_run(connection: Connection, run: int, state: str) -> None:
    await sealed_runs.insert_run(connection, sealed_runs.asked(run), state)


@pytest.fixture
async def log(fresh_database: Any) -> AsyncIterator[Log]:
    address = DatabaseAddress(app=fresh_database.app_conninfo, owner=fresh_database.owner_conninfo)
    await migrate(address)
    connect = psycopg.AsyncConnection[Any].connect
    async with (
        await connect(address.app, autocommit=True, row_factory=dict_row) as app,
        await connect(address.owner, autocommit=True, row_factory=dict_row) as owner,
    ):
        yield Log(app, owner, address)
        await app.close()
        async with asyncio.timeout(10):
            while await others(owner):
                await asyncio.sleep(0.005)


async def others(owner: Connection) -> int:
    """How many backends still end; a database with one of another role cannot be dropped by its owner."""
    query = """select count(*) as count from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()"""
    row = await (await owner.execute(query)).fetchone()
    return int(row["count"]) if row else 0


async def test_an_empty_log_is_intact_and_says_what_that_does_not_prove(log: Log) -> None:
    found = await log.verify()
    assert found.intact
    assert found.size == 0
    assert any("--since" in limit for limit in found.limits)
    assert await log.seal() == Sealed(0, 0, None)


async def test_sealed_rows_are_numbered_in_order_and_signed(log: Log) -> None:
    for run in (1, 2):
        await log.add(run)
    sealed = await log.seal()
    assert (sealed.rows, sealed.size) == (8, 8)
    checkpoint = Checkpoint.parse(open_note(sealed.note or "", KEY.verifier))
    assert (checkpoint.size, checkpoint.prev, checkpoint.epoch) == (8, link_of(None), 0)
    rows = await (await log.app.execute("select index, run, seq from leaf order by index")).fetchall()
    assert [(row["run"], row["seq"]) for row in rows] == [(run, seq) for run in (1, 2) for seq in range(1, 5)]
    frontier = Frontier()
    for run in (1, 2):
        for row in evidence_of(run, "succeeded"):
            frontier.append(bytes.fromhex(row.hash))
    assert checkpoint.root == frontier.root().hex()
    found = await log.verify()
    assert found.intact, found.findings
    assert (found.rows, found.leaves, found.unsealed, found.checkpoints) == (8, 8, 0, 1)


async def test_batches_are_bounded_and_their_checkpoints_a_chain(log: Log) -> None:
    for run in range(1, 6):
        await log.add(run)
    notes = await log.seal_all(rows_max=3)
    assert len(notes) == 7
    checkpoints = [Checkpoint.parse(open_note(note, KEY.verifier)) for note in notes]
    assert [checkpoint.size for checkpoint in checkpoints] == [3, 6, 9, 12, 15, 18, 20]
    assert [checkpoint.prev for checkpoint in checkpoints[1:]] == [link_of(note) for note in notes[:-1]]
    assert (await log.verify()).intact


async def test_unsealed_rows_and_open_runs_are_in_order(log: Log) -> None:
    await log.add(1)
    await log.seal()
    await log.add(2, state=None)
    found = await log.verify()
    assert found.intact, found.findings
    assert found.unsealed == 3


async def test_a_row_waits_for_every_older_transaction(log: Log) -> None:
    late = await log.connect()
    async with late:
        async with late.transaction():
            rows = evidence_of(1, "succeeded")
            await insert_run(late, 1, "succeeded")
            for row in rows:
                await insert(late, row)
            await log.add(2)
            assert (await log.seal()).rows == 0
        assert (await log.seal()).rows == 8
    order = await (await log.app.execute("select run from leaf order by index")).fetchall()
    assert [row["run"] for row in order] == [1] * 4 + [2] * 4


async def test_one_sealer_at_a_time(log: Log) -> None:
    await log.add(1)
    other = await log.connect()
    async with other, other.transaction():
        assert await audit_store.try_lock(other)
        assert await seal(log.app, KEY, NOW) is None
    assert (await log.seal()).rows == 4


async def test_sealing_beside_many_writers_loses_and_doubles_nothing(log: Log) -> None:
    """Writers commit late and out of order, some roll back, two sealers compete: every row gets one place, in order."""
    runs_per_writer, writers = 12, 6
    generator = random.Random(11)  # noqa: S311 - the same schedule in every run
    done = asyncio.Event()

    async def write(writer: int) -> None:
        connection = await log.connect()
        async with connection:
            for number in range(runs_per_writer):
                run = writer * 1000 + number
                for row in evidence_of(run, None):
                    async with connection.transaction(force_rollback=generator.random() < 0.3):
                        await insert(connection, row)
                        await asyncio.sleep(generator.random() * 0.004)
                    if await is_missing(connection, row):
                        async with connection.transaction():
                            await insert(connection, row)
                            await asyncio.sleep(generator.random() * 0.004)
                await insert_run(connection, run, "running")

    async def seal_until_done() -> int:
        connection, rows = await log.connect(), 0
        async with connection:
            while not done.is_set():
                sealed = await seal(connection, KEY, NOW, 7)
                rows += sealed.rows if sealed else 0
                await asyncio.sleep(0)
        return rows

    sealers = [asyncio.create_task(seal_until_done()) for _ in range(2)]
    await asyncio.gather(*(write(writer) for writer in range(1, writers + 1)))
    done.set()
    sealed = sum(await asyncio.gather(*sealers))
    assert sealed > 0
    await log.seal_all()
    found = await log.verify()
    assert found.intact, found.findings
    assert found.leaves == found.rows == writers * runs_per_writer * 3
    assert found.unsealed == 0
    assert found.checkpoints > 10


async def is_missing(connection: Connection, row: Evidence) -> bool:
    query = "select 1 from evidence where run = %s and seq = %s"
    return await (await connection.execute(query, (row.run, row.seq))).fetchone() is None


async def test_rows_restored_from_a_newer_cluster_are_sealed_first_and_begin_an_epoch(log: Log) -> None:
    await log.add(1, state=None)
    first = await log.seal()
    assert first.note is not None
    await log.tamper("update unsealed set xid = xid")
    rows = evidence_of(1, "succeeded")
    async with log.app.transaction():
        await insert(log.app, rows[3])
    # As after pg_restore into another cluster: the number of the transaction lies in the future, the home is another.
    foreign = Checkpoint.parse(open_note(first.note, KEY.verifier)).model_copy(update={"home": "1-1-1"})
    note = sign_note(foreign.text(), KEY).replace("'", "''")
    await log.tamper("update unsealed set xid = '1000000000'", f"update checkpoint set note = '{note}'")
    await log.tamper(
        "update run set state = 'succeeded', owner = null, lease_until = null, closed_at = '2026-03-01 09:30Z'"
    )
    await log.add(2)
    await log.seal()
    await log.seal()
    order = await (await log.app.execute("select run, seq from leaf order by index offset 3")).fetchall()
    assert [(row["run"], row["seq"]) for row in order] == [(1, 4), (2, 1), (2, 2), (2, 3), (2, 4)]
    last = await audit_store.last_checkpoint(log.app)
    assert last is not None
    assert last.epoch == 1
    found = await log.verify()
    assert found.intact, found.findings


async def test_restore_frees_rows_of_a_foreign_transaction(log: Log) -> None:
    await log.add(1)
    await log.seal()
    await log.add(2)
    await log.tamper("update unsealed set xid = '1000000000'")
    assert (await log.seal()).rows == 0
    assert await after_restore(log.app) == 4
    assert (await log.seal()).rows == 4
    assert (await log.verify()).intact


async def test_the_app_role_cannot_change_the_log(log: Log) -> None:
    await log.add(1)
    await log.seal()
    for table in ("evidence", "leaf", "checkpoint"):
        for statement in (f"delete from {table}", f"truncate {table}", f"update {table} set {column_of(table)}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await log.app.execute(statement.encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await log.owner.execute(statement.encode())


def column_of(table: str) -> str:
    return {"evidence": "kind = kind", "leaf": "run = run", "checkpoint": "root = root"}[table]


NEVER_CHANGED = {
    "run": """number actor actor_id action summary risk changes plan digest decision targets key ask_digest reason
        created_at expires_at undo_of retry_of timeout_seconds""",
    "run_target": "target run",
    "approval": "run digest asker approver roles kind verdict reason at expires_at",
    "change_freeze": "scope pattern reason set_by set_at until run",
    "unsealed": "run seq xid",
    "event": "at kind labels data run",
    "output": "run seq at bytes body",
}


async def test_the_app_role_cannot_change_what_never_changes(log: Log) -> None:
    for table, columns in NEVER_CHANGED.items():
        for column in columns.split():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await log.app.execute(f"update {table} set {column} = {column}".encode())


HEX = "'" + "ab" * 32 + "'"
ONE_MORE = """(run, digest, asker, kind, verdict, at, expires_at, roles, approver)
    select run, digest, asker, 'confirmation', verdict, at, expires_at, roles, """
FROM_BOB = " from approval where run = 4"
ATTACKS: list[tuple[str, list[str], set[str]]] = [
    ("line", ["update evidence set line = replace(line, 'true', 'false') where run = 2"], {"row.hash"}),
    (
        "line and hash",
        [
            "update evidence set line = replace(line, 'true', 'false') where run = 2",
            """update evidence set hash = encode(sha256('\\x00'::bytea || convert_to(line, 'UTF8')), 'hex')
                where run = 2""",
        ],
        {"row.prev", "checkpoint.root"},
    ),
    ("kind", ["update evidence set kind = 'approved' where run = 2 and seq = 2"], {"row.columns"}),
    ("row", ["delete from evidence where run = 2 and seq = 3"], {"row.missing", "leaf.lost"}),
    ("asked row", ["delete from evidence where run = 2 and seq = 1"], {"row.missing", "leaf.lost"}),
    ("run", ["delete from evidence where run = 2", "delete from run where number = 2"], {"leaf.lost"}),
    (
        "run and its leaves",
        ["delete from evidence where run = 2", "delete from run where number = 2", "delete from leaf where run = 2"],
        {"leaf.missing"},
    ),
    (
        "run, renumbered",
        [
            "delete from evidence where run = 2",
            "delete from run where number = 2",
            "delete from leaf where run = 2",
            "update leaf set index = index - 4 where index >= 8",
        ],
        {"checkpoint.root", "log.truncated"},
    ),
    (
        "leaves swapped",
        ["update leaf set seq = -seq where run = 2", "update leaf set seq = seq + 5 where run = 2"],
        {"leaf.order", "checkpoint.root"},
    ),
    (
        "end",
        ["delete from leaf where index >= 10", "delete from evidence where run = 3 and seq > 2"],
        {"log.truncated", "run.state"},
    ),
    ("last checkpoint", ["delete from checkpoint where size = 12"], {"leaf.unsigned"}),
    ("first checkpoint", ["delete from checkpoint where size = 5"], {"checkpoint.prev"}),
    ("root", [f"update checkpoint set root = {HEX} where size = 5"], {"checkpoint.columns"}),
    ("epoch", ["update checkpoint set epoch = 3 where size = 5"], {"checkpoint.columns"}),
    ("time", ["update checkpoint set at = at + interval '1 second' where size = 5"], {"checkpoint.columns"}),
    ("note", ["update checkpoint set note = replace(note, 'epoch 0', 'epoch 1')"], {"checkpoint.signature"}),
    ("no note", ["update checkpoint set note = 'nothing' where size = 5"], {"checkpoint.signature", "checkpoint.prev"}),
    ("frontier", ["update checkpoint set frontier = '[]' where size = 5"], {"checkpoint.frontier"}),
    ("state", ["update run set state = 'failed' where number = 2"], {"run.state"}),
    ("digest", [f"update run set digest = {HEX} where number = 2"], {"run.digest"}),
    ("action", ["update run set action = 'other' where number = 2"], {"run.action"}),
    ("actor", ['update run set actor = \'{"kind": "agent", "name": "bot"}\' where number = 2'], {"run.actor"}),
    ("actor id", ["update run set actor_id = 'person:eve' where number = 2"], {"run.actor"}),
    (
        "on behalf",
        ["update run set actor = actor - 'on_behalf_of' where number = 2"],
        {"run.on_behalf_of"},
    ),
    ("roles", ['update run set actor = actor || \'{"roles": ["admin"]}\' where number = 2'], {"run.row"}),
    ("ask digest", [f"update run set ask_digest = {HEX} where number = 2"], {"run.row"}),
    ("timeout", ["update run set timeout_seconds = 61 where number = 2"], {"run.row"}),
    ("plan", ["update run set plan = jsonb_set(plan, '{steps,0,summary}', '\"x\"') where number = 2"], {"run.plan"}),
    ("no plan", ["update run set plan = '[]' where number = 2"], {"run.plan"}),
    ("decision", ['update run set decision = decision || \'{"instead": ["x"]}\' where number = 2'], {"run.decision"}),
    ("reason", ["update run set reason = 'another' where number = 2"], {"run.reason"}),
    ("no reason", ["update run set reason = null where number = 2"], {"run.reason"}),
    ("summary", ["update run set summary = 'harmless' where number = 2"], {"run.summary"}),
    ("key", ["update run set key = 'another' where number = 2"], {"run.key"}),
    ("undo of", ["update run set undo_of = 1 where number = 2"], {"run.undo_of"}),
    ("retry of", ["update run set retry_of = 1 where number = 2"], {"run.retry_of"}),
    ("targets", ["update run set targets = '{file:/x}' where number = 2"], {"run.targets"}),
    ("risk", ["update run set risk = 'low' where number = 2"], {"run.risk"}),
    ("changes", ["update run set changes = false where number = 2"], {"run.changes"}),
    ("asked when", ["update run set created_at = created_at - interval '1 s' where number = 2"], {"run.created_at"}),
    ("closed when", ["update run set closed_at = closed_at + interval '1 s' where number = 2"], {"run.closed_at"}),
    ("at no time", ["update run set created_at = 'infinity' where number = 2"], {"run.created_at"}),
    ("no timeout", ["update run set timeout_seconds = 'NaN' where number = 2"], {"run.row"}),
    ("no actor", ["update run set actor = '[1e400]' where number = 2"], {"run.actor"}),
    ("never closed", ["update run set closed_at = null where number = 2"], {"run.closed_at"}),
    ("open and closed", ["update run set closed_at = now() where number = 4"], {"run.closed_at"}),
    ("why", ["update run set state_reason = 'nothing was wrong' where number = 2"], {"run.state_reason"}),
    ("code", ["update run set state_code = 'fine' where number = 2"], {"run.state_reason"}),
    ("cancelled by", ["update run set cancelled_by = 'person:eve' where number = 2"], {"run.cancelled_by"}),
    ("approver", ["update approval set approver = 'person:eve' where run = 4"], {"approval.added", "approval.missing"}),
    ("role", ["update approval set roles = '{admin}' where run = 4"], {"approval.added", "approval.missing"}),
    ("verdict", ["update approval set verdict = false where run = 4"], {"approval.added", "approval.missing"}),
    ("expiry", ["update approval set expires_at = 'infinity' where run = 4"], {"approval.added", "approval.missing"}),
    ("verdict moved", ["update approval set run = 2 where run = 4"], {"approval.added", "approval.missing"}),
    ("no verdict", ["delete from approval where run = 4"], {"approval.missing"}),
    ("one more verdict", ["insert into approval " + ONE_MORE + "'person:eve'" + FROM_BOB], {"approval.added"}),
    ("a verdict twice", ["insert into approval " + ONE_MORE + "approver" + FROM_BOB], {"approval.added"}),
    ("run row", ["delete from run where number = 2"], {"run.lost"}),
    (
        "run row added",
        [
            """insert into run select (made).* from
                (select jsonb_populate_record(run, '{"number": 9, "key": null}') as made from run limit 1) as one"""
        ],
        {"run.evidence"},
    ),
    (
        "queue entry",
        ["delete from leaf where index = 11", "delete from checkpoint where size = 12"],
        {"row.unnumbered"},
    ),
    ("queue entry added", ["insert into unsealed (run, seq) values (2, 1)"], {"row.twice"}),
    ("queue entry of nothing", ["insert into unsealed (run, seq) values (77, 1)"], {"row.lost"}),
]


async def three_runs(log: Log) -> list[str]:
    for run in (1, 2, 3):
        await log.add(run)
    return await log.seal_all(rows_max=5)


@pytest.mark.parametrize(("statements", "codes"), [case[1:] for case in ATTACKS], ids=[case[0] for case in ATTACKS])
async def test_whoever_owns_the_tables_is_found_out(log: Log, statements: list[str], codes: set[str]) -> None:
    await three_runs(log)
    await log.add_approved(4)
    assert await log.codes() == set()
    await log.tamper(*statements)
    assert codes <= await log.codes()


async def test_everything_recomputed_without_the_key_is_found(log: Log) -> None:
    await three_runs(log)
    thief = SigningKey.generate(KEY.name)
    await log.tamper("truncate evidence, leaf, checkpoint, unsealed", "delete from run")
    await log.add(1)
    assert await seal(log.app, thief, NOW) is not None
    assert await log.codes() == {"checkpoint.signature"}


async def test_a_log_made_anew_with_the_key_is_found_by_what_was_kept(log: Log) -> None:
    notes = await three_runs(log)
    receipt = await make_receipt(log.app, 2)
    await log.tamper("truncate evidence, leaf, checkpoint, unsealed", "delete from run")
    for run in (1, 3, 4, 5):
        await log.add(run)
    await log.seal_all()
    assert await log.codes() == set()
    assert await log.codes(read_witness(notes[1], KEY.verifier)) == {"since.root"}
    assert {"since.root", "since.leaf"} <= await log.codes(read_witness(receipt.encode(), KEY.verifier))


async def test_an_honest_end_cut_at_a_checkpoint_is_found_by_what_was_kept(log: Log) -> None:
    notes = await three_runs(log)
    await log.tamper(
        "delete from checkpoint where size > 5",
        "delete from leaf where index >= 5",
        "delete from evidence where run = 3 or (run = 2 and seq > 1)",
        "delete from run where number = 3",
        "update run set state = 'waiting', closed_at = null where number = 2",
    )
    assert await log.codes() == set()
    found = await log.verify(read_witness(notes[-1], KEY.verifier))
    assert [finding.code for finding in found.findings] == ["since.truncated"]
    assert not found.intact


async def test_an_honest_log_extends_what_was_kept(log: Log) -> None:
    notes = await three_runs(log)
    receipt = await make_receipt(log.app, 1)
    await log.add(4)
    await log.seal()
    for kept in (*notes, receipt.encode()):
        found = await log.verify(read_witness(kept, KEY.verifier))
        assert found.intact, found.findings
        assert found.since is not None
        assert any("nothing about what happened before" in limit for limit in found.limits)


def test_a_kept_file_of_another_kind_log_or_key_is_refused() -> None:
    text = Checkpoint(
        origin=KEY.name, size=1, root="ab" * 32, prev=GENESIS, at="2026-03-01T09:30:00.000000Z", epoch=0, home="1"
    )
    with pytest.raises(Invalid, match="neither"):
        read_witness("a shopping list\n", KEY.verifier)
    with pytest.raises(Invalid, match="not a receipt"):
        read_witness("{}", KEY.verifier)
    other = SigningKey.generate("other.example/log")
    with pytest.raises(Invalid, match="another log"):
        read_witness(sign_note(text.model_copy(update={"origin": other.name}).text(), other), KEY.verifier)
    with pytest.raises(Permanent, match="key was replaced"):
        read_witness(sign_note(text.text(), SigningKey.generate(KEY.name)), KEY.verifier)


@pytest.mark.parametrize(
    "statement",
    [
        "update checkpoint set note = replace(note, 'epoch 0', 'epoch 1') where size = 12",
        "update checkpoint set frontier = '[]' where size = 12",
        f"update checkpoint set frontier = jsonb_build_array({HEX}, {HEX}) where size = 12",
        "delete from checkpoint where size = 12",
        "update evidence set line = replace(line, 'true', 'false') where run = 4",
        "delete from evidence where run = 4",
    ],
)
async def test_nothing_is_signed_on_top_of_a_changed_log(log: Log, statement: str) -> None:
    await three_runs(log)
    await log.add(4)
    await log.tamper(statement)
    with pytest.raises(Permanent) as raised:
        await log.seal()
    assert raised.value.code == "audit.tampered"
    row = await (await log.app.execute("select count(*) as count from leaf")).fetchone()
    assert row == {"count": 12}


async def test_a_receipt_proves_every_row_of_its_run(log: Log) -> None:
    await three_runs(log)
    for run in (1, 2, 3):
        receipt = await make_receipt(log.app, run)
        again = Receipt.parse(receipt.encode())
        assert again == receipt
        newest = verify_receipt(again, KEY.verifier)
        assert newest.size > max(row.index for row in receipt.rows)
        assert receipt.head == leaf_hash(receipt.rows[-1].line.encode())
    assert len((await make_receipt(log.app, 2)).checkpoints) == 2


async def test_a_changed_receipt_is_refused(log: Log) -> None:
    await three_runs(log)
    receipt, other = await make_receipt(log.app, 2), await make_receipt(log.app, 1)
    row = receipt.rows[2]
    changed = row.model_copy(update={"line": row.line.replace("true", "false")})
    for forged in (
        receipt.model_copy(update={"rows": (*receipt.rows[:2], changed, receipt.rows[3])}),
        receipt.model_copy(update={"rows": receipt.rows[1:]}),
        receipt.model_copy(update={"rows": receipt.rows[:3]}),
        receipt.model_copy(update={"rows": ()}),
        receipt.model_copy(update={"run": 1}),
        receipt.model_copy(update={"rows": other.rows, "head": other.head}),
        receipt.model_copy(update={"checkpoints": ()}),
        receipt.model_copy(update={"checkpoints": ("nothing",)}),
    ):
        with pytest.raises(Permanent) as raised:
            verify_receipt(forged, KEY.verifier)
        assert raised.value.code == "receipt.tampered"
    with pytest.raises(Permanent, match="not signed"):
        verify_receipt(receipt, SigningKey.generate(KEY.name).verifier)


async def test_a_receipt_waits_for_the_sealer(log: Log) -> None:
    with pytest.raises(NotFound):
        await make_receipt(log.app, 1)
    await log.add(1)
    with pytest.raises(Transient):
        await make_receipt(log.app, 1)
    await log.seal()
    assert (await make_receipt(log.app, 1)).run == 1


Bundle = Callable[..., int]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Bundle:
    def run(*arguments: object) -> int:
        return verify_bundle.main([*map(str, arguments), "--key", KEY.verifier.encode()])

    return run


async def test_an_export_is_intact_and_the_same_each_time(log: Log, tmp_path: Path, check: Bundle) -> None:
    notes, kept = await three_runs(log), tmp_path / "kept.note"
    exported = await export_log(log.app, KEY, tmp_path)
    assert exported.rows == 12
    path = Path(exported.path)
    assert path.name == "interlock-audit-12.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert check(path) == 0
    body = path.read_bytes()
    await log.add(4, state=None)
    assert (await export_log(log.app, KEY, tmp_path)).sha256 == exported.sha256
    assert path.read_bytes() == body
    kept.write_text(notes[0], encoding="utf-8")
    assert check(path, "--since", kept) == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["interlock-audit-12.tar.gz", "kept.note"]


async def test_an_export_goes_on_from_an_earlier_checkpoint(log: Log, tmp_path: Path, check: Bundle) -> None:
    notes, kept = await three_runs(log), tmp_path / "kept.note"
    kept.write_text(notes[0], encoding="utf-8")
    exported = await export_log(log.app, KEY, tmp_path, since=read_witness(notes[0], KEY.verifier))
    assert exported.rows == 7
    assert check(exported.path, "--since", kept) == 0


async def test_one_run_is_exported_with_its_tie_to_an_earlier_checkpoint(
    log: Log, tmp_path: Path, check: Bundle
) -> None:
    notes, kept = await three_runs(log), tmp_path / "kept.note"
    for run in (1, 2, 3):
        assert check((await export_run(log.app, KEY, tmp_path, run)).path) == 0
        for note in notes:
            kept.write_text(note, encoding="utf-8")
            exported = await export_run(log.app, KEY, tmp_path, run, since=read_witness(note, KEY.verifier))
            assert check(exported.path, "--since", kept) == 0


async def test_a_tampered_database_gives_an_export_that_is_found(log: Log, tmp_path: Path, check: Bundle) -> None:
    await three_runs(log)
    await log.tamper("update evidence set line = replace(line, 'succeeded', 'undone') where run = 2 and seq = 4")
    assert check((await export_log(log.app, KEY, tmp_path)).path) == 1


async def test_an_edited_run_table_gives_an_export_that_is_found(log: Log, tmp_path: Path, check: Bundle) -> None:
    await three_runs(log)
    await log.tamper("update run set state = 'failed' where number = 2")
    assert check((await export_log(log.app, KEY, tmp_path)).path) == 1


async def test_what_cannot_be_exported_leaves_nothing_behind(log: Log, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        await export_log(log.app, KEY, tmp_path)
    notes = await three_runs(log)
    await log.tamper("delete from evidence where run = 2 and seq = 3")
    with pytest.raises(Permanent):
        await export_log(log.app, KEY, tmp_path)
    await log.tamper("delete from checkpoint where size = 5")
    with pytest.raises(Conflict):
        await export_log(log.app, KEY, tmp_path, since=read_witness(notes[0], KEY.verifier))
    assert list(tmp_path.iterdir()) == []


async def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys = await asyncio.gather(*(asyncio.to_thread(signing_key, folder, f"log.example/{n}") for n in range(8)))
    assert len({key.encode() for key in keys}) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["evidence-ed25519.key", "evidence-ed25519.vkey"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
