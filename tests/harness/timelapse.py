"""A process that works on schedules in time-lapse, and is killed at a boundary that the test chose."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.engine import open_engine
from harness.nursery import die_with_parent
from interlock.engine.store import RunStore
from interlock.schedules.scheduler import Scheduler
from interlock.schedules.store import ScheduleStore
from interlock.settings import Locations

OWNERS: dict[str, Any] = {"insert": RunStore}
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
SPEED = 240.0
"""So many seconds go by in one."""


class TimeLapse:
    """All processes have the same, as it begins at a moment that they are told."""

    def __init__(self, began: float) -> None:
        self._began = began

    def now(self) -> datetime:
        return MIDNIGHT + timedelta(seconds=(time.time() - self._began) * SPEED)

    def monotonic(self) -> float:
        return time.monotonic()


def arm(failpoint: str) -> None:
    """Kill -9 at `NAME:before` or `NAME:after` of a write."""
    name, phase = failpoint.split(":")
    owner = OWNERS.get(name, ScheduleStore)
    original = getattr(owner, name)

    async def method(*args: Any, **kwargs: Any) -> Any:
        if phase == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, method)


async def work(config: dict[str, Any]) -> None:
    """Look again and again, until somebody kills this."""
    locations = Locations(*(Path(config[name]) for name in ("project_file", "state_folder", "runtime_folder")))
    async with open_engine(config["app"], config["owner"], locations) as engine:
        store = ScheduleStore(engine.database)
        clock = TimeLapse(config["began"])
        scheduler = Scheduler(store, engine.store, engine.door, engine.parts.project, clock)
        if config["failpoint"]:
            arm(config["failpoint"])
        while True:
            await scheduler.tick()
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(work(json.loads(sys.argv[1])))
