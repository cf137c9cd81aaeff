"""What runs on a timer: sealing, expiry, output, orphans, retention, the database; each may run at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from interlock.core.errors import InterlockError, Permanent, Transient
from interlock.core.meter import Meter
from interlock.core.project import Retention
from interlock.engine.approvals import Approvals
from interlock.engine.audit.seal import BATCH_ROWS_MAX, seal
from interlock.engine.blobs import FileBlobs
from interlock.engine.cancellation import cancel_all
from interlock.engine.db import Database
from interlock.engine.guard.orphans import OrphanReaper
from interlock.engine.metrics import RECONCILED, RECONCILER_FAILURES
from interlock.engine.output import FLUSH_SECONDS, Outputs
from interlock.engine.retention_store import RetentionStore
from interlock.engine.rooms import Reconciler
from interlock.lib.clock import Clock
from interlock.lib.note import SigningKey

log = structlog.get_logger()

SEAL_SECONDS = 2.0
EXPIRE_SECONDS = 5.0
ORPHAN_SECONDS = 5.0
RETENTION_SECONDS = 3600.0
DATABASE_SECONDS = 1.0
RETRY_SECONDS = 10.0
"""How soon what failed is tried again: a database that was away for a moment is no trouble for an hour."""


class Reconcilers:
    """Each reconciler is a function without input; what it could not do this time it does the next."""

    def __init__(
        self,
        database: Database,
        *,
        approvals: Approvals,
        outputs: Outputs,
        blobs: FileBlobs,
        key: SigningKey,
        clock: Clock,
        retention: Callable[[], Retention],
        reaper: OrphanReaper,
        tidy: Callable[[], None],
        revive: Callable[[], bool],
        meter: Meter,
    ) -> None:
        self._database = database
        self._approvals = approvals
        self._outputs = outputs
        self._blobs = blobs
        self._key = key
        self._clock = clock
        self._retention = retention
        self._reaper = reaper
        self._tidy = tidy
        self._revive = revive
        self._meter = meter
        self._store = RetentionStore(database)
        self._further: list[Reconciler] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._troubles: dict[str, InterlockError] = {}
        self._told: list[Callable[[], Iterable[InterlockError]]] = []

    @property
    def troubles(self) -> tuple[InterlockError, ...]:
        """What the reconcilers failed at the last time they ran, and what the rooms say needs somebody."""
        return (*self._troubles.values(), *(error for tell in self._told for error in tell()))

    def add(self, further: Iterable[Reconciler], troubles: Callable[[], Iterable[InterlockError]]) -> None:
        """What another room does on a timer, and what of it needs somebody; before `start`."""
        self._further += further
        self._told.append(troubles)

    async def start(self) -> None:
        """Run each on its own timer."""
        for each in (
            Reconciler("seal", self.seal, SEAL_SECONDS),
            Reconciler("expire", self.expire, EXPIRE_SECONDS),
            Reconciler("flush_all", self._outputs.flush_all, FLUSH_SECONDS),
            Reconciler("bury_orphans", self.bury_orphans, ORPHAN_SECONDS),
            Reconciler("retain", self.retain, RETENTION_SECONDS),
            Reconciler("keep_database", self.keep_database, DATABASE_SECONDS),
            *self._further,
        ):
            self._tasks.add(asyncio.create_task(self._forever(each), name=f"reconcile.{each.name}"))

    async def stop(self) -> None:
        """End the timers, then seal what is left."""
        await cancel_all(self._tasks)
        try:
            await self.seal()
        except InterlockError as error:
            log.warning("seal.at_stop", reason=error.message)

    async def seal(self) -> int:
        """Seal all settled evidence; returns how many rows."""
        rows = 0
        while True:
            async with self._database.connection() as connection:
                sealed = await seal(connection, self._key, self._clock.now())
            if sealed is None:
                return rows
            rows += sealed.rows
            if sealed.rows < BATCH_ROWS_MAX:
                return rows

    async def expire(self) -> None:
        """Close what nobody decided in time."""
        await self._approvals.expire()

    async def bury_orphans(self) -> None:
        """Kill and reap what guards that were killed left behind."""
        await asyncio.to_thread(self._reaper.sweep)

    async def retain(self) -> None:
        """Prune bodies and events that are older than the project keeps them, and old logs of the database."""
        retention = self._retention()
        before = self._clock.now() - timedelta(days=retention.bodies_days)
        await asyncio.to_thread(self._blobs.prune_older, before)
        await asyncio.to_thread(self._tidy)
        await self._store.prune(bodies_days=retention.bodies_days, events_days=retention.events_days)

    async def keep_database(self) -> None:
        """Start the database's own server again when it died; nobody else would."""
        if await asyncio.to_thread(self._revive):
            log.error("database.revived", reason="its server had died and was started again")

    async def _forever(self, reconciler: Reconciler) -> None:
        name, work, seconds = reconciler
        self._meter.know("work", (name,))
        while True:
            self._meter.count(RECONCILED, name)
            try:
                await work()
                self._troubles.pop(name, None)
            except Transient as error:
                self._meter.count(RECONCILER_FAILURES, name)
                log.warning("reconcile.failed", work=name, error_code=error.code, reason=error.message)
                self._troubles[name] = error
            except InterlockError as error:
                self._meter.count(RECONCILER_FAILURES, name)
                log.warning("reconcile.refused", work=name, error_code=error.code, reason=error.message, fix=error.fix)
                self._troubles[name] = error
            except Exception as error:
                self._meter.count(RECONCILER_FAILURES, name)
                log.exception("reconcile.bug", work=name)
                self._troubles[name] = Permanent(
                    f"{name} stopped on a bug: {type(error).__name__}: {error}", code="bug", fix="see the log of serve"
                )
            await asyncio.sleep(min(seconds, RETRY_SECONDS) if name in self._troubles else seconds)
