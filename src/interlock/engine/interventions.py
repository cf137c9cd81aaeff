"""What people do about a Run that exists: cancel it, retry it, take it back, or settle one that is unresolved."""

from __future__ import annotations

from typing import Literal

from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, Invalid
from interlock.core.evidence import Chain, EvidenceKind
from interlock.core.role import code_of_action
from interlock.core.run import Run, RunState
from interlock.engine.db import Database
from interlock.engine.progress import read_progress
from interlock.engine.proposal import Proposal
from interlock.engine.runner import Runner
from interlock.engine.signals import Signals
from interlock.engine.store import RunStore, event_of
from interlock.engine.submit import Door
from interlock.engine.trail import require_reason
from interlock.lib.clock import Clock

Resolution = Literal["repeat", "skip", "undo"]

RETRIABLE = frozenset(
    {RunState.FAILED, RunState.UNDONE, RunState.STALE, RunState.EXPIRED, RunState.CANCELLED, RunState.DENIED}
)


class Interventions:
    """Each method either changes the Run's row and evidence in one transaction, or goes through the door again."""

    def __init__(
        self, database: Database, store: RunStore, door: Door, runner: Runner, signals: Signals, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._runner = runner
        self._signals = signals
        self._clock = clock

    async def cancel(self, actor: Actor, number: int, reason: str | None) -> Run:
        """Stop a Run: at once while it waits, between or within its steps while it runs.

        Raises: NotFound; Denied (only the asker or a person cancels); Conflict (it is closed or unresolved); Invalid
            (the reason).
        """
        require_reason(reason)
        async with self._database.transaction() as connection:
            run, rows, _ = await self._store.locked(connection, number)
            if actor.kind != "person" and (actor.id, actor.on_behalf_of) != (run.actor.id, run.actor.on_behalf_of):
                msg = f"Run {number} belongs to {run.actor.id}"
                raise Denied(msg, code="cancel.not_yours", fix="ask a person to cancel it")
            self._door.require_code(actor, code_of_action(run.action))
            now, chain = self._clock.now(), Chain.after(number, rows)
            noted = chain.extend(
                EvidenceKind.NOTED, now, {"note": "cancel_requested", "by": actor.id, "reason": reason}
            )
            event = event_of(number, "run.cancel_requested", run.actor, run.action, by=actor.id)
            if run.state is RunState.RUNNING:
                # The evidence belongs to the worker that holds the Run; it writes down why it stopped.
                await self._store.request_cancel(connection, number, actor.id)
            elif run.state is RunState.WAITING or (run.state is RunState.QUEUED and not read_progress(rows).started):
                told = f"cancelled by {actor.id}" + (f": {reason}" if reason else "")
                closed = chain.extend(
                    EvidenceKind.CLOSED, now, {"state": "cancelled", "reason": told, "code": "run.cancelled"}
                )
                await self._store.move(
                    connection, run, RunState.CANCELLED, told, "run.cancelled", rows=(noted, closed), events=(event,)
                )
            elif run.state is RunState.QUEUED:
                await self._store.request_cancel(connection, number, actor.id)
            else:
                msg = f"Run {number} is {run.state}: there is nothing to cancel"
                fix = f"interlock resolve {number} repeat|skip|undo" if run.state is RunState.UNRESOLVED else None
                raise Conflict(msg, code="run.not_cancellable", fix=fix or f"interlock show {number}")
        self._runner.cancel(number, actor.id)
        self._signals.moved(number)
        return await self._store.by_number(number)

    async def retry(self, actor: Actor, number: int, ask: Ask) -> Run | Proposal:
        """Ask the same again as a new Run. Raises Conflict when the old one is not over or went well."""
        run = await self._store.by_number(number)
        if run.state not in RETRIABLE:
            msg = f"Run {number} is {run.state}: only a Run that did not go well is asked again"
            raise Conflict(msg, code="run.not_retriable", fix=f"interlock show {number}")
        return await self._door.submit(
            actor, ask.model_copy(update={"action": run.action, "args": run.plan.args, "retry_of": number})
        )

    async def undo(self, actor: Actor, number: int, ask: Ask) -> Run | Proposal:
        """Take a succeeded Run back, as a Run of its own. Raises Conflict when it has nothing to take back."""
        run = await self._store.by_number(number)
        if run.state is not RunState.SUCCEEDED:
            fix = f"interlock resolve {number} undo" if run.state is RunState.UNRESOLVED else f"interlock show {number}"
            msg = f"Run {number} is {run.state}: only what succeeded can be taken back"
            raise Conflict(msg, code="run.not_undoable", fix=fix)
        return await self._door.submit(
            actor, ask.model_copy(update={"action": "interlock.undo", "args": {"run": number}, "undo_of": number})
        )

    async def resolve(self, actor: Actor, number: int, resolution: Resolution, reason: str | None) -> Run:
        """Settle an unresolved Run by a person's word; the Run goes on from there.

        Raises: NotFound; Denied (only people); Conflict (it is not unresolved); Invalid (it has no undo).
        """
        require_reason(reason)
        if actor.kind != "person":
            msg = "only a person settles what nobody knows"
            raise Denied(msg, code="resolve.not_a_person", fix="tell the person you work for")
        async with self._database.transaction() as connection:
            run, rows, _ = await self._store.locked(connection, number)
            if run.state is not RunState.UNRESOLVED:
                msg = f"Run {number} is {run.state}, not unresolved"
                raise Conflict(msg, code="run.not_unresolved", fix=f"interlock show {number}")
            self._door.require_code(actor, code_of_action(run.action))
            progress = read_progress(rows)
            index = progress.disputed(len(run.plan.steps))
            step = run.plan.steps[index]
            if resolution == "undo" and step.changes and step.undo is None:
                msg = f"step {index + 1} has no undo: {step.irreversible or 'none was declared'}"
                raise Invalid(msg, code="step.no_undo", fix=f"interlock resolve {number} repeat|skip")
            noted = Chain.after(number, rows).extend(
                EvidenceKind.NOTED,
                self._clock.now(),
                {"note": "resolved", "step": index, "resolution": resolution, "by": actor.id, "reason": reason},
            )
            event = event_of(number, "run.resolved", run.actor, run.action, by=actor.id, resolution=resolution)
            told = f"{actor.id} chose to {resolution} step {index + 1}"
            await self._store.move(connection, run, RunState.QUEUED, told, None, rows=(noted,), events=(event,))
        self._signals.moved(number)
        return await self._store.by_number(number)
