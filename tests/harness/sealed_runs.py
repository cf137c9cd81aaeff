"""Runs with their evidence as the door writes them, put into the tables without a door: for the tests of the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from interlock.core.actor import Actor
from interlock.core.approval import Approval
from interlock.core.decision import Decision, Reason
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.plan import Plan, Step, Target
from interlock.core.run import RunState
from interlock.engine.db import Connection
from interlock.engine.record import first_rows
from interlock.engine.store import NewRun
from interlock.lib.canonical import digest_of

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
ACTOR = Actor(kind="agent", name="claude", roles=("deployer",), on_behalf_of="person:alice")
INSERT = """insert into run (number, state, state_reason, state_code, actor, actor_id, action, summary, risk, changes,
        plan, digest, decision, targets, key, ask_digest, reason, created_at, closed_at, cancelled_by,
        timeout_seconds, owner,
        lease_until)
    values (%(number)s, %(state)s, %(state_reason)s, %(state_code)s, %(actor)s, %(actor_id)s, %(action)s, %(summary)s,
        %(risk)s, %(changes)s, %(plan)s, %(digest)s, %(decision)s, %(targets)s, %(key)s, %(ask_digest)s, %(reason)s,
        %(created_at)s, %(closed_at)s, %(cancelled_by)s, %(timeout_seconds)s, %(owner)s, %(lease_until)s)"""
INSERT_VERDICT = """insert into approval (run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at)
    values (%(run)s, %(digest)s, %(asker)s, %(approver)s, %(roles)s, %(kind)s, %(verdict)s, %(reason)s, %(at)s,
        %(expires_at)s)"""


def asked(number: int) -> NewRun:
    """A write to two files; 1e16 is a double that PostgreSQL writes down as an integer."""
    targets = (Target(kind="file", id=f"/srv/{number}/b"), Target(kind="file", id=f"/srv/{number}/a"))
    step = Step(
        verb="write",
        summary="write",
        params={"bytes": 1e16, "share": 0.25},
        targets=targets,
        risk="medium",
        changes=True,
    )
    plan = Plan(action="file.write", args={"path": f"/srv/{number}"}, summary="写报表", steps=(step,))
    decision = Decision(outcome="permit", reasons=(Reason(policy="base", reason="it may", effect="permit"),))
    return NewRun(
        number=number,
        state=RunState.QUEUED,
        state_reason=None,
        state_code=None,
        actor=ACTOR,
        plan=plan,
        digest=plan.digest,
        decision=decision,
        ask_digest=digest_of({"action": plan.action, "args": plan.args}),
        key=f"key-{number}",
        reason="because",
        expires_seconds=None,
        undo_of=None,
        retry_of=None,
        timeout_seconds=60.5,
    )


def verdict_on(new: NewRun) -> Approval:
    """A yes of somebody else."""
    return Approval(
        run=new.number,
        digest=new.digest,
        asker=new.actor.id,
        approver="person:bob",
        roles=("operator",),
        kind="approval",
        verdict=True,
        reason=None,
        at=AT,
        expires_at=AT + timedelta(hours=1),
    )


def evidence_of(new: NewRun, state: str | None, *verdicts: Approval) -> list[Evidence]:
    """All rows: asked, decided, the verdicts, done, and closed unless `state` is None."""
    rows = first_rows(new, verdicts, AT, {})
    chain = Chain.after(new.number, rows)
    added = [chain.extend(EvidenceKind.DONE, AT, {"step": 0, "ok": True, "note": "报表"})]
    if state is not None:
        closed = {"state": state, "reason": None, "code": None}
        added.append(chain.extend(EvidenceKind.CLOSED, AT, closed))  # type: ignore[arg-type]
    return [*rows, *added]


def row_of(new: NewRun, state: str) -> dict[str, Any]:
    """The columns of the Run table, with plan and decision as text."""
    running = state == "running"
    plan = new.plan
    return {
        "number": new.number,
        "state": state,
        "state_reason": None,
        "state_code": None,
        "actor": new.actor.model_dump_json(),
        "actor_id": new.actor.id,
        "action": plan.action,
        "summary": plan.summary,
        "risk": plan.risk,
        "changes": plan.changes,
        "plan": plan.model_dump_json(),
        "digest": new.digest,
        "decision": new.decision.model_dump_json(),
        "targets": [target.key for target in plan.targets],
        "key": new.key,
        "ask_digest": new.ask_digest,
        "reason": new.reason,
        "created_at": AT,
        "closed_at": AT if RunState(state).is_final else None,
        "cancelled_by": None,
        "undo_of": None,
        "retry_of": None,
        "timeout_seconds": new.timeout_seconds,
        "owner": "me" if running else None,
        "lease_until": AT if running else None,
    }


async def insert_run(connection: Connection, new: NewRun, state: str, *verdicts: Approval) -> None:
    """Write the rows that are not evidence."""
    await connection.execute(INSERT, row_of(new, state))
    for verdict in verdicts:
        await connection.execute(INSERT_VERDICT, verdict.model_dump() | {"roles": list(verdict.roles)})
