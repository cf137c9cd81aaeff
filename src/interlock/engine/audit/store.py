"""All SQL of the log: numbering rows, checkpoints, and the reads that verification, receipts and exports need."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import tuple_row

from interlock.engine.db import Connection
from interlock.lib.merkle import Frontier

SEAL_LOCK = 0x1A7E_5EA1
CHUNK_ROWS = 4000
RUNS_AT_ONCE = 100
"""Plans may be megabytes each."""
VERDICTS_MAX = 100_000


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as the table has it; `root` and the frontier's nodes are hexadecimal there."""

    size: int
    root: str
    note: str
    nodes: tuple[str, ...]
    at: datetime
    epoch: int

    def frontier(self) -> Frontier:
        """Raises ValueError when what was kept cannot be a frontier."""
        return Frontier(self.size, (bytes.fromhex(node) for node in self.nodes))


_CHECKPOINT = "select size, root, note, frontier, at, epoch from checkpoint"


def _checkpoint(row: dict[str, Any]) -> CheckpointRow:
    frontier = row.pop("frontier")
    return CheckpointRow(**row, nodes=tuple(str(node) for node in frontier) if isinstance(frontier, list) else ())


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """A read-only transaction in which the log stands still; the connection must not be in a transaction already."""
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        await connection.execute("set local jit = off")  # compiling costs more than these plain merges ever gain
        yield


async def rows_in_chunks(
    connection: Connection, query: LiteralString, parameters: dict[str, Any] | None = None, rows: int = CHUNK_ROWS
) -> AsyncIterator[list[dict[str, Any]]]:
    """Stream an answer of any length; must be used inside a transaction."""
    async with connection.cursor(name=f"log_{secrets.token_hex(6)}", binary=True) as cursor:
        await cursor.execute(query, parameters or {})
        while chunk := await cursor.fetchmany(rows):
            yield chunk


async def tuples_in_chunks(connection: Connection, query: LiteralString) -> AsyncIterator[list[tuple[Any, ...]]]:
    """As `rows_in_chunks`, each row a tuple: for the two answers that hold every row of the log."""
    async with connection.cursor(name=f"log_{secrets.token_hex(6)}", binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(query)
        while chunk := await cursor.fetchmany(CHUNK_ROWS):
            yield chunk


# --- sealing ---


async def try_lock(connection: Connection) -> bool:
    """Become the one sealer until this transaction ends."""
    row = await (await connection.execute("select pg_try_advisory_xact_lock(%s) as mine", (SEAL_LOCK,))).fetchone()
    return bool(row and row["mine"])


async def home(connection: Connection) -> str:
    """The place in which transaction numbers are comparable: cluster, database and table; a dump leaves it behind."""
    query = """select (select system_identifier from pg_control_system()) || '-' ||
        (select oid from pg_database where datname = current_database()) || '-' || 'unsealed'::regclass::oid as home"""
    row = await (await connection.execute(query)).fetchone()
    return str(row["home"]) if row else ""


async def forget_transactions(connection: Connection, *, only_future: bool = False) -> int:
    """Put every visible unsealed row below any horizon, in its Run's order; returns how many.

    `only_future`: only rows of transactions that this cluster has not reached. That they are visible shows that they
    were written in another one.
    """
    query = """with moved as (
            delete from unsealed where not %s or xid >= pg_snapshot_xmax(pg_current_snapshot()) returning run, seq)
        insert into unsealed (run, seq, xid) select run, seq, '0'::xid8 from moved"""
    return (await connection.execute(query, (only_future,))).rowcount


async def last_checkpoint(connection: Connection) -> CheckpointRow | None:
    """The newest checkpoint."""
    row = await (await connection.execute(f"{_CHECKPOINT} order by size desc limit 1")).fetchone()
    return _checkpoint(row) if row else None


async def leaf_count(connection: Connection) -> int:
    """One more than the highest leaf number."""
    row = await (await connection.execute("select coalesce(max(index) + 1, 0) as leaves from leaf")).fetchone()
    return int(row["leaves"]) if row else 0


# Only rows of transactions below every transaction that still runs, so that leaves are in the order of transactions
# and no late commit belongs before a leaf that has a number.
_TAKE = """
with picked as materialized (
    select run, seq, xid from unsealed where xid < pg_snapshot_xmin(pg_current_snapshot())
    order by xid, run, seq limit %(limit)s),
    numbered as materialized (
        select p.run, p.seq, row_number() over (order by p.xid, p.run, p.seq) - 1 + %(start)s as index
        from picked p),
    stored as (insert into leaf (index, run, seq) select index, run, seq from numbered),
    gone as (delete from unsealed u using numbered n where u.run = n.run and u.seq = n.seq)
select n.run, n.seq, sha256('\\x00'::bytea || convert_to(e.line, 'UTF8')) as leaf,
    e.hash = encode(sha256('\\x00'::bytea || convert_to(e.line, 'UTF8')), 'hex') as fits
from numbered n left join evidence e on e.run = n.run and e.seq = n.seq order by n.index
"""


async def number_rows(connection: Connection, start: int, limit: int) -> list[dict[str, Any]]:
    """Turn the oldest settled unsealed rows into leaves from `start` on.

    Returns: for each, in leaf order, run, seq, leaf (32 bytes, computed from the line; None when the row is missing)
    and whether that fits the row's hash.
    """
    cursor = await connection.cursor(binary=True).execute(_TAKE, {"start": start, "limit": limit})
    return await cursor.fetchall()


async def insert_checkpoint(connection: Connection, row: CheckpointRow) -> None:
    """Write a checkpoint."""
    await connection.execute(
        "insert into checkpoint (size, root, note, frontier, at, epoch) values (%s, %s, %s, %s::jsonb, %s, %s)",
        (row.size, row.root, row.note, json.dumps(row.nodes), row.at, row.epoch),
    )


async def count_unsealed(connection: Connection) -> int:
    """How many rows no checkpoint covers yet."""
    row = await (await connection.execute("select count(*) as count from unsealed")).fetchone()
    return int(row["count"]) if row else 0


# --- verification ---

CHAINS = """select e.run, e.seq, e.kind, e.line, e.hash, l.index, u.run is not null as unsealed
    from evidence e left join leaf l on l.run = e.run and l.seq = e.seq
    left join unsealed u on u.run = e.run and u.seq = e.seq
    order by e.run, e.seq"""

LEAVES = """select l.index, l.run, l.seq, e.hash from leaf l
    left join evidence e on e.run = l.run and e.seq = l.seq order by l.index"""


# JSON as text: it is parsed where it is checked, in the thread. Times as ISO 8601 in UTC: a forged one may be
# `infinity` or a year that Python has no number for, and must not end the verification.
RUN_FACTS = """select number, state, state_reason, state_code, actor::text as actor, actor_id, action, summary, risk,
        changes, plan::text as plan, digest, decision::text as decision, targets, key, ask_digest, reason,
        to_json(created_at at time zone 'UTC') #>> '{}' as created_at,
        to_json(closed_at at time zone 'UTC') #>> '{}' as closed_at,
        cancelled_by, undo_of, retry_of, timeout_seconds
    from run where number = any(%(numbers)s) order by number"""

VERDICTS = """select run, digest, asker, approver, roles, kind, verdict, reason,
        to_json(at at time zone 'UTC') #>> '{}' as at, to_json(expires_at at time zone 'UTC') #>> '{}' as expires_at
    from approval where run = any(%(numbers)s) limit %(limit)s"""


async def verdicts_on(connection: Connection, numbers: list[int]) -> dict[int, list[dict[str, Any]]]:
    """The verdicts on these Runs, by Run: at most `VERDICTS_MAX`; where there are more, some will be missed."""
    found: dict[int, list[dict[str, Any]]] = {}
    cursor = await connection.execute(VERDICTS, {"numbers": numbers, "limit": VERDICTS_MAX})
    for row in await cursor.fetchall():
        found.setdefault(row["run"], []).append(row)
    return found


async def runs_without_evidence(connection: Connection, limit: int) -> list[int]:
    """Runs that no evidence tells of."""
    query = """select number from run r where not exists (select 1 from evidence e where e.run = r.number)
        order by number limit %s"""
    return [row["number"] for row in await (await connection.execute(query, (limit,))).fetchall()]


async def unsealed_without_evidence(connection: Connection, limit: int) -> list[tuple[int, int]]:
    """Rows that wait to be sealed and are not there."""
    query = """select run, seq from unsealed u where not exists
        (select 1 from evidence e where e.run = u.run and e.seq = u.seq) order by run, seq limit %s"""
    return [(row["run"], row["seq"]) for row in await (await connection.execute(query, (limit,))).fetchall()]


async def checkpoints_between(
    connection: Connection, after: int, upto: int | None, limit: int | None = None
) -> list[CheckpointRow]:
    """Checkpoints with after < size <= upto, in order; to the end when `upto` is None."""
    query = f"""{_CHECKPOINT} where size > %(after)s and (%(upto)s::bigint is null or size <= %(upto)s)
        order by size limit %(limit)s"""
    cursor = await connection.execute(query, {"after": after, "upto": upto, "limit": limit})
    return [_checkpoint(row) for row in await cursor.fetchall()]


# --- receipts and exports ---

CHECKPOINTS = """select size, note from checkpoint where size > %(start)s and size <= %(end)s order by size"""

ENTRIES = """select l.index, l.run, l.seq, e.line from leaf l left join evidence e on e.run = l.run and e.seq = l.seq
    where l.index >= %(start)s and l.index < %(end)s order by l.index"""

HASHES = """select l.index, e.hash from leaf l left join evidence e on e.run = l.run and e.seq = l.seq
    where l.index >= %(start)s and l.index < %(end)s order by l.index"""

# In the order in which they were closed, so that a verifier reads this and the entries side by side.
CLOSED = """select r.number as run, r.state, r.digest, r.action, r.actor->>'kind' as kind, r.actor->>'name' as name,
        e.hash as head
    from leaf l join evidence e on e.run = l.run and e.seq = l.seq and e.kind = 'closed'
    left join run r on r.number = l.run
    where l.index >= %(start)s and l.index < %(end)s order by l.index"""


async def run_leaves(connection: Connection, run: int) -> list[dict[str, Any]]:
    """Every row of a Run with its leaf number, None when it is not sealed yet."""
    query = """select e.seq, e.kind, e.line, e.hash, l.index from evidence e
        left join leaf l on l.run = e.run and l.seq = e.seq where e.run = %s order by e.seq"""
    return await (await connection.execute(query, (run,))).fetchall()


async def checkpoint_at_or_before(connection: Connection, size: int) -> CheckpointRow | None:
    """The newest checkpoint of at most `size` leaves."""
    query = f"{_CHECKPOINT} where size <= %s order by size desc limit 1"
    row = await (await connection.execute(query, (size,))).fetchone()
    return _checkpoint(row) if row else None


async def checkpoint_over(connection: Connection, index: int) -> CheckpointRow | None:
    """The first checkpoint that covers leaf `index`."""
    query = f"{_CHECKPOINT} where size > %s order by size limit 1"
    row = await (await connection.execute(query, (index,))).fetchone()
    return _checkpoint(row) if row else None
