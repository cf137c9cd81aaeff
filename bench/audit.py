"""Claim: sealing and `audit verify` each handle at least 40,000 rows a second."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
from psycopg.rows import dict_row

from bench.measure import Result
from bench.report import run
from bench.server import BenchDatabase, bench_server
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.engine.audit import verify
from interlock.engine.db import DatabaseAddress, migrate
from interlock.engine.seal import seal
from interlock.lib.note import SigningKey

ROWS_PER_SECOND = 40_000
DIGEST = hashlib.sha256(b"plan").hexdigest()
TALE: tuple[tuple[EvidenceKind, JsonObject], ...] = (
    (
        EvidenceKind.ASKED,
        {
            "action": "command.exec",
            "actor": "person:alice",
            "digest": DIGEST,
            "key": None,
            "reason": "the page of the shop is slow since noon",
            "summary": "restart web.service",
            "targets": ["unit:web.service"],
        },
    ),
    (EvidenceKind.DECIDED, {"digest": DIGEST, "outcome": "permit", "policies": ["change"], "policy_set": DIGEST}),
    (EvidenceKind.STARTED, {"attempt": 1, "direction": "do", "step": 0, "worker": {"host": "web", "pid": 4711}}),
    (EvidenceKind.DONE, {"data": {"exit_code": 0, "sha256": DIGEST}, "ok": True, "step": 0, "summary": "exit 0"}),
    (EvidenceKind.CLOSED, {"code": None, "reason": None, "state": "succeeded"}),
)
RUN_ROWS = """insert into run (number, state, actor, actor_id, action, summary, risk, changes, plan, digest, decision,
        targets, ask_digest, timeout_seconds)
    select run, 'succeeded', '{"kind": "person", "name": "alice"}', 'person:alice', 'command.exec', 's', 'low', true,
        '{}', %s, '{}', '{}', 'a', 60 from evidence where seq = 1"""


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """A log of finished Runs is sealed, then verified whole, from the tables of one server."""
    rows, rounds = (50_000, 2) if quick else (200_000, 3)
    with bench_server() as server:
        seen = [asyncio.run(_round(server.database(), rows)) for _ in range(rounds)]
    return [
        Result("sealing", "rows/s", tuple(each[0] for each in seen), ROWS_PER_SECOND, "at least"),
        Result("audit verify", "rows/s", tuple(each[1] for each in seen), ROWS_PER_SECOND, "at least"),
    ]


async def _round(database: BenchDatabase, rows: int) -> tuple[float, float]:
    address = DatabaseAddress(app=database.app, owner=database.owner)
    await migrate(address)
    with psycopg.connect(database.owner) as owner:
        with owner.cursor().copy("copy evidence (run, seq, kind, line, hash) from stdin") as copy:
            for row in _tales(rows // len(TALE)):
                copy.write_row((row.run, row.seq, row.kind.value, row.line, row.hash))
        owner.execute("insert into unsealed (run, seq) select run, seq from evidence order by run, seq")
        owner.execute(RUN_ROWS, (DIGEST,))
    key = SigningKey.generate("interlock.example/bench")
    connection = await psycopg.AsyncConnection.connect(database.app, autocommit=True, row_factory=dict_row)
    async with connection:
        began = time.perf_counter()
        sealed = 0
        while (batch := await seal(connection, key, datetime.now(UTC))) is not None and batch.rows:
            sealed += batch.rows
        sealing = sealed / (time.perf_counter() - began)
        assert sealed == rows
        began = time.perf_counter()
        verification = await verify(connection, key.verifier)
        verifying = verification.rows / (time.perf_counter() - began)
        assert verification.intact, verification.findings[:3]
    return sealing, verifying


def _tales(runs: int) -> Iterator[Evidence]:
    now = datetime.now(UTC)
    for number in range(1, runs + 1):
        chain = Chain(number)
        for kind, data in TALE:
            yield chain.extend(kind, now, data)


if __name__ == "__main__":
    sys.exit(run((measure,)))
