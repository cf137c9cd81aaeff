"""What telemetry adds to the resident process: its metrics and its health, as views."""

from __future__ import annotations

from interlock.engine.rooms import Room, RoomParts
from interlock.telemetry.gauges import Gauges
from interlock.telemetry.health import Components, Health
from interlock.telemetry.inspection import inspect_telemetry
from interlock.telemetry.store import VitalStore
from interlock.telemetry.views import HealthView, MetricsView


def open_room(parts: RoomParts) -> Room:
    """Two views; no I/O yet."""
    store, meter = VitalStore(parts.database), parts.telemetry.meter
    gauges = Gauges(
        store,
        meter,
        parts.runner,
        parts.clock,
        state_folder=parts.state_folder,
        policies=lambda: parts.book.current.rules,
        troubles=lambda: [*parts.troubles()],
    )
    components = Components(store, parts.runner, parts.book, parts.clock, parts.state_folder, parts.troubles)
    health = Health(components.checks, meter, parts.clock)
    return Room(views=(MetricsView(gauges, meter), HealthView(health)), inspect=inspect_telemetry)
