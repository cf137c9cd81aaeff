"""Looks for services whose users could not come, for `interlock check`; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.workload import ServiceWorkload
from interlock.engine.inspection import finding


def inspect_traffic(project: Project) -> Iterable[JsonObject]:
    """Two services at one address, or an address that is no number."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, declared in sorted(project.workloads.items()):
        if isinstance(declared, ServiceWorkload):
            places[declared.traffic.listen].append(name)
    for listen, names in places.items():
        host = listen.rpartition(":")[0]
        if len(names) > 1:
            message = f"workloads {', '.join(names)}: users of each would come at {listen}"
            yield finding("error", "traffic", message, "give each a `traffic.listen` of its own")
        elif host != "localhost" and host.strip("[]0123456789abcdef:."):
            message = f"workloads.{names[0]}.traffic.listen: {host} is a name, and a proxy listens at an address"
            yield finding("error", "traffic", message, f"write an address, as in 127.0.0.1:{listen.rpartition(':')[2]}")
