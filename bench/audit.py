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
from interlock.core.actor import Actor
from interlock.core.decision import Decision, Reason
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.run import RunState
from interlock.engine.audit.seal import seal
from interlock.engine.audit.verify import verify
from interlock.engine.db import DatabaseAddress, migrate
from interlock.engine.record import first_rows
from interlock.engine.store import NewRun
from interlock.lib.note import SigningKey

ROWS_PER_SECOND = 40_000
ACTOR = Actor(kind="person", name="alice", roles=("operator",))
PLAN = Plan(
    action="command.exec",
    args={"argv": ["systemctl", "restart", "web.service"]},
    summary="restart web.service",
    steps=(
        Step(
            verb="execute",
            summary="restart web.service",
            params={"argv": ["/usr/bin/systemctl", "restart", "web.service"], "cwd": "/", "env": {"LANG": "C.UTF-8"}},
            targets=(Target(kind="unit", id="web.service", names=("web",)),),
            risk="medium",
            operations=("unit.restart",),
        ),
    ),
    facts={"binary": {"path": "/usr/bin/systemctl", "sha256": hashlib.sha256(b"binary").hexdigest()}},
)
DECISION = Decision(
    outcome="permit",
    reasons=(Reason(policy="change", reason="operators may change units", effect="permit"),),
    request={"principal": 'Person::"alice"', "action": 'Action::"command.exec"', "context": {"changes": True}},
    policy_set=hashlib.sha256(b"policies").hexdigest(),
)
DIGEST = PLAN.digest
TALE: tuple[tuple[EvidenceKind, JsonObject], ...] = (
    (EvidenceKind.STARTED, {"attempt": 1, "direction": "do", "step": 0, "worker": {"host": "web", "pid": 4711}}),
    (EvidenceKind.DONE, {"data": {"exit_code": 0, "sha256": DIGEST}, "ok": True, "step": 0, "summary": "exit 0"}),
    (EvidenceKind.CLOSED, {"code": None, "reason": None, "state": "succeeded"}),
)
ROWS_PER_RUN = 2 + len(TALE)
RUN_ROWS = """insert into run (number, state, actor, actor_id, action, summary, risk, changes, plan, digest, decision,
        targets, ask_digest, reason, timeout_seconds, created_at, closed_at)
    select run, 'succeeded', %(actor)s, %(actor_id)s, %(action)s, %(summary)s, %(risk)s, true, %(plan)s, %(digest)s,
        %(decision)s, %(targets)s, 'a', %(reason)s, 60, %(at)s, %(at)s from evidence where seq = 1"""
RUN_VALUES = {
    "actor": ACTOR.model_dump_json(),
    "actor_id": ACTOR.id,
    "action": PLAN.action,
    "summary": PLAN.summary,
    "risk": PLAN.risk,
    "plan": PLAN.model_dump_json(),
    "digest": DIGEST,
    "decision": DECISION.model_dump_json(),
    "targets": [target.key for target in PLAN.targets],
    "reason": "the page of the shop is slow since noon",
}


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
    now = datetime.now(UTC)
    address = DatabaseAddress(app=database.app, owner=database.owner)
    await migrate(address)
    with psycopg.connect(database.owner) as owner:
        with owner.cursor().copy("copy evidence (run, seq, kind, line, hash) from stdin") as copy:
            for row in _tales(rows // ROWS_PER_RUN, now):
                copy.write_row((row.run, row.seq, row.kind.value, row.line, row.hash))
        owner.execute("insert into unsealed (run, seq) select run, seq from evidence order by run, seq")
        owner.execute(RUN_ROWS, RUN_VALUES | {"at": now})
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


def _tales(runs: int, now: datetime) -> Iterator[Evidence]:
    for number in range(1, runs + 1):
        new = NewRun(
            number=number,
            state=RunState.QUEUED,
            state_reason=None,
            state_code=None,
            actor=ACTOR,
            plan=PLAN,
            digest=DIGEST,
            decision=DECISION,
            ask_digest="a",
            key=None,
            reason=str(RUN_VALUES["reason"]),
            expires_seconds=None,
            undo_of=None,
            retry_of=None,
            timeout_seconds=60,
        )
        rows = first_rows(new, (), now, {})
        yield from rows
        chain = Chain.after(number, rows)
        for kind, data in TALE:
            yield chain.extend(kind, now, data)


if __name__ == "__main__":
    sys.exit(run((measure,)))
