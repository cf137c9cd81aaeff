"""Versions of services that were started here: what Interlock's own table says of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.service_runtime import VersionSpec

InstanceStage = Literal["starting", "running", "stopping", "stopped", "failed"]
"""`starting`: being started, not yet healthy. `running`: it was healthy. `stopping`: being ended. `stopped`, `failed`:
nothing of it runs, because somebody stopped it, or because it never became healthy."""

STANDING: frozenset[InstanceStage] = frozenset({"starting", "running", "stopping"})
"""What holds its port, and may run."""


class ServiceInstance(Frozen):
    """One version, pinned, and what became of it. There is one row for each version of a workload."""

    spec: VersionSpec
    stage: InstanceStage
    address: str
    """HOST:PORT, where the proxy and the probe reach it."""
    run: int
    """Which changed it last."""
    release: int | None
    """For which release, if for any."""
    reason: str | None
    """Why it failed."""
    started_at: datetime
    healthy_at: datetime | None
    stopped_at: datetime | None


class ServiceInstances(Protocol):
    """Reads the table from a planner's or a step's thread."""

    def find(self, workload: str, version: str) -> ServiceInstance | None:
        """None when this version was never started, or that was long ago."""
        ...

    def of(self, workload: str) -> tuple[ServiceInstance, ...]:
        """All that are known of one workload, newest first."""
        ...


SERVICE_INSTANCES: OutsideKey[ServiceInstances] = OutsideKey("the versions of services")
