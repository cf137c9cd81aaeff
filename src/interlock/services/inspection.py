"""Looks for workloads whose versions could not be started, for `interlock check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from interlock.core.errors import InterlockError
from interlock.core.git import GIT
from interlock.core.model import JsonObject
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.service_runtime import SERVICE_RUNTIMES, runtime_of
from interlock.core.workload import BatchWorkload, ServiceWorkload, Source
from interlock.engine.inspection import finding

AREA = "workloads"
_ANY_HOST = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - compared, not bound


def inspect_workloads(project: Project, outside: Outside) -> Iterable[JsonObject]:
    """Where files should come from, what runs them, and where they are reached."""
    found = [*_shared_ports(project.workloads)]
    for name, declared in sorted(project.workloads.items()):
        found += _source(name, declared.source, project.folder, outside)
        if isinstance(declared, ServiceWorkload):
            if declared.configuration is not None:
                found += _source(name, declared.configuration, project.folder, outside)
            found += _runtime(name, declared, outside)
            found += _closed(name, declared)
    yield from found
    if project.workloads and not found:
        yield finding("ok", AREA, f"{len(project.workloads)} workloads are sound")


def _source(name: str, source: Source, base: str, outside: Outside) -> Iterator[JsonObject]:
    if source.folder is not None:
        above = Path(base, source.folder.partition("{version}")[0])
        above = above if source.folder.partition("{version}")[0].endswith("/") else above.parent
        if not above.is_dir():
            message = f"workloads.{name}: there is no folder {above}, where its versions should lie"
            yield finding("error", AREA, message, f"mkdir -p {above}")
    elif source.git is not None:
        try:
            outside[GIT].stored(str(Path(base, source.git)))
        except InterlockError as error:
            yield finding("error", AREA, f"workloads.{name}: {error.message}", error.fix)


def _closed(name: str, declared: ServiceWorkload) -> Iterator[JsonObject]:
    """What is laid out by Interlock lies in its state folder, which is closed to other accounts."""
    if declared.systemd is not None and (declared.build or declared.source.git is not None):
        message = f"workloads.{name}: its files are laid out where only Interlock's own account reads them"
        fix = "give `source: {folder: ...}` without `build`, or let the unit run as Interlock's account"
        yield finding("warning", AREA, message, fix)


def _runtime(name: str, declared: ServiceWorkload, outside: Outside) -> Iterator[JsonObject]:
    try:
        runtime = outside[SERVICE_RUNTIMES[runtime_of(declared)]]
        for each in runtime.inspect(name, declared):
            yield finding(each.level, AREA, f"workloads.{name}: {each.message}", each.fix)
    except InterlockError as error:
        yield finding("error", AREA, f"workloads.{name}: {error.message}", error.fix)


def _shared_ports(workloads: dict[str, ServiceWorkload | BatchWorkload]) -> Iterator[JsonObject]:
    """Two workloads cannot listen in one place; an address of all interfaces is every place."""
    taken: dict[str, list[tuple[str, str]]] = {}
    for name, declared in sorted(workloads.items()):
        if not isinstance(declared, ServiceWorkload):
            continue
        host, _, port = declared.traffic.listen.rpartition(":")
        for other, there in taken.get(port, ()):
            if host == there or {host, there} & _ANY_HOST:
                message = (
                    f"workloads.{name} and workloads.{other} both listen on port {port} ({declared.traffic.listen})"
                )
                yield finding("error", AREA, message, "give one of them another port under `traffic.listen`")
        taken.setdefault(port, []).append((name, host))
