"""Fills a database with finished Runs: copies of one that really happened, spread over actors, actions and states."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256

import psycopg
from psycopg import sql

from interlock.core.checkpoint import Checkpoint, link_of
from interlock.lib.clock import rfc3339
from interlock.lib.merkle import Frontier
from interlock.lib.note import SigningKey, open_note, sign_note

RUNS_AT_ONCE = 20_000
RARE = 100
"""How many Runs there are of each kind that is rare: of a state, of an actor, of an action."""

# As the columns of `run` are in a copy; every other one is as it is in the Run that is copied. Kinds that are rare are
# spread over all that happened, which is the worst place for whoever looks for the newest fifty.
_COPIED_RUN = {
    "number": "n",
    "state": """case when n %% %(every)s = 0 then 'undone' when n %% 25 = 1 then 'failed' when n %% 25 = 2 then 'denied'
        when n %% 100 = 3 then 'expired' when n %% 100 = 4 then 'cancelled' else 'succeeded' end""",
    "state_code": "case when n %% %(every)s <> 0 and n %% 25 = 2 then 'denied.policy' end",
    "actor_id": """case when n %% %(every)s = 1 then 'person:rare' when n %% 10 < 5 then 'service:ci'
        when n %% 10 < 8 then 'agent:claude' else 'person:p' || n %% 40 end""",
    "action": "case when n %% %(every)s = 2 then 'bench.rare' else 'bench.action' || n %% 20 end",
    "digest": "md5(n::text) || md5((-n)::text)",
    "key": "case when n %% 2 = 0 then 'key-' || n end",
    "created_at": "now() - make_interval(secs => (%(last)s - n) * %(apart)s)",
    "due_at": "now() - make_interval(secs => (%(last)s - n) * %(apart)s)",
    "closed_at": "now() - make_interval(secs => (%(last)s - n) * %(apart)s - 1)",
}

# Six rows as they were written, and in two of three Runs a check or two more.
_ROWS_TO_COPY = """
create temporary table row_to_copy as
select seq, kind, line from evidence where run = %(copied)s
union all select %(rows)s + more, 'checked',
    replace(replace(line, '"kind":"done"', '"kind":"checked"'), ',"seq":' || seq || ',',
            ',"seq":' || %(rows)s + more || ',')
from evidence, generate_series(1, 2) as more where run = %(copied)s and kind = 'done'
"""

_EVIDENCE = """
with written as (
    insert into evidence (run, seq, kind, line, hash)
    select n, t.seq, t.kind, l.line, encode(sha256('\\x00'::bytea || convert_to(l.line, 'UTF8')), 'hex')
    from generate_series(%(begin)s::bigint, %(end)s) as n
    cross join lateral (select * from row_to_copy where seq <= %(rows)s + n %% 3 order by seq offset 0) as t
    cross join lateral (
        select replace(t.line, ',"run":' || %(copied)s || ',', ',"run":' || n || ',') as line offset 0) as l
    returning run, seq)
insert into leaf (index, run, seq) select %(leaves)s - 1 + row_number() over (), run, seq from written
"""

_BESIDE = (
    """insert into approval (run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at, used_at)
       select n, digest, asker, approver, roles, kind, verdict, reason, at, expires_at, at
       from generate_series(%(begin)s::bigint, %(end)s) as n, approval where run = %(copied)s""",
    """insert into event (at, kind, labels, data, run)
       select now() - make_interval(secs => (%(last)s - n) * %(apart)s), kind, labels, data, n
       from generate_series(%(begin)s::bigint, %(end)s) as n, event where run = %(copied)s and n > %(kept_after)s""",
    """insert into output (run, seq, at, bytes, body)
       select n, 1, now() - make_interval(secs => (%(last)s - n) * %(apart)s), 600, convert_to(repeat(md5(n::text), 20),
              'UTF8')
       from generate_series(%(begin)s::bigint, %(end)s) as n where n > %(kept_after)s""",
    """insert into checkpoint (size, root, note, frontier, epoch)
       select index + 1, md5(index::text) || md5(run::text), repeat(md5(index::text), 14), '[]', 0 from leaf
       where index >= %(leaves)s and index %% 700 = 0""",
)

_AFTER = (b"select setval('run_number', %(last)s)", b"vacuum (analyze)")
DAYS_KEPT = 25
"""Events and output are as old at most, so that retention has nothing to do unless a test wants it to."""


def fill(owner: str, runs: int, key: SigningKey, *, copied: int = 1, niceness: int | None = None) -> int:
    """Add `runs` finished Runs behind Run `copied`, which must be confirmed, over and sealed; as who owns the tables.

    Chains are not tied and the tree's nodes are made up: what reads them all would find that. The newest checkpoint is
    signed with `key`, so that sealing goes on from it. `niceness` is for a server of this account on this machine.
    Returns the last number.
    """
    with psycopg.connect(owner, autocommit=True) as connection:
        if niceness is not None:
            os.setpriority(os.PRIO_PROCESS, connection.info.backend_pid, niceness)
        values = _values(connection, runs, copied)
        insert = _insert_run(connection)
        connection.execute("set synchronous_commit = off")
        connection.execute(_ROWS_TO_COPY.encode(), values)
        for begin in range(values["first"], values["last"] + 1, RUNS_AT_ONCE):
            values |= {"begin": begin, "end": min(begin + RUNS_AT_ONCE - 1, values["last"])}
            with connection.transaction():
                connection.execute(insert, values)
                written = connection.execute(_EVIDENCE.encode(), values).rowcount
                for statement in _BESIDE:
                    connection.execute(statement.encode(), values)
            values["leaves"] += written
        _sign(connection, values["leaves"], key)
        for statement in _AFTER:
            connection.execute(statement, values if b"%" in statement else None)
    return int(values["last"])


def _values(connection: psycopg.Connection, runs: int, copied: int) -> dict[str, float]:
    row = connection.execute(
        """select (select max(number) from run), (select max(index) + 1 from leaf),
                  (select count(*) from evidence where run = %(copied)s),
                  (select count(*) from leaf where run = %(copied)s)""",
        {"copied": copied},
    ).fetchone()
    assert row is not None
    last, leaves, rows, sealed = row
    assert rows == sealed, "seal what is copied first"
    return {
        "copied": copied,
        "first": last + 1,
        "last": last + runs,
        "leaves": leaves,
        "rows": rows,
        "every": max(4, runs // RARE),
        "apart": 100 * 24 * 3600 / runs,
        "kept_after": last + runs - runs * DAYS_KEPT // 100,
    }


def _insert_run(connection: psycopg.Connection) -> sql.Composed:
    described = connection.execute("select * from run limit 0").description
    assert described is not None
    names = [column.name for column in described]
    assert _COPIED_RUN.keys() <= set(names)
    return sql.SQL(
        "insert into run ({}) select {} from generate_series(%(begin)s::bigint, %(end)s) as n, run"
        " where number = %(copied)s"
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(
            sql.SQL(_COPIED_RUN[name]) if name in _COPIED_RUN else sql.Identifier(name) for name in names
        ),
    )


def _sign(connection: psycopg.Connection, leaves: int, key: SigningKey) -> None:
    """A checkpoint over all that was added, with subtrees that nobody computed."""
    notes = connection.execute("select note from checkpoint where frontier <> '[]' order by size desc limit 1")
    row = notes.fetchone()
    assert row is not None
    before = Checkpoint.parse(open_note(row[0], key.verifier))
    frontier = Frontier(leaves, (sha256(bytes([bit])).digest() for bit in range(leaves.bit_count())))
    now = datetime.now(UTC)
    checkpoint = before.model_copy(
        update={"size": leaves, "root": frontier.root().hex(), "prev": link_of(row[0]), "at": rfc3339(now)}
    )
    nodes = sql.Literal(str([node.hex() for node in frontier.nodes]).replace("'", '"'))
    connection.execute(
        sql.SQL("insert into checkpoint (size, root, note, frontier, epoch) values (%s, %s, %s, {}, %s)").format(nodes),
        (leaves, checkpoint.root, sign_note(checkpoint.text(), key), checkpoint.epoch),
    )
