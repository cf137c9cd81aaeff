"""Looks for services whose users could not come, for `interlock check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from interlock.core.errors import InterlockError
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.model import JsonObject
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.traffic import moving
from interlock.core.workload import ServiceWorkload
from interlock.engine.inspection import finding
from interlock.traffic.planes import planes, routed

AREA = "traffic"
PRIVILEGED_BELOW = 1024


def inspect_traffic(project: Project, outside: Outside) -> Iterable[JsonObject]:
    """Two services at one address, an address that is no number or taken, a proxy that would not read its part."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, declared in sorted(project.workloads.items()):
        if isinstance(declared, ServiceWorkload):
            places[declared.traffic.listen].append(name)
    for listen, names in places.items():
        host = listen.rpartition(":")[0]
        if len(names) > 1:
            message = f"workloads {', '.join(names)}: users of each would come at {listen}"
            yield finding("error", AREA, message, "give each a `traffic.listen` of its own")
        elif host != "localhost" and host.strip("[]0123456789abcdef:."):
            message = f"workloads.{names[0]}.traffic.listen: {host} is a name, and a proxy listens at an address"
            yield finding("error", AREA, message, f"write an address, as in 127.0.0.1:{listen.rpartition(':')[2]}")
    for name, declared in sorted(project.workloads.items()):
        if isinstance(declared, ServiceWorkload):
            yield from _moved(name, declared, outside)
            yield from _reached(name, declared, outside)


def _moved(name: str, declared: ServiceWorkload, outside: Outside) -> Iterator[JsonObject]:
    """What interlock.yaml says about where users come, and where they do come, are two things."""
    try:
        found = routed(outside, name)
    except InterlockError:
        return  # said below
    if found is None:
        return
    (proxy, routing), where = found, f"workloads.{name}.traffic"
    if proxy != declared.traffic.proxy:
        message = f"{where}.proxy says {declared.traffic.proxy}, and {proxy} carries the requests of its users"
        forget = f"interlock do traffic.forget --arg workload={name}"
        fix = f"write `proxy: {proxy}`; or let go of it, and nobody is answered until the next release: {forget}"
        yield finding("error", AREA, message, fix)
    elif routing.listen != declared.traffic.listen:
        message = f"{where}.listen says {declared.traffic.listen}, and users come at {routing.listen}"
        yield finding("error", AREA, message, f"write `listen: {routing.listen}`; or {moving(routing)}")


def _reached(name: str, declared: ServiceWorkload, outside: Outside) -> Iterator[JsonObject]:
    """Whether its proxy would take it, and could listen where users come."""
    plane = dict(planes(outside)).get(declared.traffic.proxy)
    try:
        if plane is not None:
            plane.require_read(name)
        if declared.traffic.include_folder is not None or routed(outside, name) is not None:
            return  # an operator's proxy listens there, or ours does
    except InterlockError as error:
        yield finding("error", AREA, f"workloads.{name}: {error.message}", error.fix)
        return
    port = declared.traffic.listen.rpartition(":")[2]
    if not outside[HEALTH_PROBE].is_free(int(port)):
        where = declared.traffic.listen
        message = f"workloads.{name}: users are to come at {where}, and a proxy cannot listen there: it is taken"
        message += ", or this account may not" if int(port) < PRIVILEGED_BELOW else ""
        fix = f"see who does: ss -ltnp 'sport = :{port}'; end it before the first release, or change `traffic.listen`"
        yield finding("warning", AREA, message, fix)
