"""What the Actions of services may arrange: a port for a version, and how far it is."""

from __future__ import annotations

from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.core.service_runtime import VersionSpec
from interlock.engine.rooms import Arrange
from interlock.lib.clock import Clock
from interlock.services.store import InstanceStore


class InstanceArrangements:
    """Each may be repeated by the same Run."""

    def __init__(self, store: InstanceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def all(self) -> dict[str, Arrange]:
        """By their names."""
        return {
            "service.reserve": self.reserve,
            "service.started": self.started,
            "service.healthy": self.healthy,
            "service.failed": self.failed,
            "service.stopping": self.stopping,
            "service.stopped": self.stopped,
        }

    async def reserve(self, run: Run, payload: JsonObject) -> JsonObject:
        """Raises Conflict: it stands as something else, or no port is free."""
        ports, release = payload["ports"], payload["release"]
        spec = await self._store.reserve(
            VersionSpec.model_validate(payload["spec"]),
            [port for port in ports if isinstance(port, int)] if isinstance(ports, list) else [],
            run.number,
            release if isinstance(release, int) else None,
            self._clock.now(),
        )
        return {"spec": spec.model_dump(mode="json")}

    async def started(self, run: Run, payload: JsonObject) -> JsonObject:  # noqa: ARG002
        """Where it is reached."""
        await self._store.started(*_names(payload), str(payload["address"]))
        return {}

    async def healthy(self, run: Run, payload: JsonObject) -> JsonObject:
        """It answers."""
        await self._store.healthy(*_names(payload), run.number, self._clock.now())
        return {}

    async def failed(self, run: Run, payload: JsonObject) -> JsonObject:  # noqa: ARG002
        """It did not become healthy."""
        await self._store.failed(*_names(payload), str(payload["reason"]))
        return {}

    async def stopping(self, run: Run, payload: JsonObject) -> JsonObject:
        """It is being ended."""
        await self._store.stopping(*_names(payload), run.number)
        return {}

    async def stopped(self, run: Run, payload: JsonObject) -> JsonObject:
        """Nothing of it runs."""
        await self._store.stopped(*_names(payload), run.number, self._clock.now())
        return {}


def _names(payload: JsonObject) -> tuple[str, str]:
    return str(payload["workload"]), str(payload["version"])
