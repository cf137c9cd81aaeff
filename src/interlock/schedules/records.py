"""Lets Actions see which schedules there are, from their threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from interlock.core.project import Project
from interlock.core.schedule import ScheduleState
from interlock.lib.clock import Clock
from interlock.schedules.model import Standing
from interlock.schedules.store import ScheduleStore

BRIDGE_SECONDS = 30.0


class StoredSchedules:
    """Reads the tables of schedules in the loop that they belong to."""

    def __init__(self, store: ScheduleStore, project: Callable[[], Project], clock: Clock) -> None:
        self._store = store
        self._project = project
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def find(self, name: str) -> ScheduleState | None:
        """A schedule that is declared, or a one-off that is not over; None where there is none."""
        return asyncio.run_coroutine_threadsafe(self._find(name), self._loop).result(BRIDGE_SECONDS)

    async def _find(self, name: str) -> ScheduleState | None:
        now = self._clock.now()
        found = await self._store.standings(now, name)
        if found and found[0].one_off and found[0].declared:
            standing = found[0]
            at = standing.schedule.at
            over = at is not None and at <= standing.cursor_at and not await self._store.waiting(name)
            if not over:
                return ScheduleState(name=name, one_off=True, at=at, paused_by=_pauser(standing, now))
        if name not in self._project().schedules:
            return None
        paused = _pauser(found[0], now) if found else None
        return ScheduleState(name=name, one_off=False, at=None, paused_by=paused)


def _pauser(standing: Standing, now: datetime) -> str | None:
    return standing.paused_by if standing.paused(now) else None
