"""What is decided about versions of services without looking at the world; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from interlock.core.errors import Invalid, NotFound
from interlock.core.plan import Target
from interlock.core.service_runtime import VersionSpec
from interlock.core.source_layout import LaidSource
from interlock.core.traffic import Routing
from interlock.core.workload import BatchWorkload, ServiceWorkload
from interlock.services.configuration import code_identity, parts_of

PORTS = range(20_000, 30_000)
"""Where versions listen. Below the ports that the kernel gives to connections going out."""
_RUN_BY = {"command", "compose", "systemd", "source", "configuration", "build", "environment", "stop_grace_seconds"}


def service_of(workloads: Mapping[str, ServiceWorkload | BatchWorkload], name: str) -> ServiceWorkload:
    """The declaration of a service. Raises NotFound, and Invalid for a batch job."""
    declared = workloads.get(name)
    if declared is None:
        known = ", ".join(sorted(workloads)) or "none"
        msg = f"interlock.yaml declares no workload {name}; it declares {known}"
        raise NotFound(msg, code="workload.unknown", fix="declare it under `workloads`")
    if isinstance(declared, BatchWorkload):
        msg = f"{name} is a batch job: nothing of it runs between two invocations"
        raise Invalid(msg, code="workload.batch", fix="name a workload of kind `service`")
    return declared


def laid_of(spec: VersionSpec) -> LaidSource | None:
    """The files of a version's code as they were laid out; None for an image."""
    if spec.source is None or spec.origin is None:
        return None
    return LaidSource(
        workload=spec.workload,
        version=parts_of(spec.workload, spec.version, spec.declared).code,
        source=spec.declared.source,
        origin=spec.origin,
        identity=code_identity(spec.identity),
        folder=spec.source,
        own=spec.source != spec.origin,
    )


def version_target(workload: str, version: str) -> Target:
    """What starting and stopping a version touches: that version, known by its workload as well."""
    return Target(kind="version", id=f"{workload}@{version}", names=(workload, f"workload:{workload}"))


def runs_alike(one: ServiceWorkload, other: ServiceWorkload) -> bool:
    """Whether two declarations run a version in the same way, whatever they say about releasing it."""
    return one.model_dump(include=_RUN_BY) == other.model_dump(include=_RUN_BY)


def port_order(spec: VersionSpec) -> Iterator[int]:
    """All ports, from one that belongs to this version, so that it is likely to get the same one again."""
    start = int.from_bytes(hashlib.sha256(spec.name.encode()).digest()[:4], "big") % len(PORTS)
    yield from (PORTS[(start + offset) % len(PORTS)] for offset in range(len(PORTS)))


def share_of(routing: Routing | None, version: str) -> int:
    """Which part of the users has this version, in basis points."""
    return sum(arm.share for arm in routing.arms if arm.name == version) if routing is not None else 0
