"""Brings what is not counted as it happens up to date: queue, seal, pool, disk; asked for at each scrape."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from interlock.core.errors import Transient
from interlock.core.meter import Meter, Metric
from interlock.core.run import RunState
from interlock.engine.metrics import (
    CHECKPOINT_AGE,
    DATABASE_UP,
    DISK_FREE,
    GUARDS,
    POOL_ERRORS,
    POOL_IDLE,
    POOL_LOST,
    POOL_REQUESTS,
    POOL_SIZE,
    POOL_WAIT_SECONDS,
    POOL_WAITING,
    POOL_WAITS,
    QUEUE,
    QUEUE_AGE,
    RUNNING,
    RUNS_OPEN,
    SEAL_LAG,
    SEALED,
    TROUBLES,
    UNSEALED,
    WAITING,
    WAITING_AGE,
)
from interlock.engine.runner import Runner
from interlock.lib.clock import Clock
from interlock.telemetry.store import Tables, VitalStore

log = structlog.get_logger()

KEPT_SECONDS = 5.0
TAKE_SECONDS_MAX = 2.0
_POOL_GAUGES = ((POOL_SIZE, "pool_size"), (POOL_IDLE, "pool_available"), (POOL_WAITING, "requests_waiting"))
_POOL_COUNTERS: tuple[tuple[Metric, str, float], ...] = (
    (POOL_REQUESTS, "requests_num", 1.0),
    (POOL_WAITS, "requests_queued", 1.0),
    (POOL_WAIT_SECONDS, "requests_wait_ms", 1000.0),
    (POOL_ERRORS, "requests_errors", 1.0),
    (POOL_LOST, "connections_lost", 1.0),
)
"""Metric, psycopg_pool's name of it, and how many of its units make one of ours."""


class Gauges:
    """One look at the tables for however many scrapes come within `KEPT_SECONDS`."""

    def __init__(
        self,
        store: VitalStore,
        meter: Meter,
        runner: Runner,
        clock: Clock,
        *,
        state_folder: Path,
        policies: Callable[[], Iterable[str]],
        troubles: Callable[[], list[object]],
    ) -> None:
        self._store = store
        self._meter = meter
        self._runner = runner
        self._clock = clock
        self._state_folder = state_folder
        self._policies = policies
        self._troubles = troubles
        self._looking = asyncio.Lock()
        self._until = float("-inf")
        self._open: set[tuple[str, str]] = set()
        self._pool_before: dict[str, int] = {}

    async def refresh(self) -> None:
        """Bring every gauge up to date, unless that was done a moment ago."""
        async with self._looking:
            if self._clock.monotonic() < self._until:
                return
            self._meter.know("policy", self._policies())
            try:
                async with asyncio.timeout(TAKE_SECONDS_MAX):
                    self._tell_tables(await self._store.take())
            except (Transient, TimeoutError) as error:
                # The scrape goes on: that the database is away is what it is there to tell.
                log.warning("metrics.no_database", reason=str(error))
                self._meter.set(DATABASE_UP, 0)
            self._tell_pool(self._store.pool)
            self._meter.set(RUNNING, self._runner.running)
            self._meter.set(GUARDS, self._runner.guards)
            self._meter.set(TROUBLES, len(self._troubles()))
            self._meter.set(DISK_FREE, shutil.disk_usage(self._state_folder).free)
            self._until = self._clock.monotonic() + KEPT_SECONDS

    def _tell_tables(self, tables: Tables) -> None:
        put = self._meter.set
        put(DATABASE_UP, 1)
        counts = dict.fromkeys(self._open, 0) | {(action, state): count for action, state, count in tables.open}
        self._open = {(action, state) for action, state, _ in tables.open}
        for (action, state), count in counts.items():
            put(RUNS_OPEN, count, action, state)
        put(WAITING, _of_state(tables, RunState.WAITING))
        put(QUEUE, _of_state(tables, RunState.QUEUED))
        put(WAITING_AGE, tables.waiting_age)
        put(QUEUE_AGE, tables.queue_age)
        put(UNSEALED, tables.unsealed)
        put(SEALED, tables.sealed)
        put(SEAL_LAG, tables.seal_lag)
        put(CHECKPOINT_AGE, tables.checkpoint_age)

    def _tell_pool(self, pool: dict[str, int]) -> None:
        for metric, name in _POOL_GAUGES:
            self._meter.set(metric, pool.get(name, 0))
        for metric, name, units in _POOL_COUNTERS:
            more = pool.get(name, 0) - self._pool_before.get(name, 0)
            self._meter.count(metric, by=max(0, more) / units)
        self._pool_before = dict(pool)


def _of_state(tables: Tables, wanted: RunState) -> int:
    return sum(count for _, state, count in tables.open if state == wanted.value)
