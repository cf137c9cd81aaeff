"""Puts traffic into the resident process: its view, and work on a timer that keeps each proxy as it was left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interlock.core.traffic import DataPlane
from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.traffic.inspection import inspect_traffic
from interlock.traffic.planes import planes
from interlock.traffic.views import TrafficView

ENSURE_SECONDS = 2.0


def open_room(parts: RoomParts) -> Room:
    """No tables: what is in force is what a proxy acknowledged last, and its adapter keeps that beside the proxy."""
    return Room(
        views=(TrafficView(parts.outside, parts.project),),
        reconcilers=tuple(
            Reconciler(f"traffic_{name}", _ensuring(plane), ENSURE_SECONDS) for name, plane in planes(parts.outside)
        ),
        inspect=lambda project: inspect_traffic(project, parts.outside),
    )


def _ensuring(plane: DataPlane) -> Callable[[], Awaitable[None]]:
    """A proxy that died or lost what it was told is as it was; what cannot be mended is told in `status`."""

    async def ensure() -> None:
        await asyncio.to_thread(plane.ensure)

    return ensure
