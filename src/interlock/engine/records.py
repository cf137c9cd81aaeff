"""Lets Actions read Interlock's own tables from their threads."""

from __future__ import annotations

import asyncio

from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.control_store import ControlStore
from interlock.engine.store import RunStore

BRIDGE_SECONDS = 30.0


class LiveRecords:
    """Reads Interlock's own tables for Actions, from their threads."""

    def __init__(self, store: RunStore, control: ControlStore) -> None:
        self._store = store
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._adopted: tuple[JsonObject, ...] = ()

    def run(self, number: int) -> Run:
        """Raises NotFound."""
        return asyncio.run_coroutine_threadsafe(self._store.by_number(number), self._loop).result(BRIDGE_SECONDS)

    def adopted(self) -> tuple[JsonObject, ...]:
        """As of the last refresh, which every adoption brings about."""
        return self._adopted

    async def refresh(self) -> None:
        """Read the adopted programs anew."""
        self._adopted = await self._control.adopted()
