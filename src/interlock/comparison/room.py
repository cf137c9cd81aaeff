"""Puts golden samples of services into the resident process: a view of them."""

from __future__ import annotations

from interlock.comparison.views import GoldenView
from interlock.core.golden import GOLDEN_FOLDER
from interlock.engine.rooms import Room, RoomParts


def open_room(parts: RoomParts) -> Room:
    """No table: each sample is a file."""
    return Room(views=(GoldenView(parts.outside[GOLDEN_FOLDER]),))
