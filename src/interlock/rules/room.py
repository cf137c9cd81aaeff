"""What the policies add to the resident process: the arrangement behind `policy.apply`, and a look at the disk."""

from __future__ import annotations

from interlock.core.errors import Permanent
from interlock.core.policy_set import POLICY_SETS
from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.rules.desk import PolicyDesk

LOOK_SECONDS = 30.0


def open_room(parts: RoomParts) -> Room:
    """The desk gets what it could not have before the policies were loaded."""
    desk = parts.outside[POLICY_SETS]
    if not isinstance(desk, PolicyDesk):
        msg = "the policy sets are somebody else's"
        raise Permanent(msg, code="bug")
    desk.connect(parts)
    return Room(
        reconcilers=(Reconciler("policy drift", desk.look, LOOK_SECONDS),),
        arrangements={"policy.put_in_force": desk.put_in_force},
        troubles=lambda: desk.trouble,
    )
