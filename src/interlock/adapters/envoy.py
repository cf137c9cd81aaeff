"""Envoy as the data plane: it reads files that we replace, and says over its own socket what it has taken over."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from interlock.adapters.envoy_admin import EnvoyAdmin, stat_name
from interlock.adapters.envoy_binary import envoy_binary
from interlock.adapters.envoy_documents import (
    arm_clusters,
    bootstrap,
    clusters,
    connections_max_of,
    document,
    listener,
    route_configuration,
)
from interlock.adapters.envoy_folder import EnvoyFolder
from interlock.adapters.envoy_log import EnvoyLog
from interlock.adapters.open_files import has_open
from interlock.core.errors import Conflict, Permanent, Transient
from interlock.core.keeper import Keeper, KeptProcess
from interlock.core.model import JsonObject
from interlock.core.traffic import Applied, Routing, TrafficLog

NAME = "envoy"
START_SECONDS = 10.0
LOOK_SECONDS = 0.5
ACK_SECONDS = 2.0
DRAIN_SECONDS = 10.0
LOG_BYTES_MAX = 64 * 1024 * 1024
CONNECTIONS_MAX = 20_000

_POLL_SECONDS = 0.001
_REASON_SECONDS = 0.3
_REASON_BYTES_MAX = 64 * 1024
_REASON_CHARACTERS_MAX = 400
_CONCURRENCY_MAX = 4


class _Kind(NamedTuple):
    """One kind of what Envoy reads: its file, and the beginning of the names of its statistics."""

    path: Path
    stats: str


class EnvoyProxy:
    """Implements `core.traffic.DataPlane`: one Envoy for all workloads of an installation.

    Args:
        folder: Of its files (STATE/traffic/envoy).
        admin_socket: Where it is administered; a short path, in a folder of ours.
        keeper: Keeps it running, also when Interlock ends.
        binary: Finds the program.
    """

    def __init__(
        self, folder: Path, admin_socket: Path, keeper: Keeper, binary: Callable[[], str] = envoy_binary
    ) -> None:
        self._folder = EnvoyFolder(folder)
        self._admin = EnvoyAdmin(admin_socket)
        self._keeper = keeper
        self._binary = binary
        self._closed = threading.Event()
        self._clusters = _Kind(self._folder.clusters, "cluster_manager.cds")
        self._listeners = _Kind(self._folder.listeners, "listener_manager.lds")

    # What the Protocol asks for

    def ensure(self) -> None:
        """As the Protocol says. Where nothing is in force there is nothing to run."""
        with self._folder.locked():
            routings = self._folder.routings()
            if not routings:
                return
            self._run(routings)
            self._put_where_needed(self._clusters, document(self._needed_clusters(routings).values()))
            if self._listening() < len(routings):
                # Nobody reads the routes of a listener that is not there.
                for routing in routings.values():
                    self._folder.replace(self._folder.routes(routing.workload), _routes_document(routing))
                self._put(self._listeners, self._listeners_document(routings))
            self._put_where_needed(self._listeners, self._listeners_document(routings))
            self._await_listeners(len(routings))
            for routing in routings.values():
                self._put_where_needed(self._routes(routing.workload), _routes_document(routing))
            if self._folder.rotate(LOG_BYTES_MAX) or not self._writes_where_it_is_read(routings):
                self._admin.order("/reopen_logs")

    def apply(self, routing: Routing) -> Applied:
        """As the Protocol says. Raises Conflict when another workload listens there."""
        with self._folder.locked(), self._folder.recording(routing) as record:
            before, wanted = self._folder.routing(routing.workload), _routes_document(routing)
            begun = time.monotonic()
            if not self._admin.is_there():
                self._run(self._folder.routings())
            if before is None or not clusters(routing).keys() <= clusters(before).keys():
                self._add_clusters(routing)
            if before is not None and before.listen == routing.listen:
                self._put(self._routes(routing.workload), wanted, record)
            else:
                self._put_with_listener(routing, wanted, record)
            return Applied(routing=routing, version=str(wanted["version_info"]), seconds=time.monotonic() - begun)

    def _put_with_listener(self, routing: Routing, wanted: JsonObject, record: Callable[[], None]) -> None:
        """Nobody reads routes before there is a listener, so that they lie there when it comes."""
        routings = self._folder.routings()
        _require_own_address(routing, routings.values())
        after = {**routings, routing.workload: routing}
        routes = self._routes(routing.workload)
        with self._folder.trying(routes.path, wanted):
            self._put(self._listeners, self._listeners_document(after))
            self._await(routes, wanted, {})
            self._await_listeners(len(after))
            record()

    def current(self, workload: str) -> Routing | None:
        """As the Protocol says."""
        return self._folder.routing(workload)

    def in_flight(self, workload: str, arm: str) -> int:
        """As the Protocol says."""
        pattern = rf"cluster\.{arm_clusters(workload, arm)}\.upstream_rq(_pending)?_active"
        return sum(self._admin.counts(pattern).values())

    def log(self, workload: str, *, from_end: bool) -> TrafficLog:
        """As the Protocol says."""
        return EnvoyLog(self._folder.log(workload), from_end=from_end)

    def require_read(self, workload: str) -> None:
        """It is ours, and reads what it is told."""

    def forget(self, workload: str) -> None:
        """As the Protocol says; the proxy itself ends with its last workload."""
        with self._folder.locked():
            routings = self._folder.routings()
            if workload not in routings:
                return
            left = {name: routing for name, routing in routings.items() if name != workload}
            if self._admin.is_live():
                if left:
                    self._put(self._listeners, self._listeners_document(left))
                else:
                    self._drain()
                self._await_silence(workload)
            self._folder.forget(workload)
            if left:
                self._put_where_needed(self._clusters, document(self._needed_clusters(left).values()))
            else:
                self._keeper.stop(NAME)
                self._folder.replace(self._listeners.path, document([]))
                self._folder.replace(self._clusters.path, document([]))

    def stop(self) -> None:
        """End the proxy after what is in flight; `ensure` starts it again with what was in force."""
        with self._folder.locked():
            if self._admin.is_live():
                self._drain()
                for workload in self._folder.routings():
                    self._await_silence(workload)
            self._keeper.stop(NAME)

    def close(self) -> None:
        """Wait for nothing any more; the proxy goes on."""
        self._closed.set()

    # The process

    def _run(self, routings: dict[str, Routing]) -> None:
        """It runs and answers. Files are made ready first, so that it starts with what was in force."""
        if self._comes_up(routings):
            return
        state = self._keeper.state(NAME)
        if state is not None and state.phase == "running" and not self._admin.socket_path.exists():
            # Somebody removed its socket: nothing could be changed any more, and no release could go back.
            self._keeper.restart(NAME)
            if self._comes_up(routings):
                return
        msg = f"the Envoy proxy does not come up: {self._said_since(0)}"
        raise Transient(msg, code="traffic.proxy_silent", fix="interlock status")

    def _comes_up(self, routings: dict[str, Routing]) -> bool:
        """Whether it answers in time. It is looked after all the while: a keeper that is dying still seems to live."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._keep(routings)
            if self._until(self._admin.is_live, min(LOOK_SECONDS, START_SECONDS)):
                return True
        return False

    def _keep(self, routings: dict[str, Routing]) -> None:
        state = self._keeper.state(NAME)
        if state is None or state.phase in {"stopped", "given_up"}:
            self._write_all(routings)
        try:
            self._keeper.ensure(self._process())
        except Conflict:
            # It was started from another place, before an upgrade: it goes on as long as it answers.
            if not self._admin.is_live():
                self._keeper.stop(NAME)
                self._write_all(routings)
                self._keeper.ensure(self._process())

    def _write_all(self, routings: dict[str, Routing]) -> None:
        folder = self._folder
        for routing in routings.values():
            folder.replace(folder.routes(routing.workload), _routes_document(routing))
        folder.replace(folder.clusters, document(_clusters_of(routings).values()))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Each request needs two descriptors, and the files and sockets of the proxy itself some more.
        connections = CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, max(64, soft // 3))
        node = f"interlock-{os.getuid()}"
        folder.replace(
            folder.bootstrap,
            bootstrap(node, self._admin.socket_path, folder.clusters, folder.listeners, connections),
        )
        folder.replace(folder.listeners, self._listeners_document(routings))

    def _process(self) -> KeptProcess:
        return KeptProcess(
            name=NAME,
            argv=(
                self._binary(),
                *("-c", str(self._folder.bootstrap)),
                "--disable-hot-restart",  # its shared memory has one name for the whole machine
                *("--concurrency", str(min(_CONCURRENCY_MAX, os.cpu_count() or 1))),
                *("--file-flush-interval-msec", "20"),  # 10 s otherwise: too late for whoever watches
                *("--drain-time-s", str(round(DRAIN_SECONDS))),
                *("--drain-strategy", "immediate"),
                *("-l", "warning"),
            ),
            folder=str(self._folder.path),
            # Nobody is answered meanwhile, so it is never waited long; one that ends at once is told of by `ensure`.
            restart_pause_seconds=0.05,
            restart_pause_seconds_max=0.5,
            restarts_per_hour_max=1000,
        )

    def _drain(self) -> None:
        """Clients are told to come back elsewhere, and nothing in flight is cut off."""
        self._admin.order("/healthcheck/fail")
        self._admin.order("/drain_listeners?graceful&skip_exit")

    def _await_silence(self, workload: str) -> None:
        """Nothing is being answered any more, or the time for it is over."""
        pattern = rf"http\.{stat_name(workload)}\.downstream_rq_active"
        self._until(lambda: not sum(self._admin.counts(pattern).values()), DRAIN_SECONDS)

    def _writes_where_it_is_read(self, workloads: Iterable[str]) -> bool:
        """Whether nobody took a log away: into one that was renamed it would write on, where no judge reads."""
        state = self._keeper.state(NAME)
        pid = state.pid if state is not None else None
        return pid is None or all(has_open(pid, self._folder.log(each)) for each in workloads)

    # What it reads

    def _routes(self, workload: str) -> _Kind:
        return _Kind(self._folder.routes(workload), f"http.{workload}.rds.{workload}")

    def _listeners_document(self, routings: dict[str, Routing]) -> JsonObject:
        folder = self._folder
        # As many as the Envoy takes that runs, whoever asks by now.
        connections = connections_max_of(folder.read(folder.bootstrap)) or CONNECTIONS_MAX
        own = max(1, connections * 3 // 4)
        return document(
            listener(routing, folder.routes(name).parent, folder.log(name), own)
            for name, routing in sorted(routings.items())
        )

    def _add_clusters(self, routing: Routing) -> None:
        """What the routes will lead to is there before they do."""
        known = _by_name(self._folder.read(self._clusters.path))
        after = {**known, **clusters(routing)}
        if after != known:
            self._put(self._clusters, document(after.values()))
            self._until(lambda: not sum(self._admin.counts(r"cluster_manager\.warming_clusters").values()), ACK_SECONDS)

    def _needed_clusters(self, routings: dict[str, Routing]) -> dict[str, JsonObject]:
        """Those that routes lead to, and those that still answer somebody: a cluster that is removed cuts them off."""
        known, needed = _by_name(self._folder.read(self._clusters.path)), _clusters_of(routings)
        busy = {
            name: found
            for name, found in known.items()
            if name not in needed
            and any(self._admin.counts(rf"cluster\.{stat_name(name)}\.upstream_rq_active").values())
        }
        # In the order in which they are known: another order would be another document.
        wanted = {**busy, **needed}
        return {name: wanted[name] for name in sorted(wanted)}

    def _put_where_needed(self, kind: _Kind, wanted: JsonObject) -> None:
        """Nothing happens where Envoy says that it has it and the file says so as well."""
        told = self._told(kind).get(f"{kind.stats}.version_text")
        if self._folder.read(kind.path) != wanted or wanted["version_info"] != told:
            self._put(kind, wanted)

    def _put(self, kind: _Kind, wanted: JsonObject, then: Callable[[], None] | None = None) -> None:
        """Let Envoy read this and wait until it says that it did; `then` belongs to it.

        Raises: Permanent with its own words when it does not want it, Transient when it does not answer in time, and
        what `then` raises. Then the file is as it was.
        """
        before, mark = self._told(kind), self._log_size()
        with self._folder.trying(kind.path, wanted):
            self._await(kind, wanted, before, mark)
            if then is not None:
                then()

    def _await(self, kind: _Kind, wanted: JsonObject, before: dict[str, str], mark: int = 0) -> None:
        refused = False

        def settled() -> bool:
            nonlocal refused
            told = self._told(kind)
            if wanted["version_info"] == told.get(f"{kind.stats}.version_text"):
                return True
            counted = (f"{kind.stats}.update_rejected", f"{kind.stats}.update_failure")
            refused = any(int(told.get(name, 0)) > int(before.get(name, 0)) for name in counted)
            return refused

        if not self._until(settled, ACK_SECONDS):
            msg = "the Envoy proxy does not take over what it was given"
            raise Transient(msg, code="traffic.unacknowledged", fix="interlock status")
        if refused:
            raise _refusal(self._said_since(mark))

    def _told(self, kind: _Kind) -> dict[str, str]:
        """Which version it has, and how often it refused one."""
        return self._admin.stats(rf"{stat_name(kind.stats)}\.(version_text|update_rejected|update_failure)")

    def _await_listeners(self, count: int) -> None:
        """A proxy that could not bind a port says that it is ready all the same."""
        if not self._until(lambda: self._listening() >= count, ACK_SECONDS):
            raise _refusal(self._said_since(0))

    def _listening(self) -> int:
        return sum(self._admin.counts(r"listener_manager\.total_listeners_active").values())

    # Waiting, and what it says

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it came true in time. Raises Transient when this process ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            if self._closed.wait(_POLL_SECONDS):
                msg = "Interlock ends"
                raise Transient(msg, code="traffic.interrupted", fix="ask again")
        return True

    def _log_size(self) -> int:
        try:
            return self._keeper.log_path(NAME).stat().st_size
        except FileNotFoundError:
            return 0

    def _said_since(self, mark: int) -> str:
        """Envoy's own words about what it did not want, from its log."""
        said = ""

        def found() -> bool:
            nonlocal said
            said = _complaint(self._keeper.log_path(NAME), mark)
            return bool(said)

        self._until(found, _REASON_SECONDS)
        return said or "it does not say why"


def _routes_document(routing: Routing) -> JsonObject:
    return document([route_configuration(routing)])


def _clusters_of(routings: dict[str, Routing]) -> dict[str, JsonObject]:
    return {name: found for routing in routings.values() for name, found in sorted(clusters(routing).items())}


def _by_name(found: JsonObject) -> dict[str, JsonObject]:
    resources: JsonValue = found.get("resources", [])
    listed = resources if isinstance(resources, list) else []
    return {str(each["name"]): each for each in listed if isinstance(each, dict)}


def _require_own_address(routing: Routing, others: Iterable[Routing]) -> None:
    for other in others:
        if other.workload != routing.workload and other.listen == routing.listen:
            msg = f"{other.workload} listens at {routing.listen} already"
            raise Conflict(msg, code="traffic.listen_taken", fix="give each workload a `listen` of its own")


def _complaint(log: Path, mark: int) -> str:
    """The last line since `mark` (bytes) that tells of something wrong."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(mark if mark <= size else 0, size - _REASON_BYTES_MAX))
            text = file.read(_REASON_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ""
    for line in reversed(text.splitlines()):
        if "rejected" in line or "error" in line or "critical" in line or "Address already in use" in line:
            return line.rpartition("] ")[2].strip()[:_REASON_CHARACTERS_MAX]
    return ""


def _refusal(said: str) -> Permanent:
    msg = f"the Envoy proxy does not want it: {said}"
    return Permanent(msg, code="traffic.refused", fix="mend what it names; what was in force still is")
