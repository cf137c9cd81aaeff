"""What a step is given: guarded processes, blobs, its output, and the promise that it may still act."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from interlock.core.errors import Transient
from interlock.core.model import JsonObject
from interlock.core.ports import TAIL_BYTES, Blobs, ProcessResult, ProcessSpec
from interlock.core.trace import TRACE
from interlock.engine.guard.supervise import GuardedProcess, prove_dead
from interlock.engine.hold import Hold
from interlock.engine.identity import require_dead
from interlock.engine.output import Outputs

BRIDGE_SECONDS = 60.0

Arrange = Callable[[str, int, JsonObject], Awaitable[JsonObject]]
Note = Callable[[JsonObject], Awaitable[None]]


class LiveContext:
    """The context of one attempt of one step. Its methods are called from the step's thread."""

    def __init__(self, contexts: LiveContexts, hold: Hold, step_index: int, attempt: int, note: Note) -> None:
        self._contexts = contexts
        self._hold = hold
        self._note = note
        self.run = hold.run.number
        self.key = f"{hold.run.number}:{step_index}"
        self.attempt = attempt
        self.blobs = contexts.blobs

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for an end."""
        return self._hold.cancelled

    def hold(self) -> None:
        """Raises Transient (nothing sent) when this worker may not act any more."""
        self._hold.require()

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        """Run a program under a guard, whose identity is in the evidence before the program exists."""
        output = self._contexts.outputs.of(self.run)
        self._hold.require()
        process = GuardedProcess.start(self._contexts.traced(spec), token=self.key)
        try:
            self._contexts.wait_for(self._note({"note": "guard", "guard": process.identity}))
            self._hold.adopt(process)
            outcome = process.go(self._hold.deadline, output.feed)
        finally:
            self._hold.drop(process)
            process.close()
            output.end_of_program()
        if outcome.ended_by in ("lease_lost", "worker_gone") or (outcome.ended_by == "killed" and self._hold.ended):
            msg = "this worker lost or gave up its hold while the program ran, so the program was killed"
            raise Transient(msg, code="lease.lost")
        redactor = self._contexts.outputs.redactor
        return ProcessResult(
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            timed_out=outcome.timed_out,
            output_bytes=outcome.output_bytes,
            truncated=outcome.truncated,
            output_sha256=outcome.output_sha256,
            tail=redactor.redact(outcome.tail.decode("utf-8", "replace"))[-TAIL_BYTES:],
            duration_seconds=outcome.duration_seconds,
        )

    def write_output(self, text: str) -> None:
        """Add text to the Run's output."""
        self._contexts.outputs.of(self.run).write(text)

    def arrange(self, name: str, payload: JsonObject) -> JsonObject:
        """Change Interlock's own tables."""
        self._hold.require()
        result: JsonObject = self._contexts.wait_for(self._contexts.arrange(name, self.run, payload))
        return result


class LiveContexts:
    """Makes contexts in this process."""

    def __init__(
        self, blobs: Blobs, outputs: Outputs, arrange: Arrange, here: JsonObject, *, tell_trace: bool = False
    ) -> None:
        self.blobs = blobs
        self.outputs = outputs
        self.arrange = arrange
        self._here = here
        self._tell_trace = tell_trace
        self._loop = asyncio.get_running_loop()

    def make(self, hold: Hold, step_index: int, attempt: int, note: Note) -> LiveContext:
        """The context of one attempt."""
        return LiveContext(self, hold, step_index, attempt, note)

    def traced(self, spec: ProcessSpec) -> ProcessSpec:
        """With TRACEPARENT, where traces are recorded: what the program sends of its own then belongs to the Run."""
        trace = TRACE.get()
        if trace is None or not self._tell_trace:
            return spec
        return spec.model_copy(update={"environment": {**spec.environment, "TRACEPARENT": trace.traceparent}})

    async def flush(self, run: int) -> None:
        """Write out what the Run has printed, and forget it: the Run leaves this process."""
        await self.outputs.flush(run)
        self.outputs.forget(run)

    async def prove_dead(self, workers: tuple[JsonObject, ...], guards: tuple[JsonObject, ...]) -> None:
        """Kill what is left of guards; raises Permanent or Transient when something may still be alive."""
        for guard in guards:
            await asyncio.to_thread(prove_dead, guard)
        for worker in workers:
            require_dead(worker, self._here)

    def wait_for(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine on the engine's loop from a step's thread."""

        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(BRIDGE_SECONDS)
