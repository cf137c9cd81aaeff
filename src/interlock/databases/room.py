"""Adds to the resident process what `sql.*` write down about their effects."""

from __future__ import annotations

from interlock.databases.store import EffectStore
from interlock.engine.rooms import Room, RoomParts


def open_room(parts: RoomParts) -> Room:
    """Two arrangements."""
    store = EffectStore(parts.database)
    return Room(arrangements={"sql.intend": store.intend, "sql.recall": store.recall})
