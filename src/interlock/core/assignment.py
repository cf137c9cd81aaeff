"""Which version a user has: a salted hash of who he is, below the candidate's share or not; every proxy computes it so.

The hash of `SALT:UNIT` (MurmurHash2, 32 bits) lies on a line. The last arm has its beginning, as long as its share; the
arm before it has what follows; the first arm, the stable one, has the rest. So a candidate whose share grows gets
further users and loses none, and one whose share shrinks gives back those who came last.
"""

from __future__ import annotations

from interlock.core.traffic import WHOLE, Routing
from interlock.lib.murmur2 import HASH_MAX, murmur2


def unit_hash(salt: str, unit: str) -> int:
    """Where this user stands on the line: 0 to 2**32 - 1."""
    return murmur2(f"{salt}:{unit}".encode())


def upper_bounds(routing: Routing) -> tuple[tuple[str, int], ...]:
    """(arm, bound) from the beginning of the line: the arm has who stands below its bound and not below the one before.

    The last one is the stable arm; its bound, 2**32, is above everybody. Bounds are rounded as `split_clients` does.
    """
    found: list[tuple[str, int]] = []
    reached = 0
    for arm in reversed(routing.arms[1:]):
        reached += arm.share
        found.append((arm.name, HASH_MAX + 1 if reached == WHOLE else reached * HASH_MAX // WHOLE))
    return (*found, (routing.arms[0].name, HASH_MAX + 1))


def arm_of(routing: Routing, unit: str) -> str:
    """The name of the arm that this user has."""
    place = unit_hash(routing.salt, unit)
    return next(name for name, bound in upper_bounds(routing) if place < bound)
