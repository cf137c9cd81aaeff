"""Performs one Run step by step, writing down each thing before and after it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from interlock.core.action import Action, StepResult
from interlock.core.errors import InterlockError, Permanent, Transient
from interlock.core.event import Event
from interlock.core.evidence import Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.plan import Step
from interlock.core.ports import StepContext
from interlock.core.run import RunState
from interlock.engine.hold import Hold
from interlock.engine.metrics import RETRIES, STEP_SECONDS, STEPS
from interlock.engine.progress import Direction, Open, Progress, read_progress, started_data
from interlock.engine.store import LeaseLost, Left, RunStore, event_of
from interlock.engine.telemetry import Telemetry
from interlock.engine.trail import RecordLost, Trail, plain
from interlock.lib.canonical import canonical_bytes, digest_of
from interlock.lib.clock import Clock

log = structlog.get_logger()

DATA_BYTES_SHOWN = 6 * 1024
FREEZE_POLL_SECONDS = 1.0
PAUSE_LOOK_SECONDS = 0.2
THREAD_GRACE_SECONDS = 10.0


class Contexts(Protocol):
    """Makes what a step is given, and answers for what an earlier worker left behind."""

    def make(
        self, hold: Hold, step_index: int, attempt: int, note: Callable[[JsonObject], Awaitable[None]]
    ) -> StepContext:
        """The context of one attempt; `note` records the guard's identity before it may act."""
        ...

    async def flush(self, run: int) -> None:
        """Write out what the Run has printed so far."""
        ...

    async def prove_dead(self, workers: tuple[JsonObject, ...], guards: tuple[JsonObject, ...]) -> None:
        """Raises Transient or Permanent when something of an earlier attempt may still be alive."""
        ...


@dataclass(frozen=True)
class Ending:
    """How a Run leaves this worker."""

    state: RunState
    reason: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Services:
    """What an execution works with."""

    store: RunStore
    contexts: Contexts
    action: Callable[[str], Action]
    recheck: Callable[[Hold], Awaitable[Ending | None]]
    frozen: Callable[[Hold], Awaitable[str | None]]
    in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]
    wait_seconds: Callable[[int], float]
    stopping: asyncio.Event
    worker: JsonObject
    clock: Clock
    step_attempts_max: int
    retry_budget_seconds: float
    telemetry: Telemetry


@dataclass(frozen=True)
class _StepEnd:
    """`touched`: the step may have had an effect although it did not end well. `doubt`: nobody can know.

    `give_back`: the worker stops, and the next one may begin the step anew.
    """

    ok: bool
    reason: str = ""
    code: str | None = None
    touched: bool = False
    doubt: bool = False
    give_back: bool = False


class Execution:
    """One worker's work on one Run, from where its evidence says it stands.

    `begun`: this worker has just written, together with its claim, that it begins the first step.
    """

    def __init__(
        self, services: Services, hold: Hold, rows: tuple[Evidence, ...], *, recheck: bool, begun: bool = False
    ) -> None:
        self._services = services
        self._hold = hold
        self._run = hold.run
        self._steps = hold.run.plan.steps
        self._action = services.action(hold.run.action)
        self._trail = Trail(services.store, hold.run, rows, services.clock)
        self._progress: Progress = read_progress(rows)
        self._recheck = recheck
        self._begun = begun
        self._started_at = services.clock.monotonic()

    async def finish(self) -> Left:
        """Bring the Run as far as it goes, and leave it there.

        Raises: LeaseLost when another worker took it; RecordLost or Transient when the database is away: nothing more
            is written then, and whoever takes over reads where it stands.
        """
        ending = await self._work()
        await self._services.contexts.flush(self._run.number)
        return await self._leave(ending)

    async def _work(self) -> Ending:
        if not self._progress.started and self._recheck:
            ending = await self._look_again()
            if ending is not None:
                return ending
        if self._progress.direction == "undo":
            self._hold.turn_back()
        if self._progress.open is not None and not self._begun:
            ending = await self._settle(self._progress.open)
            if ending is not None:
                return ending
        if self._progress.direction == "do":
            return await self._forward()
        return await self._backward()

    async def _look_again(self) -> Ending | None:
        """Plan and decide again; a world that cannot be read for a while is given a few chances."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._services.recheck(self._hold)
            except Transient as error:
                if error.code.startswith("database."):
                    raise
                if self._services.stopping.is_set():
                    return Ending(RunState.QUEUED, "given back to the queue because the worker stopped")
                if attempt >= self._services.step_attempts_max or self._hold.cancelled:
                    return Ending(RunState.STALE, f"the plan can no longer be made: {error.message}", error.code)
            await self._pause(self._services.wait_seconds(attempt))

    async def _settle(self, open_: Open) -> Ending | None:
        """An earlier worker started a step and wrote nothing after it: first nothing of it may be alive any more."""
        step = self._step(open_.step, open_.direction)
        if open_.performed and self._progress.resolution != "repeat":
            context = self._services.contexts.make(self._hold, open_.step, open_.attempt, self._note)
            end = await self._checked(step, open_.step, open_.direction, context)
            return None if end.ok else await self._ended_badly(open_.step, end, open_.direction)
        harmless = step.repeatable or not step.changes
        # What runs under a guard dies with its guard. Only an effect inside the old worker itself needs that one dead.
        worker = () if self._action.guarded or harmless else (open_.worker,)
        try:
            await self._services.contexts.prove_dead(worker, open_.guards)
        except InterlockError as error:
            return Ending(RunState.UNRESOLVED, f"step {open_.step + 1} was started and may still run: {error.message}")
        untouched = self._action.guarded and not open_.guards
        if harmless or untouched or self._progress.resolution == "repeat":
            return None
        return Ending(
            RunState.UNRESOLVED,
            f"the worker died during step {open_.step + 1} ({step.summary}), which may not be repeated blindly",
            "step.interrupted",
        )

    async def _forward(self) -> Ending:
        first = not self._progress.started
        while (index := self._progress.next_step(len(self._steps))) is not None:
            # What was begun with its claim goes on at once: nothing can have changed since.
            ending = None if self._begun else await self._pause_between_steps(look_for_freeze=not first)
            if ending is not None:
                return ending
            first = False
            end = await self._attempts(index, "do")
            if not end.ok:
                return await self._ended_badly(index, end, "do")
        return Ending(RunState.SUCCEEDED)

    async def _ended_badly(self, index: int, end: _StepEnd, direction: Direction) -> Ending:
        if end.give_back:
            return Ending(RunState.QUEUED, end.reason)
        if direction == "do":
            return await self._failed(index, end)
        return Ending(RunState.UNRESOLVED, f"taking back step {index + 1} did not work: {end.reason}", end.code)

    async def _failed(self, index: int, end: _StepEnd) -> Ending:
        """Decide what is left of the Run when a step did not end well."""
        step = self._steps[index]
        if end.doubt:
            return Ending(RunState.UNRESOLVED, end.reason, end.code)
        touched = end.touched and step.changes
        if touched and step.undo is None and not step.repeatable:
            return Ending(RunState.UNRESOLVED, f"{end.reason}; it may have changed something", end.code)
        applied = [self._steps[number] for number in self._progress.done if self._steps[number].changes]
        if any(done.undo is None for done in applied):
            return Ending(RunState.UNRESOLVED, f"{end.reason}; an earlier step cannot be taken back", end.code)
        if not applied and not (touched and step.undo is not None):
            state = RunState.CANCELLED if end.code == "run.cancelled" else RunState.FAILED
            return Ending(state, end.reason, end.code)
        await self._begin_undo(index, end)
        return await self._backward()

    async def _begin_undo(self, index: int, end: _StepEnd) -> None:
        reason = plain(end.reason)
        self._trail.add(EvidenceKind.NOTED, {"note": "undoing", "step": index, "reason": reason, "code": end.code})
        self._progress.undo_from, self._progress.undo_reason = index, reason
        self._hold.turn_back()
        if not end.touched:
            self._progress.undone.add(index)
            self._trail.add(EvidenceKind.UNDONE, {"step": index, "ok": True, "summary": "had no effect", "data": {}})

    async def _backward(self) -> Ending:
        while (index := self._progress.next_undo()) is not None:
            step = self._steps[index]
            if step.changes and step.undo is None:
                why = step.irreversible or "it has no undo"
                return Ending(RunState.UNRESOLVED, f"step {index + 1} cannot be taken back: {why}", "step.no_undo")
            if not step.changes:
                self._progress.undone.add(index)
                nothing: JsonObject = {"step": index, "ok": True, "summary": "nothing to undo", "data": {}}
                self._trail.add(EvidenceKind.UNDONE, nothing)
                continue
            end = await self._attempts(index, "undo")
            if not end.ok:
                return await self._ended_badly(index, end, "undo")
        return Ending(RunState.UNDONE, self._progress.undo_reason)

    async def _pause_between_steps(self, *, look_for_freeze: bool) -> Ending | None:
        """Between two steps a Run may be cancelled, run out of time, be given back, or wait for a freeze to end."""
        while True:
            index = self._progress.next_step(len(self._steps)) or 0
            if self._hold.cancelled:
                return await self._failed(index, self._cancelled(touched=False))
            if self._services.clock.monotonic() - self._started_at > self._run.timeout_seconds:
                reason = f"the Run took longer than {self._run.timeout_seconds:g} s"
                return await self._failed(index, _StepEnd(ok=False, reason=reason, code="run.timed_out"))
            if self._services.stopping.is_set():
                return Ending(RunState.QUEUED, "given back to the queue because the worker stopped")
            frozen = await self._services.frozen(self._hold) if look_for_freeze else None
            if frozen is None:
                return None
            await self._trail.flush()  # what is done is written down before a wait that may be long
            await self._pause(FREEZE_POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait; somebody who cancels the Run or stops the worker ends it."""
        clock = self._services.clock
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > 0 and not self._hold.cancelled:
            try:
                async with asyncio.timeout(min(left, PAUSE_LOOK_SECONDS)):
                    await self._services.stopping.wait()
            except TimeoutError:
                continue
            return

    def _cancelled(self, *, touched: bool) -> _StepEnd:
        reason = f"cancelled by {self._hold.cancelled_by}"
        return _StepEnd(ok=False, reason=reason, code="run.cancelled", touched=touched)

    async def _attempts(self, index: int, direction: Direction) -> _StepEnd:
        """Try a step until it is done, it failed for good, or the budget is used up."""
        step = self._step(index, direction)
        begun = self._services.clock.monotonic()
        attempt = 0
        while True:
            attempt += 1
            end = await self._measured_attempt(step, index, attempt, direction)
            if not isinstance(end, Transient):
                return end
            spent = self._services.clock.monotonic() - begun
            pause = max(self._services.wait_seconds(attempt), end.retry_after_seconds)
            reason, touched = plain(end.message), end.effect_sent and step.changes
            self._trail.add(
                EvidenceKind.NOTED, {"note": "not_started", "step": index, "reason": reason, "code": end.code}
            )
            if attempt >= self._services.step_attempts_max or spent + pause > self._services.retry_budget_seconds:
                reason = f"{reason} (after {attempt} attempts)"
                return _StepEnd(ok=False, reason=reason, code=end.code, touched=touched)
            self._services.telemetry.meter.count(RETRIES, self._run.action)
            await self._trail.flush()
            await self._pause(pause)
            if self._hold.cancelled:
                return self._cancelled(touched=touched)
            if self._services.stopping.is_set():
                reason = "given back to the queue because the worker stopped"
                return _StepEnd(ok=False, reason=reason, touched=touched, give_back=True)

    async def _measured_attempt(
        self, step: Step, index: int, attempt: int, direction: Direction
    ) -> _StepEnd | Transient:
        telemetry, action = self._services.telemetry, self._run.action
        with telemetry.part(
            "step",
            STEP_SECONDS,
            action,
            action=action,
            step=index,
            attempt=attempt,
            direction=direction,
            run=self._run.number,
        ) as part:
            end = await self._attempt(step, index, attempt, direction)
            result = "retry" if isinstance(end, Transient) else "ok" if end.ok else "failed"
            if result != "ok":
                part.error = end.code or result
        telemetry.meter.count(STEPS, action, direction, result)
        return end

    async def _attempt(self, step: Step, index: int, attempt: int, direction: Direction) -> _StepEnd | Transient:
        if self._begun:
            self._begun = False
        else:
            self._trail.add(EvidenceKind.STARTED, started_data(index, attempt, direction, self._services.worker))
            first_word = () if self._progress.started else (self._event("run.started"),)
            await self._trail.flush(*first_word, use_approvals=not self._progress.started)
            self._progress.started = True
        context = self._services.contexts.make(self._hold, index, attempt, self._note)
        try:
            result = await self._in_thread(partial(self._action.perform, step, context), step.timeout_seconds)
        except (LeaseLost, RecordLost):
            raise
        except Transient as error:
            if self._hold.cancelled and (not error.effect_sent or step.repeatable or not step.changes):
                return self._cancelled(touched=error.effect_sent)
            if error.effect_sent and step.changes and not step.repeatable:
                return _StepEnd(ok=False, reason=error.message, code=error.code, doubt=True)
            return error
        except InterlockError as error:
            touched = isinstance(error, Permanent)
            doubt = touched and step.changes and not step.repeatable and step.undo is None
            return _StepEnd(ok=False, reason=error.message, code=error.code, touched=touched, doubt=doubt)
        except Exception as error:  # noqa: BLE001 - a bug of an action: loud, recorded, not retried
            return self._bug(error, step, index)
        return await self._performed(step, index, direction, result, context)

    async def _performed(
        self, step: Step, index: int, direction: Direction, result: StepResult, context: StepContext
    ) -> _StepEnd:
        """Write down what came back, then look whether the world agrees."""
        kind = EvidenceKind.DONE if direction == "do" else EvidenceKind.UNDONE
        if not result.ok:
            self._trail.add(kind, _report(index, result))
            code = "run.cancelled" if self._hold.cancelled else "step.failed"
            return _StepEnd(ok=False, reason=result.summary, code=code, touched=True)
        if type(self._action).check is not Action.check:
            # A check takes time, so what is done is written down before it, and that nobody has looked yet.
            self._trail.add(kind, {**_report(index, result), "to_check": True})
            await self._trail.flush()
            return await self._checked(step, index, direction, context)
        self._trail.add(kind, _report(index, result))
        self._ended_well(index, direction)
        return _StepEnd(ok=True)

    async def _checked(self, step: Step, index: int, direction: Direction, context: StepContext) -> _StepEnd:
        """Look whether the world agrees."""
        try:
            with self._services.telemetry.part("check", step=index):
                checked = await self._in_thread(partial(self._action.check, step, context), step.timeout_seconds)
        except (LeaseLost, RecordLost):
            raise
        except InterlockError as error:
            reason = f"the check could not be made: {error.message}"
            return _StepEnd(ok=False, reason=reason, code=error.code, doubt=True)
        except Exception as error:  # noqa: BLE001 - a bug of an action, as in a perform
            return self._bug(error, step, index)
        self._trail.add(EvidenceKind.CHECKED, _report(index, checked))
        if not checked.ok:
            reason = f"the check failed: {checked.summary}"
            return _StepEnd(ok=False, reason=reason, code="check.failed", touched=True)
        self._ended_well(index, direction)
        return _StepEnd(ok=True)

    def _ended_well(self, index: int, direction: Direction) -> None:
        (self._progress.done if direction == "do" else self._progress.undone).add(index)

    def _bug(self, error: Exception, step: Step, index: int) -> _StepEnd:
        """An exception nobody foresaw: loud, recorded, not retried."""
        log.error("step.bug", step=index, exc_info=error)
        reason = f"Interlock has a bug in {self._run.action}: {type(error).__name__}: {error}"
        return _StepEnd(ok=False, reason=reason, code="bug", touched=step.changes, doubt=step.changes)

    async def _in_thread(self, call: Callable[[], StepResult], timeout_seconds: float) -> StepResult:
        """Run a step's own code in a bounded thread; one that never comes back leaves its step in doubt."""
        try:
            async with asyncio.timeout(timeout_seconds + THREAD_GRACE_SECONDS):
                result: StepResult = await self._services.in_thread(call)
                return result
        except TimeoutError as error:
            self._hold.end()
            msg = f"the step did not end within {timeout_seconds:g} s"
            raise Permanent(msg, code="step.timed_out") from error

    async def _note(self, note: JsonObject) -> None:
        """Raises Transient (nothing sent) when this attempt is over already."""
        self._hold.require()
        self._trail.add(EvidenceKind.NOTED, note)
        await self._trail.flush()

    def _step(self, index: int, direction: Direction) -> Step:
        step = self._steps[index]
        if direction == "do":
            return step
        if step.undo is None:
            msg = f"step {index + 1} has no undo"
            raise Permanent(msg, code="step.no_undo")
        return step.undo

    def _event(self, kind: str, **data: Any) -> Event:
        return event_of(self._run.number, kind, self._run.actor, self._run.action, **data)

    async def _leave(self, ending: Ending) -> Left:
        reason = None if ending.reason is None else plain(ending.reason)
        if ending.state.is_final or ending.state is RunState.UNRESOLVED:
            kind = EvidenceKind.CLOSED if ending.state.is_final else EvidenceKind.NOTED
            data: JsonObject = {"state": ending.state.value, "reason": reason, "code": ending.code}
            if kind is EvidenceKind.CLOSED and self._hold.cancelled_by is not None:
                data["cancelled_by"] = self._hold.cancelled_by
            self._trail.add(kind, data if ending.state.is_final else {"note": "unresolved", **data})
        event = self._event(f"run.{ending.state}", reason=reason, code=ending.code)
        with self._services.telemetry.part("close", state=ending.state.value, run=self._run.number):
            return await self._trail.leave(ending.state, reason, ending.code, event)


def _report(index: int, result: StepResult) -> JsonObject:
    data: JsonObject = result.data
    if len(canonical_bytes(data)) > DATA_BYTES_SHOWN:
        data = {"digest": digest_of(data), "note": "too long for evidence"}
    return {"step": index, "ok": result.ok, "summary": plain(result.summary), "data": data}
