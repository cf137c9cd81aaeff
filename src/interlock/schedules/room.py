"""Puts the schedules into the resident process: a timer, views, and what Actions may arrange."""

from __future__ import annotations

from datetime import timedelta

from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.schedules.arrangements import ScheduleArrangements
from interlock.schedules.inspection import inspect_schedules
from interlock.schedules.scheduler import LOOK_SECONDS, Scheduler
from interlock.schedules.store import ScheduleStore
from interlock.schedules.views import PreviewView, ScheduleDesk, SchedulesView

PRUNE_SECONDS = 3600.0


def open_room(parts: RoomParts) -> Room:
    """Everything about schedules; no I/O yet."""
    store = ScheduleStore(parts.database, parts.telemetry.meter)
    scheduler = Scheduler(store, parts.store, parts.door, parts.project, parts.clock)
    arrange = ScheduleArrangements(store, parts.clock)
    desk = ScheduleDesk(store, parts.project, parts.clock)

    async def prune() -> None:
        days = parts.project().retention.events_days
        await store.prune(parts.clock.now() - timedelta(days=days))

    return Room(
        views=(SchedulesView(desk), PreviewView(desk)),
        reconcilers=(
            Reconciler("schedules", scheduler.tick, LOOK_SECONDS),
            Reconciler("prune_schedules", prune, PRUNE_SECONDS),
        ),
        arrangements={
            "schedule.once": arrange.once,
            "schedule.cancel": arrange.cancel,
            "schedule.pause": arrange.pause,
            "schedule.resume": arrange.resume,
        },
        troubles=lambda: scheduler.troubles,
        inspect=lambda project: inspect_schedules(project, parts.catalog, parts.clock.now()),
    )
