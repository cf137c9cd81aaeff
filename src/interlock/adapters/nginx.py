"""nginx as the data plane: shares change by a rename that its workers see at once, everything else by a reload."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interlock.adapters.keeper_tree import Seen
from interlock.adapters.nginx_configuration import Structure, generation_of, structure_of, structures_in
from interlock.adapters.nginx_hosts import IncludedNginx, NginxHost, OwnNginx, write_whole
from interlock.adapters.nginx_log import NginxLog
from interlock.adapters.nginx_processes import connections_to
from interlock.adapters.nginx_shares import Share, ShareFolder
from interlock.core.errors import Conflict, InterlockError, Permanent, Transient
from interlock.core.keeper import Keeper
from interlock.core.traffic import Applied, Routing, TrafficLog
from interlock.core.workload import ServiceWorkload, Workload
from interlock.lib.canonical import digest_of

TURN_SECONDS = 60.0
RELOAD_SECONDS = 15.0
START_SECONDS = 15.0
CLOSING_SECONDS = 0.5
"""Before a reload connections are closed after their next answer for so long: nginx would close them when they are
idle, which loses a request that is just on its way."""
DRAIN_SECONDS = 30.0
"""How long our own nginx may take to answer what it is answering, when it ends with its last workload."""
LOOK_SECONDS = 0.005
PLACES = "/usr/local/sbin:/usr/local/bin:/usr/local/nginx/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where our own nginx is looked for."""


class OneNginx:
    """One nginx, whoever runs it, and the workloads it carries; implements `core.traffic.DataPlane` for them."""

    def __init__(self, host: NginxHost, *, closing_seconds: float = CLOSING_SECONDS) -> None:
        self._host = host
        self._shares = ShareFolder(host.folder / "shares")
        self._logs = host.folder / "logs"
        self._served = host.folder / "served"
        self._closing_seconds = closing_seconds

    def ensure(self) -> None:
        """As the Protocol says; what was broken off halfway is brought to its end. Without a routing nothing runs."""
        if not self._host.installed():
            return
        with self._turn():
            in_force = self._in_force()
            if not in_force and self._end():
                return
            wanted = {name: structure_of(share.routing, _structure(share)) for name, share in in_force.items()}
            files = self._host.render([*wanted.values()])
            if dict(files) != dict(self._host.installed()):
                self._change(wanted, {name: share.routing for name, share in in_force.items()}, in_force)
            elif self._host.master() is None:
                self._start()
            elif self._read_served() != _digest(files):
                self._reload(files, [*wanted.values()])
            for name in wanted:
                self._host.rotate(self._log_path(name))

    def apply(self, routing: Routing) -> Applied:
        """As the Protocol says."""
        started = time.monotonic()
        with self._turn():
            in_force = self._in_force(besides=routing.workload)
            share = in_force.get(routing.workload)
            before = _structure(share) if share is not None else None
            structure = structure_of(routing, before)
            if share is not None and before is not None and before.digest == structure.digest:
                if share.routing != routing:
                    self._require_workers()
                    self._write(before, routing)
            else:
                _require_free(routing, in_force)
                wanted = {name: _structure(other) for name, other in in_force.items()}
                routings = {name: other.routing for name, other in in_force.items()}
                self._change({**wanted, routing.workload: structure}, {**routings, routing.workload: routing}, in_force)
        return Applied(routing=routing, version=version_of(routing), seconds=time.monotonic() - started)

    def current(self, workload: str) -> Routing | None:
        """As the Protocol says."""
        digest = self._recorded().get(workload)
        share = self._shares.read(workload, digest) if digest is not None else None
        return share.routing if share is not None else None

    def in_flight(self, workload: str, arm: str) -> int:
        """Connections of its workers to that arm. One that is idle counts too, and is closed within a second."""
        addresses = {
            found.address
            for share in self._shares.all_of(workload)
            for found in (*share.routing.arms, *share.structure.arms)
            if found.name == arm
        }
        workers = [worker.pid for worker in self._host.workers()]
        return sum(connections_to(address, workers) for address in addresses)

    def log(self, workload: str, *, from_end: bool) -> TrafficLog:
        """As the Protocol says."""
        return NginxLog(self._log_path(workload), from_end=from_end)

    def require_read(self, workload: str) -> None:
        """As the Protocol says."""
        self._host.require_read(("http.conf", f"{workload}.conf"))

    def forget(self, workload: str) -> None:
        """As the Protocol says; old workers end what they have begun, and our own nginx ends with its last workload."""
        with self._turn():
            in_force = self._in_force(besides=workload)
            if workload not in self._recorded():
                return
            left = {name: share for name, share in in_force.items() if name != workload}
            wanted = {name: _structure(share) for name, share in left.items()}
            self._change(wanted, {name: share.routing for name, share in left.items()}, in_force)
            if not left:
                self._end()

    # What is in force.

    def _recorded(self) -> dict[str, str]:
        installed = self._host.installed()
        return structures_in(installed.get("nginx.conf") or installed.get("http.conf", ""))

    def _in_force(self, *, besides: str | None = None) -> dict[str, Share]:
        """Raises Permanent when it is not known what another workload has: it would lose it."""
        found = {}
        for name, digest in self._recorded().items():
            share = self._shares.read(name, digest)
            if share is not None:
                found[name] = share
            elif name != besides:
                msg = f"it is not known how requests to {name} are shared: {self._shares.path} lost it"
                raise Permanent(msg, code="traffic.record", fix=f"put the routing of {name} in force anew")
        return found

    def _write(self, structure: Structure, routing: Routing) -> None:
        files = structure.files_for(routing)
        if files is None:
            msg = f"the shares of {routing.workload} need another configuration"
            raise Permanent(msg, code="bug")
        share = Share(routing=routing, structure=structure.routing, fine=structure.fine)
        self._shares.write(routing.workload, structure.digest, share, files)
        kept = self._shares.links()
        self._shares.clean(kept)

    # Changing it.

    def _change(
        self, wanted: Mapping[str, Structure], routings: Mapping[str, Routing], in_force: Mapping[str, Share]
    ) -> None:
        """Another configuration, tested first. Where the one that runs can say the new shares they count at once."""
        before = {name: _structure(share) for name, share in in_force.items()}
        files = self._host.render([*wanted.values()])
        for name, structure in wanted.items():
            if name not in before or before[name].digest != structure.digest:
                self._write(structure, routings[name])
            self._log_path(name).touch(mode=0o600)
        restore = self._host.install(files)
        changed = []
        try:
            for name, structure in before.items():
                same = name in wanted and wanted[name].digest == structure.digest
                if name in routings and not same and structure.files_for(routings[name]) is not None:
                    changed.append(name)
                    self._write(structure, routings[name])
            self._reload(files, [*before.values()])
        except InterlockError:
            restore()
            self._served.unlink(missing_ok=True)  # it may still take what it was told: the next look makes sure
            if not in_force:
                self._host.stop()
            for name in changed:
                self._write(before[name], in_force[name].routing)
            raise
        links = {f"{name}-{structure.digest}" for each in (before, wanted) for name, structure in each.items()}
        self._shares.clean(links)

    def _reload(self, files: Mapping[str, str], before: list[Structure]) -> None:
        master = self._host.master()
        if master is None:
            self._start()
        else:
            workers = self._host.workers()
            generation, said = generation_of(before), self._host.said()
            try:
                if before and self._closing_seconds:
                    self._shares.close_connections(generation)
                    _pause(self._closing_seconds)
                self._host.reload(master)
                self._wait_for_new_workers(master, {worker.key for worker in workers}, said)
            finally:
                self._shares.keep_connections(generation)
        write_whole(self._served, _digest(files))

    def _end(self) -> bool:
        """With nothing left to serve, and after what is in flight; an operator's goes on, and False is returned."""
        limit = time.monotonic() + DRAIN_SECONDS
        while self._host.is_ours and time.monotonic() < limit:
            if not any(worker.is_leaving for worker in self._host.workers()):
                break
            _pause(LOOK_SECONDS)
        self._host.stop()
        if self._host.is_ours:
            self._host.forget()
            self._served.unlink(missing_ok=True)
        return self._host.is_ours

    def _wait_for_new_workers(self, master: Seen, old: set[tuple[int, int]], said: int) -> None:
        """In force is what every worker serves that still takes requests."""
        limit = time.monotonic() + RELOAD_SECONDS
        while True:
            serving = {worker.key for worker in self._host.workers() if not worker.is_leaving}
            if serving and not serving & old:
                return
            if words := self._host.complaints(said):
                msg = f"nginx does not take its new configuration: {words}"
                raise Permanent(
                    msg, code="traffic.refused", fix="mend what it names; what was in force before still is"
                )
            if time.monotonic() >= limit:
                fix = "look into its error log; what was in force before still is"
                msg = f"nginx (process {master.pid}) did not take its new configuration in {RELOAD_SECONDS:g} s"
                raise Transient(msg, code="traffic.unacknowledged", fix=fix)
            _pause(LOOK_SECONDS)

    def _start(self) -> None:
        said = self._host.said()
        self._host.start()
        limit = time.monotonic() + START_SECONDS
        while True:
            if self._host.master() is not None and self._is_served():
                break
            if words := self._host.complaints(said):
                msg = f"nginx does not start: {words}"
                raise Permanent(msg, code="traffic.refused", fix="mend what it names")
            if time.monotonic() >= limit:
                msg = f"nginx did not start in {START_SECONDS:g} s"
                raise Transient(
                    msg, code="traffic.proxy_silent", fix=f"see {self._logs}/error.log, and `interlock status`"
                )
            _pause(LOOK_SECONDS)
        write_whole(self._served, _digest(self._host.installed()))

    def _require_workers(self) -> None:
        if self._host.master() is None and not self._is_served():
            msg = "nginx does not run: nobody would notice the change"
            raise Transient(msg, code="traffic.proxy_silent", effect_sent=False, fix="see `interlock status`")

    def _is_served(self) -> bool:
        return any(not worker.is_leaving for worker in self._host.workers())

    def _read_served(self) -> str:
        try:
            return self._served.read_text(encoding="ascii")
        except FileNotFoundError:
            return ""

    def _log_path(self, workload: str) -> Path:
        return self._logs / f"{workload}.log"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One change at a time, whoever makes it."""
        self._host.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._shares.make()
        self._logs.mkdir(mode=0o711, exist_ok=True)
        descriptor = os.open(self._host.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            limit = time.monotonic() + TURN_SECONDS
            while not _is_locked(descriptor):
                if time.monotonic() >= limit:
                    msg = "somebody else is changing how nginx shares requests"
                    raise Transient(msg, code="traffic.busy", effect_sent=False, fix="ask again")
                _pause(LOOK_SECONDS)
            yield
        except OSError as error:
            msg = f"what nginx reads cannot be written below {self._host.folder}: {error.strerror}"
            raise Transient(msg, code="traffic.disk", fix=f"df -h {self._host.folder}") from error
        finally:
            os.close(descriptor)


class Nginx:
    """The nginx of each workload: an operator's where the project declares a folder that it includes, or else our own.

    Args:
        own: Our own.
        workloads: What the project declares, by name.
    """

    def __init__(self, own: OneNginx, workloads: Callable[[], Mapping[str, Workload]]) -> None:
        self._own = own
        self._workloads = workloads
        self._others: dict[tuple[str, tuple[str, ...]], OneNginx] = {}

    def ensure(self) -> None:
        """Ours, and then what operators' include; each is tried, and the first trouble is told."""
        planes = {id(plane): plane for plane in (self._own, *map(self._of, self._workloads()))}
        troubles: list[InterlockError] = []
        for plane in planes.values():
            try:
                plane.ensure()
            except InterlockError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def apply(self, routing: Routing) -> Applied:
        """As the Protocol says."""
        return self._of(routing.workload).apply(routing)

    def current(self, workload: str) -> Routing | None:
        """As the Protocol says."""
        return self._of(workload).current(workload)

    def in_flight(self, workload: str, arm: str) -> int:
        """As the Protocol says."""
        return self._of(workload).in_flight(workload, arm)

    def log(self, workload: str, *, from_end: bool) -> TrafficLog:
        """As the Protocol says."""
        return self._of(workload).log(workload, from_end=from_end)

    def require_read(self, workload: str) -> None:
        """As the Protocol says."""
        self._of(workload).require_read(workload)

    def forget(self, workload: str) -> None:
        """As the Protocol says."""
        self._of(workload).forget(workload)

    def _of(self, workload: str) -> OneNginx:
        declared = self._workloads().get(workload)
        if not isinstance(declared, ServiceWorkload) or declared.traffic.include_folder is None:
            return self._own
        key = (declared.traffic.include_folder, declared.traffic.nginx_command)
        if key not in self._others:
            self._others[key] = OneNginx(IncludedNginx(Path(key[0]), key[1]))
        return self._others[key]


def nginx_plane(folder: Path, keeper: Keeper, workloads: Callable[[], Mapping[str, Workload]]) -> Nginx:
    """Our own nginx below `folder`, and those of operators."""
    return Nginx(OneNginx(OwnNginx(folder, keeper, lambda: shutil.which("nginx", path=PLACES))), workloads)


def version_of(routing: Routing) -> str:
    """What is acknowledged: a digest of the routing."""
    return digest_of(routing.model_dump(mode="json"))[:20]


def _structure(share: Share) -> Structure:
    return Structure(share.structure, share.fine)


def _digest(files: Mapping[str, str]) -> str:
    return digest_of(dict(files))[:20]


def _require_free(routing: Routing, in_force: Mapping[str, Share]) -> None:
    for name, share in in_force.items():
        if name != routing.workload and share.routing.listen == routing.listen:
            msg = f"{routing.listen} is where users of {name} come"
            raise Conflict(msg, code="traffic.listen_taken", fix="give each workload an address of its own")


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pause(seconds: float) -> None:
    """Wait for what the kernel tells nobody about."""
    select.poll().poll(seconds * 1000)
