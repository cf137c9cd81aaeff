"""What other capabilities may know of a release: whether it is on its way, and what it covers."""

from __future__ import annotations

from typing import Literal, Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey

ReleaseState = Literal[
    "preparing",
    "shadow",
    "canary",
    "watching",
    "paused",
    "frozen",
    "going_back",
    "released",
    "rolled_back",
    "failed",
    "aborted",
]
"""preparing: laid out, built, started, probed. shadow, canary: at a step. watching: all users have it, the judge still
looks. paused: waits for a person. frozen: something is wrong and there is no way back. The last four are ends."""

RELEASE_OVER: frozenset[ReleaseState] = frozenset({"released", "rolled_back", "failed", "aborted"})


class ReleaseRecord(Frozen):
    """One release as others may know it."""

    number: int
    workload: str
    state: ReleaseState
    stable: str | None
    """The version that users had before; None when there was none."""
    candidate: str


class ReleaseRecords(Protocol):
    """Reads releases from a planner's or a step's thread."""

    def release(self, number: int) -> ReleaseRecord:
        """Raises NotFound."""
        ...

    def require(self, number: int, workload: str, *, versions: tuple[str, ...]) -> ReleaseRecord:
        """The release, which is on its way, is of this workload, and is about nothing but these versions.

        Raises NotFound, and Denied when it covers no such thing.
        """
        ...


RELEASES: OutsideKey[ReleaseRecords] = OutsideKey("the releases")
