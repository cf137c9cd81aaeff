"""Lets Actions see what is recorded of batch jobs, from their threads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from interlock.batch.store import BatchStore
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting

BRIDGE_SECONDS = 30.0

Found = TypeVar("Found")


class StoredBatches:
    """Reads the tables in the loop that they belong to; `folder` is where the files of batch jobs lie."""

    def __init__(self, store: BatchStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._loop = asyncio.get_running_loop()

    def routing(self, workload: str) -> BatchRouting | None:
        """Which version invocations get."""
        return self._read(self._store.routing(workload))

    def comparisons(self, workload: str, limit: int = 50) -> tuple[BatchComparison, ...]:
        """Newest first."""
        return self._read(self._store.comparisons(workload, limit))

    def invocations(self, workload: str, limit: int = 50) -> tuple[BatchInvocation, ...]:
        """Newest first."""
        return self._read(self._store.invocations(workload, limit))

    def folder(self, workload: str) -> Path:
        """Its folder."""
        return self._folder / workload

    def _read(self, work: Coroutine[Any, Any, Found]) -> Found:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BRIDGE_SECONDS)
