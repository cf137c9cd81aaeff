"""Lets Actions see which versions of services were started here, from their threads."""

from __future__ import annotations

import asyncio

from interlock.core.service_instance import ServiceInstance
from interlock.services.store import InstanceStore

BRIDGE_SECONDS = 30.0


class StoredInstances:
    """Reads the table in the loop that it belongs to."""

    def __init__(self, store: InstanceStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()

    def find(self, workload: str, version: str) -> ServiceInstance | None:
        """One version."""
        found = asyncio.run_coroutine_threadsafe(self._store.find(workload, version), self._loop)
        return found.result(BRIDGE_SECONDS)

    def of(self, workload: str) -> tuple[ServiceInstance, ...]:
        """All versions of one workload, newest first."""
        return asyncio.run_coroutine_threadsafe(self._store.of(workload), self._loop).result(BRIDGE_SECONDS)
