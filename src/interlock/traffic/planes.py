"""Finds the proxy that carries a workload's requests, and refuses where another one still does."""

from __future__ import annotations

from collections.abc import Iterator

from interlock.core.errors import Conflict, Invalid, NotFound, Permanent
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.traffic import DATA_PLANES, DataPlane, ProxyName, Routing
from interlock.core.workload import ServiceWorkload


def service(project: Project, workload: str) -> ServiceWorkload:
    """As it is declared. Raises NotFound, Invalid for what has no users."""
    declared = project.workloads.get(workload)
    if declared is None:
        msg = f"interlock.yaml declares no workload {workload!r}"
        known = ", ".join(sorted(project.workloads)) or "none is declared"
        raise NotFound(msg, code="workload.unknown", fix=f"declare it under `workloads`, or name one of: {known}")
    if not isinstance(declared, ServiceWorkload):
        msg = f"{workload} is a batch job: no requests come to it"
        raise Invalid(msg, code="workload.batch", fix=f"interlock release cutover {workload} VERSION --percent 20")
    return declared


def planes(outside: Outside) -> Iterator[tuple[ProxyName, DataPlane]]:
    """Every proxy that this installation knows."""
    for name, key in DATA_PLANES.items():
        try:
            yield name, outside[key]
        except Permanent as error:
            if error.code != "outside.missing":
                raise


def routed(outside: Outside, workload: str) -> tuple[ProxyName, Routing] | None:
    """What is in force, and at which proxy."""
    for name, plane in planes(outside):
        if (routing := plane.current(workload)) is not None:
            return name, routing
    return None


def require_no_other(workload: str, declared: ProxyName, found: tuple[ProxyName, Routing] | None) -> None:
    """Raises Conflict when another proxy than the declared one carries this workload's requests."""
    if found is not None and found[0] != declared:
        msg = f"{found[0]} still carries the requests of {workload}, and interlock.yaml says {declared}"
        fix = f"interlock do traffic.forget --arg workload={workload}   # nobody is answered until it is routed anew"
        raise Conflict(msg, code="traffic.other_proxy", fix=fix)
