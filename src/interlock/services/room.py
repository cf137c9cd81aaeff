"""Puts versions of services into the resident process: what keeps them, a view, and what Actions may arrange."""

from __future__ import annotations

from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.services.arrangements import InstanceArrangements
from interlock.services.inspection import inspect_workloads
from interlock.services.keeping import ServiceKeeping
from interlock.services.store import InstanceStore
from interlock.services.views import ServiceLogView, ServicesView

REVIVE_SECONDS = 1.0
COMPARE_SECONDS = 5.0
LET_GO_SECONDS = 3600.0


def open_room(parts: RoomParts) -> Room:
    """Everything about versions of services; no I/O yet."""
    store = InstanceStore(parts.database)
    keeping = ServiceKeeping(store, parts.outside, parts.project, parts.clock)
    return Room(
        views=(ServicesView(store, parts.outside), ServiceLogView(store, parts.outside, parts.redactor)),
        reconcilers=(
            Reconciler("keep_processes", keeping.revive, REVIVE_SECONDS),
            Reconciler("compare_services", keeping.compare, COMPARE_SECONDS),
            Reconciler("let_go_of_versions", keeping.let_go, LET_GO_SECONDS),
        ),
        arrangements=InstanceArrangements(store, parts.clock).all(),
        troubles=lambda: keeping.troubles,
        inspect=lambda project: inspect_workloads(project, parts.outside),
    )
