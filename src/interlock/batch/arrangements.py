"""What the Actions of batch jobs may arrange: a routing, what a comparison found, how an invocation ended."""

from __future__ import annotations

from interlock.batch.store import BatchStore
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.rooms import Arrange
from interlock.lib.clock import Clock, rfc3339


class BatchArrangements:
    """Each may be repeated by the same Run."""

    def __init__(self, store: BatchStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def all(self) -> dict[str, Arrange]:
        """By their names."""
        return {"batch.route": self.route, "batch.compared": self.compared, "batch.invoked": self.invoked}

    async def route(self, run: Run, payload: JsonObject) -> JsonObject:
        """Raises Conflict when it was changed meanwhile."""
        made = self._stamped(payload["routing"], run, "changed_at")
        made |= {"changed_by": run.actor.id}
        before, data = payload["before"], payload["data"]
        changed = await self._store.route(
            BatchRouting.model_validate(made),
            before if isinstance(before, int) else None,
            str(payload["word"]),
            data if isinstance(data, dict) else {},
        )
        return {"changed": changed}

    async def compared(self, run: Run, payload: JsonObject) -> JsonObject:
        """What was found."""
        await self._store.compared(BatchComparison.model_validate(self._stamped(payload["found"], run, "at")))
        return {}

    async def invoked(self, run: Run, payload: JsonObject) -> JsonObject:
        """How it ended."""
        found = BatchInvocation.model_validate(self._stamped(payload["found"], run, "at"))
        epoch, failed = payload["epoch"], payload["failed"]
        routing = await self._store.invoked(
            found, epoch if isinstance(epoch, int) else -1, failed=failed if isinstance(failed, bool) else None
        )
        failures = routing.failures if routing is not None else 0
        return {"failures": failures, "crossed": routing is not None and routing.crossed}

    def _stamped(self, document: object, run: Run, moment: str) -> JsonObject:
        """With the Run's number and the time, which no step makes up."""
        made: JsonObject = dict(document) if isinstance(document, dict) else {}
        return {**made, "run": run.number, moment: rfc3339(self._clock.now())}
