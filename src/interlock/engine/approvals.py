"""A person's yes or no to a Run that waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from interlock.core.actor import Actor
from interlock.core.approval import Approval, ApprovalKind
from interlock.core.decision import Requirement
from interlock.core.errors import Conflict, Denied, Invalid, Stale
from interlock.core.evidence import Chain, EvidenceKind
from interlock.core.meter import Meter
from interlock.core.model import JsonObject
from interlock.core.project import Limits
from interlock.core.role import code_of_action
from interlock.core.run import Run, RunState
from interlock.engine.db import Database
from interlock.engine.metrics import VERDICT_SECONDS, VERDICTS_GIVEN
from interlock.engine.record import reason_of, verdict_data
from interlock.engine.signals import Signals
from interlock.engine.store import RunStore, event_of
from interlock.engine.submit import Door
from interlock.engine.trail import require_reason
from interlock.lib.clock import Clock

EXPIRED_AT_ONCE = 100
DIGEST = re.compile(r"[0-9a-f]{6,64}")


class Approvals:
    """Records verdicts; a Run whose requirements are met moves into the queue in the same transaction."""

    def __init__(
        self,
        database: Database,
        store: RunStore,
        door: Door,
        signals: Signals,
        clock: Clock,
        limits: Callable[[], Limits],
        *,
        meter: Meter,
    ) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._signals = signals
        self._clock = clock
        self._limits = limits
        self._meter = meter

    async def decide(
        self, actor: Actor, number: int, *, verdict: bool, reason: str | None, digest: str | None = None
    ) -> tuple[Run, tuple[Requirement, ...]]:
        """Say yes or no. `digest` (or its beginning), when given, must be that of the plan that was read.

        The asker may confirm his own ask where policy leaves that to him, and may always say no; he never approves it.

        Returns: the Run as it is now, and what is still asked for.

        Raises:
            NotFound: No such Run.
            Denied: Not a person, or nobody asked for this person's word.
            Conflict: It does not wait, or this person has spoken already.
            Stale: It expired, or the digest is another.
            Invalid: The reason is too long or cannot be written, or that is no beginning of a digest.
        """
        require_reason(reason)
        if digest is not None and not DIGEST.fullmatch(digest):
            msg = "a digest is given by at least its first 6 hexadecimal digits"
            raise Invalid(msg, code="approval.digest", fix=f"interlock show {number}")
        if actor.kind != "person":
            msg = f"{actor.id} is not a person, and only people decide"
            raise Denied(msg, code="approval.not_a_person", fix="tell the person you work for")
        async with self._database.transaction() as connection:
            run, rows, before = await self._store.locked(connection, number)
            now = self._clock.now()
            _require_waiting(run, digest)
            if run.expires_at is not None and run.expires_at <= now:
                msg = f"Run {number} expired at {run.expires_at:%Y-%m-%d %H:%M} UTC"
                raise Stale(msg, code="run.expired", fix=f"interlock retry {number}")
            left = self._require_possible(run, before, verdict=verdict)
            kind = _kind_of(actor, run, left, verdict=verdict)
            # The asker's own yes is part of his ask; another person's needs a code of its own.
            needed = f"approve:{run.plan.risk}" if kind == "approval" else code_of_action(run.action)
            self._door.require_code(actor, needed)
            approval = Approval(
                run=number,
                digest=run.digest,
                asker=run.actor.id,
                approver=actor.id,
                roles=actor.roles,
                kind=kind,
                verdict=verdict,
                reason=reason,
                at=now,
                expires_at=run.expires_at or now + timedelta(minutes=self._limits().approval_expires_minutes),
            )
            await self._store.add_approval(connection, approval)
            decision = self._door.left(run, (*before, approval))
            if verdict and decision.outcome != "permit" and decision.requirements == left:
                # Raised inside the transaction, so that a word that changes nothing is not recorded either.
                msg = f"your yes does not count for Run {number}"
                raise Denied(msg, code="approval.does_not_count", fix=f"interlock why {number}")
            left = decision.requirements
            chain = Chain.after(number, rows)
            via: JsonObject = {"via": actor.via} if actor.via is not None else {}
            added = [chain.extend(EvidenceKind.APPROVED, now, {**verdict_data(approval), **via})]
            word = "approved" if verdict else "denied"
            events = [event_of(number, f"run.{word}", run.actor, run.action, by=actor.id, reason=reason)]
            state, told, code = RunState.WAITING, run.state_reason, run.state_code
            if not verdict:
                state, code = RunState.DENIED, "denied.person"
                told = f"{actor.id} said no" + (f": {reason}" if reason else "")
                added.append(
                    chain.extend(EvidenceKind.CLOSED, now, {"state": state.value, "reason": told, "code": code})
                )
            elif decision.outcome == "permit":
                state, told, code = RunState.QUEUED, None, None
            await self._store.move(connection, run, state, told, code, rows=tuple(added), events=tuple(events))
        self._signals.moved(number)
        self._meter.count(VERDICTS_GIVEN, kind, "yes" if verdict else "no")
        self._meter.observe(VERDICT_SECONDS, (now - run.created_at).total_seconds())
        return await self._store.by_number(number), left

    def _require_possible(self, run: Run, before: tuple[Approval, ...], *, verdict: bool) -> tuple[Requirement, ...]:
        """What is still asked for; a yes is not taken, and so not used up, while policy forbids the Run."""
        decision = self._door.left(run, before)
        if verdict and decision.outcome == "forbid":
            msg = f"policy forbids Run {run.number} now, whoever says yes: {reason_of(decision)}"
            raise Denied(msg, code="denied.policy", fix=f"interlock why {run.number}")
        return decision.requirements

    async def expire(self) -> int:
        """Close the Runs whose time to be approved is over; returns how many."""
        numbers = await self._store.expired(EXPIRED_AT_ONCE)
        for number in numbers:
            async with self._database.transaction() as connection:
                run, rows, _ = await self._store.locked(connection, number)
                if run.state is not RunState.WAITING:
                    continue
                reason = "nobody decided in time"
                closed = Chain.after(number, rows).extend(
                    EvidenceKind.CLOSED,
                    self._clock.now(),
                    {"state": "expired", "reason": reason, "code": "run.expired"},
                )
                event = event_of(number, "run.expired", run.actor, run.action)
                await self._store.move(
                    connection, run, RunState.EXPIRED, reason, "run.expired", rows=(closed,), events=(event,)
                )
            self._signals.moved(number)
        return len(numbers)


def _require_waiting(run: Run, digest: str | None) -> None:
    if run.state is not RunState.WAITING:
        msg = f"Run {run.number} does not wait for anybody: it is {run.state}"
        raise Conflict(msg, code="run.not_waiting", fix=f"interlock show {run.number}")
    if digest is not None and not run.digest.startswith(digest):
        msg = f"Run {run.number} has another plan than the one you read"
        raise Stale(msg, code="plan.changed", fix=f"interlock show {run.number}")


def _kind_of(actor: Actor, run: Run, left: tuple[Requirement, ...], *, verdict: bool) -> ApprovalKind:
    """Whether this word is another person's approval or the asker's own confirmation.

    Raises: Denied when the asker (or the person an agent works for, where policy wants somebody else) may not say it.
    """
    if actor.id == run.actor.id:
        if verdict and not any(requirement.confirmations for requirement in left):
            msg = f"Run {run.number} is your own ask: it needs another person"
            raise Denied(msg, code="approval.own_ask", fix="ask somebody with the role that `interlock why` names")
        return "confirmation"
    roles = {role for requirement in left for role in requirement.roles}
    anybody = any(requirement.approvals and not requirement.roles for requirement in left)
    if verdict and roles and not anybody and not roles & set(actor.roles):
        msg = f"Run {run.number} needs a person with the role {' or '.join(sorted(roles))}"
        raise Denied(msg, code="approval.role", fix=f"interlock why {run.number}")
    return "approval"
