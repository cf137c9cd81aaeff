"""The door: ask, plan, decide, record; and the second look before the first effect of what waited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

from pydantic import JsonValue

from interlock.core.actor import Actor
from interlock.core.approval import Approval
from interlock.core.ask import Ask
from interlock.core.decision import Decision, Reason
from interlock.core.errors import Conflict, Denied, InterlockError, Invalid, Stale, Transient
from interlock.core.freeze import Freeze
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.project import Limits
from interlock.core.run import Run, RunState
from interlock.core.trace import TRACE
from interlock.engine.execution import Ending
from interlock.engine.hold import Hold
from interlock.engine.metrics import (
    ASK_SECONDS,
    ASKS,
    DECIDE_SECONDS,
    DECISIONS,
    DECISIONS_BY_POLICY,
    PLAN_SECONDS,
    RECORD_SECONDS,
)
from interlock.engine.planner import Admit, Planner
from interlock.engine.policy.freezes import freeze_of, glass_of, pause_of, told
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.request import DecisionContext
from interlock.engine.proposal import Proposal
from interlock.engine.record import beginning, first_events, first_rows, new_run, reason_of
from interlock.engine.runner import Runner
from interlock.engine.signals import Signals, set_within
from interlock.engine.store import Prelude, RunStore
from interlock.engine.telemetry import Telemetry
from interlock.engine.trail import require_reason
from interlock.lib.clock import Clock

WAIT_LOOK_SECONDS = 1.0
FROZEN = "invariant.frozen"
AGENTS_PAUSED = "invariant.agents-paused"
"""The rules behind which an order stands that somebody gave."""
CONTROL_PREFIX = "interlock."
"""Actions that steer Interlock itself are not held up by the freezes they are there to lift."""


class Door:
    """Every change goes through here."""

    def __init__(
        self,
        store: RunStore,
        planner: Planner,
        judge: Judge,
        signals: Signals,
        clock: Clock,
        limits: Callable[[], Limits],
        *,
        in_force: Callable[[], JsonObject],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._planner = planner
        self._judge = judge
        self._signals = signals
        self._clock = clock
        self._limits = limits
        self._in_force = in_force
        self._telemetry = telemetry if telemetry is not None else Telemetry(clock)
        self._policies: set[str] = set()
        self._runner: Runner | None = None
        self._fast_path = True

    def attach(self, runner: Runner, *, fast_path: bool = True) -> None:
        """The worker of this process. `fast_path` False: it gets everything through the queue."""
        self._runner = runner
        self._fast_path = fast_path

    async def propose(self, actor: Actor, ask: Ask) -> Proposal:
        """Plan and decide, record nothing. Raises as `Planner.plan`."""
        _require_recordable(ask)
        plan = await self._planner.plan(ask.action, ask.args, self._admit(actor))
        return Proposal(plan, plan.digest, self._decide(actor, plan, 0, await self._store.freezes()))

    async def submit(self, actor: Actor, ask: Ask) -> Run | Proposal:
        """Take an ask through the door.

        What is known to change nothing and disclose no secret runs at once. A change that the asker has not confirmed
        comes back as a Proposal: nothing was done. What is forbidden is recorded as a denied Run.

        Raises:
            Invalid, NotFound, Transient: No plan could be made.
            Conflict: The key was used for another ask, or too much of this actor waits already.
            Stale: The plan is no longer the one that was confirmed.
            Denied: The same plan was denied not long ago; do not ask again.
        """
        meter = self._telemetry.meter
        with self._telemetry.part("ask", ASK_SECONDS, action=ask.action) as part:
            part.begin()
            try:
                outcome, repeated = await self._submit(actor, ask)
            except InterlockError as error:
                meter.count(ASKS, ask.action, error.kind)
                raise
            if isinstance(outcome, Proposal):
                meter.count(ASKS, ask.action, "proposed")
            else:
                part.attributes["run"] = outcome.number
                meter.count(ASKS, ask.action, "repeated" if repeated else outcome.state.value)
        return outcome

    async def _submit(self, actor: Actor, ask: Ask) -> tuple[Run | Proposal, bool]:
        """What became of it, and whether it had been asked before."""
        _require_recordable(ask)
        earlier = await self._same_key(actor, ask)
        if earlier is not None:
            return earlier, True
        try:
            return await self._submit_new(actor, ask), False
        except Conflict as error:
            # The same actor asked under this key at the same moment: whoever came first is the one.
            taken = await self._same_key(actor, ask) if error.code == "run.key_taken" else None
            if taken is None:
                raise
            return taken, True

    async def _submit_new(self, actor: Actor, ask: Ask) -> Run | Proposal:
        limits = self._limits()
        with self._telemetry.part("plan", PLAN_SECONDS, ask.action):
            plan = await self._planner.plan(ask.action, ask.args, self._admit(actor))
        digest = plan.digest
        if ask.digest is not None and not digest.startswith(ask.digest):
            msg = "the world changed: the plan is not the one that you were shown; nothing was done"
            raise Stale(msg, code="plan.changed", fix="ask again without a digest to see the new plan")
        with self._telemetry.part("decide", DECIDE_SECONDS):
            prelude, decision = await self._look_and_decide(actor, ask, plan, digest)
        self._tell_decision(decision)
        self._refuse_again(prelude, limits)
        proposal = Proposal(plan, digest, decision)
        if prelude.number is None:
            # Nothing is recorded of an ask that is only shown, nor of one that policy refused a moment ago.
            refused = decision.outcome == "forbid"
            if refused and prelude.policy_refused is not None:
                return await self._store.by_number(prelude.policy_refused)
            if not refused and not ask.confirmed:
                return proposal
            prelude = replace(prelude, number=await self._store.take_number())
        if decision.outcome == "forbid":
            return await self._record(actor, ask, proposal, prelude, ())
        waits = decision.outcome == "needs_approval"
        if waits and not ask.confirmed:
            return proposal
        self._refuse_excess(actor, prelude, limits, waits=waits)
        confirmations = self._confirmations(actor, ask, digest, prelude.number or 0)
        return await self._record(actor, ask, proposal, prelude, confirmations)

    async def _look_and_decide(self, actor: Actor, ask: Ask, plan: Plan, digest: str) -> tuple[Prelude, Decision]:
        """What the tables say, and the decision, for a Run that has no number yet.

        The tables are asked first, and answer while policy is asked; where they tell of freezes it is asked again.
        """
        limits = self._limits()
        looking = asyncio.create_task(
            self._store.look(
                actor.id,
                ask.key,
                digest,
                open_max=limits.open_runs_max,
                denied_minutes=limits.ask_again_after_denial_minutes,
                take_number=ask.confirmed or not plan.changes,
            )
        )
        try:
            await asyncio.sleep(0)
            confirmations = self._confirmations(actor, ask, digest, 0)
            decision = self._decide(actor, plan, 0, (), confirmations, digest=digest)
            prelude = await looking
        finally:
            looking.cancel()
        if prelude.freezes:
            decision = self._decide(actor, plan, 0, prelude.freezes, confirmations, digest=digest)
        return prelude, decision

    async def recheck(self, hold: Hold) -> Ending | None:
        """Plan and decide again before the first effect of a Run that waited; None: it may go on."""
        run = hold.run
        try:
            plan = await self._planner.plan(run.action, run.plan.args, self._admit(run.actor))
            if plan.digest != run.digest:
                return Ending(RunState.STALE, "the world changed since the plan was made", "plan.changed")
            approvals, freezes = await self._store.circumstances(run.number)
            decision = self._decide(run.actor, plan, run.number, freezes, approvals, digest=run.digest)
        except InterlockError as error:
            if isinstance(error, Transient):
                raise
            return Ending(RunState.STALE, f"the plan can no longer be made: {error.message}", error.code)
        if decision.outcome == "forbid":
            return Ending(RunState.DENIED, reason_of(decision), "denied.policy")
        if decision.outcome == "needs_approval":
            return Ending(RunState.STALE, "its approvals no longer meet what policy asks for", "approval.missing")
        return None

    async def frozen(self, hold: Hold) -> str | None:
        """Why the Run must stop between two steps, or None."""
        freezes = await self._store.freezes()
        found = freeze_of(hold.run.plan, freezes) or pause_of(hold.run.actor, freezes)
        return told(found) if found is not None and not hold.run.action.startswith(CONTROL_PREFIX) else None

    async def wait(self, number: int, timeout_seconds: float) -> Run:
        """The Run when it has come to rest (closed, unresolved or waiting), or as it is when the time is over."""
        end = self._clock.monotonic() + timeout_seconds
        with self._signals.watch(number) as moved:
            while True:
                moved.clear()
                left = end - self._clock.monotonic()
                # What is performed here needs no look at the table.
                run = await self._runner.left(number, left) if self._runner is not None else None
                if run is None:
                    run = await self._store.by_number(number)
                left = end - self._clock.monotonic()
                if run.state not in (RunState.QUEUED, RunState.RUNNING) or left <= 0:
                    return run
                await set_within(moved, min(left, WAIT_LOOK_SECONDS))

    def require_code(self, actor: Actor, code: str) -> None:
        """Raises Denied, naming the code, where the actor is kept to codes that do not cover this one."""
        self._judge.require_code(actor, code)

    def left(self, run: Run, approvals: tuple[Approval, ...]) -> Decision:
        """What policy says to a Run's own plan with these verdicts. A freeze is looked at when the Run is started."""
        return self._decide(run.actor, run.plan, run.number, (), approvals, digest=run.digest)

    def _admit(self, actor: Actor) -> Admit:
        """Whether a plan may be rehearsed for this actor: unless policy forbids it to him whoever says yes."""

        async def admit(plan: Plan) -> bool:
            return self._decide(actor, plan, 0, await self._store.freezes()).outcome != "forbid"

        return admit

    def _decide(
        self,
        actor: Actor,
        plan: Plan,
        number: int,
        freezes: tuple[Freeze, ...],
        approvals: tuple[Approval, ...] = (),
        *,
        digest: str | None = None,
    ) -> Decision:
        frozen = freeze_of(plan, freezes) if plan.changes else None
        paused = pause_of(actor, freezes)
        context = DecisionContext(
            now=self._clock.now(),
            run=number,
            digest=digest or plan.digest,
            frozen=frozen is not None,
            agents_paused=paused is not None,
            break_glass=glass_of(actor, plan, freezes) is not None,
        )
        decision = self._judge.decide(actor, plan, context, approvals)
        return _with_orders(decision, {FROZEN: frozen, AGENTS_PAUSED: paused}) if freezes else decision

    def _confirmations(self, actor: Actor, ask: Ask, digest: str, number: int) -> tuple[Approval, ...]:
        """The asker's own yes, which counts as a confirmation and never as an approval."""
        if not ask.confirmed or actor.kind != "person":
            return ()
        now = self._clock.now()
        return (
            Approval(
                run=number,
                digest=digest,
                asker=actor.id,
                approver=actor.id,
                roles=actor.roles,
                kind="confirmation",
                verdict=True,
                reason=ask.reason,
                at=now,
                expires_at=now + timedelta(minutes=self._limits().approval_expires_minutes),
            ),
        )

    async def _same_key(self, actor: Actor, ask: Ask) -> Run | None:
        found = None if ask.key is None else await self._store.by_key(actor.id, ask.key)
        if found is None:
            return None
        run, ask_digest = found
        if run.actor.on_behalf_of != actor.on_behalf_of:
            msg = f"the key {ask.key!r} belongs to the {actor.id} of somebody else"
            raise Conflict(msg, code="run.key_reused", fix="use a new key for a new ask")
        if ask_digest != ask.ask_digest:
            msg = f"the key {ask.key!r} already stands for another ask: Run {run.number} ({run.plan.summary})"
            raise Conflict(msg, code="run.key_reused", fix="use a new key for a new ask", details={"run": run.number})
        return run

    def _refuse_again(self, prelude: Prelude, limits: Limits) -> None:
        if prelude.refused is not None:
            msg = f"this very plan was denied as Run {prelude.refused}; it may not be asked again yet"
            raise Denied(
                msg,
                code="run.denied_before",
                fix=f"do not retry: tell the person. Asking again is open {limits.ask_again_after_denial_minutes}"
                " minutes after the denial",
                details={"run": prelude.refused},
            )

    def _refuse_excess(self, actor: Actor, prelude: Prelude, limits: Limits, *, waits: bool) -> None:
        if prelude.open_count >= limits.open_runs_max:
            msg = f"{prelude.open_count} Runs are open, which is all that is accepted"
            raise Conflict(msg, code="run.too_many_open", fix="interlock pending")
        if waits and actor.kind == "agent" and prelude.waiting_count >= limits.waiting_per_agent_max:
            msg = f"{prelude.waiting_count} asks of {actor.id} wait for a person already"
            raise Conflict(
                msg, code="run.too_many_waiting", fix="wait for an answer, or cancel one: interlock cancel N"
            )

    def _tell_decision(self, decision: Decision) -> None:
        meter = self._telemetry.meter
        meter.count(DECISIONS, decision.outcome)
        policies = {reason.policy for reason in decision.reasons}
        if not policies <= self._policies:
            # They come from policies in force, never from whoever asks.
            self._policies |= policies
            meter.know("policy", policies)
        for policy in policies:
            meter.count(DECISIONS_BY_POLICY, policy, decision.outcome)

    async def _record(
        self, actor: Actor, ask: Ask, proposal: Proposal, prelude: Prelude, approvals: tuple[Approval, ...]
    ) -> Run:
        """Write everything about the ask in one transaction; when it was claimed there and then, perform it."""
        if prelude.number is None:
            msg = "a Run is recorded only under a number that was taken for it"
            raise RuntimeError(msg)
        trace = TRACE.get()
        traceparent = trace.traceparent if trace is not None else None
        new = new_run(prelude.number, actor, ask, proposal, self._limits(), traceparent)
        rows = first_rows(new, approvals, self._clock.now(), self._in_force())
        runner = self._runner
        asked = (actor.id, new.plan.action)
        claim = runner is not None and self._fast_path and new.state is RunState.QUEUED and runner.reserve(asked)
        waits_alone = new.state is RunState.WAITING and actor.kind == "agent"
        begins = runner.beginning(new.plan) if runner is not None and claim else None
        begun = beginning(new, rows, begins, self._clock.now()) if begins is not None else None
        own = runner is not None and runner.will_claim(reserved=bool(claim))
        asked_at = self._clock.monotonic()
        claimed = False
        try:
            with self._telemetry.part("record", RECORD_SECONDS):
                recorded = await self._store.insert(
                    new,
                    rows,
                    first_events(new),
                    approvals,
                    claim_for=runner.owner if runner is not None and claim else None,
                    caps=runner.caps_for(new.plan.action) if runner is not None else None,
                    begun=begun,
                    waiting_max=self._limits().waiting_per_agent_max if waits_alone else None,
                    tell=not own,
                )
            claimed = recorded.state is RunState.RUNNING
        finally:
            if runner is not None and claim and not claimed:
                runner.release(asked)
        if runner is not None and claimed:
            rows = (*rows, *begun[0]) if begun is not None else rows
            runner.perform(recorded, recheck=False, asked_at=asked_at, rows=rows, begun=begun is not None)
            runner.settle(asked)
        elif runner is not None and own:
            runner.poke()
        return recorded


def _with_orders(decision: Decision, orders: dict[str, Freeze | None]) -> Decision:
    """The decision whose reasons name the orders (by rule) that stand behind them, and who gave them."""

    def named(reason: Reason) -> Reason:
        order = orders.get(reason.policy)
        return reason if order is None else reason.model_copy(update={"reason": told(order)})

    return decision.model_copy(update={"reasons": tuple(map(named, decision.reasons))})


def _require_recordable(ask: Ask) -> None:
    """Refuse text that no table can or should hold, before anything is planned. Raises Invalid."""
    require_reason(ask.reason)
    require_reason(ask.key)
    if any("\0" in text for text in (ask.key or "", ask.reason or "", *_texts(ask.args))):
        msg = "the ask holds a NUL character, which nothing that is written down may hold"
        raise Invalid(msg, code="args.nul", fix="leave it out; for binary content use content_base64")


def _texts(value: JsonValue) -> Iterator[str]:
    """Every text within a JSON value, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
