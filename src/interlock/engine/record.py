"""What is written down of an ask before anything happens: its row, its first evidence, its events; pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from interlock.core.actor import Actor
from interlock.core.approval import Approval
from interlock.core.ask import Ask
from interlock.core.decision import Decision
from interlock.core.event import Event
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.project import Limits
from interlock.core.run import RunState
from interlock.engine.proposal import Proposal
from interlock.engine.store import NewRun, event_of
from interlock.engine.trail import plain
from interlock.lib.canonical import digest_of

TARGETS_SHOWN = 50
TARGETS_BYTES = 4096
REASON_CHARACTERS = 1000
STATE_OF = {"permit": RunState.QUEUED, "needs_approval": RunState.WAITING, "forbid": RunState.DENIED}


def new_run(
    number: int, actor: Actor, ask: Ask, proposal: Proposal, limits: Limits, traceparent: str | None = None
) -> NewRun:
    """The row: queued when it is permitted, waiting when somebody has to say yes, denied when it is forbidden."""
    decision = proposal.decision
    state = STATE_OF[decision.outcome]
    return NewRun(
        number=number,
        state=state,
        state_reason=plain(reason_of(decision), REASON_CHARACTERS) if state is not RunState.QUEUED else None,
        state_code="denied.policy" if state is RunState.DENIED else None,
        actor=actor,
        plan=proposal.plan,
        digest=proposal.digest,
        decision=decision,
        ask_digest=ask.ask_digest,
        key=ask.key,
        reason=ask.reason,
        expires_seconds=limits.approval_expires_minutes * 60.0 if state is RunState.WAITING else None,
        undo_of=ask.undo_of,
        retry_of=ask.retry_of,
        timeout_seconds=ask.timeout_seconds or limits.run_timeout_seconds,
        traceparent=traceparent,
    )


def first_rows(
    new: NewRun, approvals: tuple[Approval, ...], now: datetime, in_force: JsonObject
) -> tuple[Evidence, ...]:
    """Asked, decided, the asker's own confirmation, and the end when it is denied.

    `in_force` names the configuration of this moment: its environment, where there is one, and its digest.
    """
    chain, plan, decision = Chain(new.number), new.plan, new.decision
    asked: JsonObject = {
        "actor": new.actor.id,
        "on_behalf_of": new.actor.on_behalf_of,
        **({"via": new.actor.via} if new.actor.via is not None else {}),
        "action": plan.action,
        "args_digest": digest_of(plan.args),
        "digest": new.digest,
        "summary": plain(plan.summary),
        "targets": _shown(plan),
        "target_count": len(plan.targets),
        "key": new.key,
        "reason": new.reason,
        **({"traceparent": new.traceparent} if new.traceparent is not None else {}),
        "undo_of": new.undo_of,
        "retry_of": new.retry_of,
        **in_force,
        "row_digest": digest_of(never_changed(new.actor.model_dump(mode="json"), new.ask_digest, new.timeout_seconds)),
    }
    decided: JsonObject = {
        "digest": new.digest,
        "outcome": decision.outcome,
        "policies": [reason.policy for reason in decision.reasons],
        "policy_set": decision.policy_set,
        "decision_digest": digest_of(decision.model_dump(mode="json")),
    }
    rows = [chain.extend(EvidenceKind.ASKED, now, asked), chain.extend(EvidenceKind.DECIDED, now, decided)]
    rows += [chain.extend(EvidenceKind.APPROVED, now, verdict_data(approval)) for approval in approvals]
    if new.state is RunState.DENIED:
        closed: JsonObject = {"state": new.state.value, "reason": new.state_reason, "code": new.state_code}
        rows.append(chain.extend(EvidenceKind.CLOSED, now, closed))
    return tuple(rows)


def never_changed(actor: JsonObject, ask_digest: str, timeout_seconds: float) -> JsonObject:
    """What else the Run's row holds from beginning to end; without its digest nobody could tell a forged role."""
    whole = int(timeout_seconds) if float(timeout_seconds).is_integer() else timeout_seconds
    return {"actor": actor, "ask_digest": ask_digest, "timeout_seconds": whole}


def _shown(plan: Plan) -> list[JsonValue]:
    """The first targets, as many as fit: their names may be long, and the plan's digest covers them all."""
    shown: list[JsonValue] = []
    left = TARGETS_BYTES
    for target in plan.targets[:TARGETS_SHOWN]:
        key = target.key[:200]
        left -= len(key.encode())
        if left < 0:
            break
        shown.append(key)
    return shown


def beginning(
    new: NewRun, rows: tuple[Evidence, ...], data: JsonObject, now: datetime
) -> tuple[tuple[Evidence, ...], tuple[Event, ...]]:
    """What says, behind the first rows, that the first step begins."""
    started = Chain.after(new.number, rows).extend(EvidenceKind.STARTED, now, data)
    return (started,), (event_of(new.number, "run.started", new.actor, new.plan.action),)


def first_events(new: NewRun) -> tuple[Event, ...]:
    """Asked, and what became of it when it does not run at once."""
    asked = event_of(new.number, "run.asked", new.actor, new.plan.action, risk=new.plan.risk)
    if new.state is RunState.QUEUED:
        return (asked,)
    return (asked, event_of(new.number, f"run.{new.state}", new.actor, new.plan.action, reason=new.state_reason))


def verdict_data(approval: Approval) -> JsonObject:
    """A verdict, as evidence keeps it."""
    return {
        "approver": approval.approver,
        "roles": list(approval.roles),
        "asker": approval.asker,
        "digest": approval.digest,
        "kind": approval.kind,
        "verdict": approval.verdict,
        "reason": approval.reason,
        "at": approval.at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
    }


def reason_of(decision: Decision) -> str:
    """The reasons in one sentence; what could be approved is not worth a word where something else forbids."""
    hard = [reason.reason for reason in decision.reasons if reason.effect == "forbid"]
    words = hard or [reason.reason for reason in decision.reasons if reason.effect != "permit"]
    return "; ".join(words) or "no policy permits it"
