"""What other capabilities may know of a release: whether it is on its way, and what it covers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.workload import ServiceWorkload

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
    can_go_back: bool = True
    """False once users have what the project says there is no way back from."""


class ReleaseRecords(Protocol):
    """Reads releases from a planner's or a step's thread."""

    def release(self, number: int) -> ReleaseRecord:
        """Raises NotFound."""
        ...

    def require(
        self, number: int, workload: str, *, versions: tuple[str, ...], shares: Mapping[str, int] | None = None
    ) -> ReleaseRecord:
        """The release, which is on its way (or keeps the version before warm), is of this workload, and is about
        nothing but these versions; with `shares` (version -> basis points), it wants just these where it stands.

        Raises NotFound, and Denied when it covers no such thing.
        """
        ...

    def declared(self, number: int) -> ServiceWorkload:
        """The declaration that a release was approved with; a later change of interlock.yaml does not reach it.

        Raises NotFound.
        """
        ...

    def active(self, workload: str) -> ReleaseRecord | None:
        """The release of this workload that is on its way."""
        ...

    def revocable(self, workload: str) -> ReleaseRecord | None:
        """The release that a rollback would take back: the one on its way, else the newest one that is released and
        whose version before is kept warm, whatever failed or was aborted since; None where there is neither."""
        ...


RELEASES: OutsideKey[ReleaseRecords] = OutsideKey("the releases")
