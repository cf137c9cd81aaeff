"""Looks at every component at once: whether it is sound, what is wrong with it, and what mends it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interlock.core.errors import InterlockError
from interlock.core.meter import Meter
from interlock.core.model import JsonObject
from interlock.engine.keys import BLOB_KEY, SIGNING_KEY
from interlock.engine.metrics import HEALTHY
from interlock.engine.policy.load import PolicyBook
from interlock.engine.runner import Runner
from interlock.engine.store import BEAT_SECONDS
from interlock.lib.clock import Clock
from interlock.telemetry.store import VitalStore

CHECK_SECONDS_MAX = 1.5
KEPT_SECONDS = 30.0
KEPT_SECONDS_UNSOUND = 1.0
"""What is broken is looked at again soon: nobody waits half a minute for what works again."""

SEAL_LAG_SECONDS_MAX = 60.0
FREE_BYTES_MIN = 64 * 1024 * 1024
FREE_BYTES_LOW = 512 * 1024 * 1024
BEAT_SECONDS_MAX = 6 * BEAT_SECONDS

Grade = Literal["ok", "warn", "fail"]
"""`warn`: asks are still taken and performed, and somebody has to look. `fail`: they are not."""


@dataclass(frozen=True)
class Seen:
    """What was found of one component."""

    grade: Grade
    message: str
    fix: str | None = None

    def to_json(self) -> JsonObject:
        """With `fix` where there is something to mend."""
        return {"status": self.grade, "message": self.message, **({"fix": self.fix} if self.fix is not None else {})}


Check = Callable[[], Awaitable[Seen]]


class Health:
    """What is known of all components, never older than `KEPT_SECONDS`, looked at by one at a time."""

    def __init__(self, checks: dict[str, Check], meter: Meter, clock: Clock) -> None:
        self._checks = checks
        self._meter = meter
        self._clock = clock
        self._looking = asyncio.Lock()
        self._found: dict[str, Seen] = {}
        self._until = float("-inf")

    async def look(self) -> JsonObject:
        """`{status, components: {name: {status, message, fix}}}`; the worst component's status is the whole's."""
        async with self._looking:
            if self._clock.monotonic() >= self._until:
                seen = await asyncio.gather(*(self._checked(check) for check in self._checks.values()))
                self._found = dict(zip(self._checks, seen, strict=True))
                sound = all(each.grade == "ok" for each in seen)
                self._until = self._clock.monotonic() + (KEPT_SECONDS if sound else KEPT_SECONDS_UNSOUND)
                for name, each in self._found.items():
                    self._meter.set(HEALTHY, each.grade == "ok", name)
            grades = {each.grade for each in self._found.values()}
            worst = next((grade for grade in ("fail", "warn") if grade in grades), "ok")
            return {"status": worst, "components": {name: each.to_json() for name, each in self._found.items()}}

    async def _checked(self, check: Check) -> Seen:
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX):
                return await check()
        except TimeoutError:
            return Seen("fail", f"no answer within {CHECK_SECONDS_MAX:g} s", "interlock check")
        except InterlockError as error:
            return Seen("fail", error.message, error.fix)
        except OSError as error:
            return Seen("fail", error.strerror or str(error), "interlock check")


@dataclass(frozen=True)
class Components:
    """The checks themselves."""

    store: VitalStore
    runner: Runner
    book: PolicyBook
    clock: Clock
    state_folder: Path
    troubles: Callable[[], list[JsonObject]]

    @property
    def checks(self) -> dict[str, Check]:
        """By the name of the component."""
        return {
            "database": self.database,
            "disk": self.disk,
            "keys": self.keys,
            "listener": self.listener,
            "policies": self.policies,
            "reconcilers": self.reconcilers,
            "sealer": self.sealer,
            "workers": self.workers,
        }

    async def database(self) -> Seen:
        """It answers."""
        begun = self.clock.monotonic()
        await self.store.take()
        waiting = self.store.pool.get("requests_waiting", 0)
        took = f"answers in {(self.clock.monotonic() - begun) * 1000:.0f} ms"
        if waiting:
            return Seen("warn", f"{took}; {waiting} wait for a connection", "lower `limits:` or find what is slow")
        return Seen("ok", took)

    async def sealer(self) -> Seen:
        """Evidence does not wait for long."""
        tables = await self.store.take()
        if tables.seal_lag > SEAL_LAG_SECONDS_MAX:
            message = f"{tables.unsealed} rows of evidence have waited {tables.seal_lag:.0f} s for a checkpoint"
            return Seen("warn", message, "interlock status; interlock audit verify")
        return Seen("ok", f"{tables.sealed} rows are sealed, {tables.unsealed} wait")

    async def disk(self) -> Seen:
        """Bodies and keys can be written, and something is free: without a record nothing is done."""
        free = await asyncio.to_thread(lambda: shutil.disk_usage(self.state_folder).free)
        told = f"{free // 2**20} MiB are free at {self.state_folder}"
        if not os.access(self.state_folder, os.W_OK):
            return Seen("fail", f"{self.state_folder} cannot be written", f"ls -ld {self.state_folder}")
        if free < FREE_BYTES_LOW:
            return Seen("fail" if free < FREE_BYTES_MIN else "warn", told, "make room, or lower `retention:`")
        return Seen("ok", told)

    async def keys(self) -> Seen:
        """The files are there: what is in memory ends with the process."""
        missing = [name for name in (SIGNING_KEY, BLOB_KEY) if not (self.state_folder / "keys" / name).is_file()]
        if missing:
            fix = "put them back from a backup before this process ends"
            return Seen("fail", f"{' and '.join(missing)} gone from {self.state_folder / 'keys'}", fix)
        return Seen("ok", "both are there")

    async def policies(self) -> Seen:
        """What is on disk is in force; otherwise the set before it is."""
        trouble = self.book.trouble
        if trouble is not None:
            return Seen("warn", f"the set before is still in force: {trouble.message}", trouble.fix)
        return Seen("ok", f"{len(self.book.current.rules)} are in force")

    async def workers(self) -> Seen:
        """Runs are claimed and leases are kept."""
        beat_at = self.runner.beat_at
        if not self.runner.working or beat_at is None:
            return Seen("fail", "no worker runs in this process", "interlock stop; interlock serve")
        silent = self.clock.monotonic() - beat_at
        if silent > BEAT_SECONDS_MAX:
            return Seen("fail", f"no heartbeat for {silent:.0f} s", "see serve.log; interlock stop; interlock serve")
        return Seen("ok", f"{self.runner.running} Runs are performed here")

    async def listener(self) -> Seen:
        """The database tells at once of what is queued."""
        if not self.runner.listening:
            return Seen("warn", "it is being made again; meanwhile Runs start up to a second later")
        return Seen("ok", "listens")

    async def reconcilers(self) -> Seen:
        """What runs on a timer did not fail the last time, and nothing else needs somebody."""
        found = self.troubles()
        if found:
            first = found[0]
            fix = first.get("fix")
            return Seen(
                "warn", f"{len(found)}: {first['message']}", fix if isinstance(fix, str) else "interlock status"
            )
        return Seen("ok", "nothing needs anybody")
