"""What other machines add to the resident process: one view."""

from __future__ import annotations

from interlock.core.remote_host import REMOTE_HOSTS
from interlock.engine.rooms import Room, RoomParts
from interlock.hosts.views import HostsView


def open_room(parts: RoomParts) -> Room:
    """No tables: a machine is a folder with its keys."""
    return Room(views=(HostsView(parts.outside[REMOTE_HOSTS]),))
