"""What others may know of a batch job: which version an invocation gets, and what comparisons of versions found."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from interlock.core.judgement import Verdict
from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import OutsideKey
from interlock.core.traffic import WHOLE, VersionName, WorkloadName


class VersionPin(Frozen):
    """A version by its name and by what it was when it was pinned: `commit:...` or `sha256:...`."""

    version: VersionName
    identity: str = Field(max_length=200)

    def __str__(self) -> str:
        """v1.4 (sha256 1a2b3c4d5e6f)."""
        kind, _, digest = self.identity.partition(":")
        return f"{self.version} ({kind} {digest[:12]})"


class BatchRouting(Frozen):
    """Which version the invocations of one batch job get.

    The candidate gets those whose key hashes below `share` (basis points), as long as no red line was crossed:
    `failures` counts key failures in a row, and at `failures_max` the stable version gets all, at once, before anybody
    wrote that down. `previous` is what a rollback goes back to while there is no candidate.
    """

    workload: WorkloadName
    stable: VersionPin
    candidate: VersionPin | None = None
    previous: VersionPin | None = None
    share: int = Field(default=0, ge=0, le=WHOLE)
    salt: str = Field(default="0", pattern=r"^[A-Za-z0-9_-]{1,40}$")
    failures: int = Field(default=0, ge=0)
    failures_max: int = Field(default=2, ge=1)
    epoch: int = Field(default=0, ge=0)
    """Rises with every change; what was planned with another one is stale."""
    snapshot: JsonObject = {}
    """What there was when the candidate got its first share: configuration, outputs, schedules."""
    reason: str | None = None
    changed_by: str
    run: int
    changed_at: datetime

    @property
    def crossed(self) -> bool:
        """Whether the red line was crossed: the newest version gets nothing until somebody decides anew."""
        return self.failures >= self.failures_max


class GateOutcome(Frozen):
    """How one gate ended that a version had to pass before it was tried."""

    name: str
    ok: bool
    words: str


class BatchComparison(Frozen):
    """What one shadow run found; `run` is its number."""

    run: int
    workload: WorkloadName
    stable: VersionPin
    candidate: VersionPin
    input_sha256: str
    arguments: dict[str, str] = {}
    verdict: Verdict
    pairs: int
    disagreeing: int
    blocks: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    """Columns and fields that differ, by file."""
    gates: tuple[GateOutcome, ...] = ()
    """Of the candidate, before it was run."""
    stable_seconds: float
    candidate_seconds: float
    folder: str
    at: datetime


class BatchInvocation(Frozen):
    """One invocation: which version it got, and how it ended."""

    run: int
    workload: WorkloadName
    version: VersionName
    identity: str
    key: str
    arguments: dict[str, str] = {}
    part: Literal["stable", "candidate"]
    ok: bool
    fell_back: bool = False
    """The candidate failed, and the stable version did it instead."""
    seconds: float
    words: str
    output: str | None = None
    at: datetime


class BatchRecords(Protocol):
    """Reads what is recorded of batch jobs, from a planner's or a step's thread."""

    def routing(self, workload: str) -> BatchRouting | None:
        """Which version invocations get; None before the first."""
        ...

    def comparisons(self, workload: str, limit: int = 50) -> tuple[BatchComparison, ...]:
        """Newest first."""
        ...

    def invocations(self, workload: str, limit: int = 50) -> tuple[BatchInvocation, ...]:
        """Newest first."""
        ...

    def folder(self, workload: str) -> Path:
        """Where its files lie: comparisons by day, outputs, golden samples."""
        ...


BATCHES: OutsideKey[BatchRecords] = OutsideKey("the batch jobs")
