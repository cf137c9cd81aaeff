"""The files of one Envoy: what was last put in force, what it reads, its logs; each is replaced as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from interlock.core.errors import Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.traffic import Routing

LOCK_SECONDS = 15.0
_LOCK_POLL_SECONDS = 0.005
_FOLDER_MODE = 0o700


class EnvoyFolder:
    """STATE/traffic/envoy.

    `routings/` holds what was acknowledged last, and is the truth; what Envoy reads is made from it. A folder that
    Envoy watches holds one file, because every rename in it lets Envoy read that file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bootstrap = path / "bootstrap.json"
        self.clusters = path / "cds" / "cds.json"
        self.listeners = path / "lds" / "lds.json"
        self._routings = path / "routings"
        self._in_process = threading.Lock()

    def make(self) -> None:
        """Make the folders, for our account alone. Raises Transient when that fails."""
        if (self.path / "lock").exists():
            return
        with _said(self.path):
            for folder in (self.clusters.parent, self.listeners.parent, self._routings, self.path / "logs"):
                folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self.path.chmod(_FOLDER_MODE)

    def routes(self, workload: str) -> Path:
        """What Envoy reads of a workload's routes."""
        return self.path / "rds" / workload / "rds.json"

    def log(self, workload: str) -> Path:
        """What Envoy writes about a workload's requests."""
        return self.path / "logs" / f"{workload}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time, of this process or another. Raises Transient when another one takes too long."""
        self.make()
        if not self._in_process.acquire(timeout=LOCK_SECONDS):
            raise _busy()
        try:
            with _said(self.path):
                descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _flock(descriptor)
                yield
            finally:
                os.close(descriptor)
        finally:
            self._in_process.release()

    # What is in force

    def routings(self) -> dict[str, Routing]:
        """Everything that was acknowledged last, by workload. Raises Permanent for a file that is no routing."""
        found = {}
        for path in sorted(self._routings.glob("*.json")):
            if (routing := self._read_routing(path)) is not None:
                found[routing.workload] = routing
        return found

    def routing(self, workload: str) -> Routing | None:
        """What was acknowledged last for this workload."""
        return self._read_routing(self._routings / f"{workload}.json")

    def _read_routing(self, path: Path) -> Routing | None:
        try:
            return Routing.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            msg = f"{path} does not say what is in force: {error}"
            raise Permanent(msg[:500], code="traffic.record", fix=f"see {path}; remove it to begin anew") from error

    @contextlib.contextmanager
    def recording(self, routing: Routing) -> Iterator[Callable[[], None]]:
        """Gives what makes this routing the one in force. The space it needs on the disk is taken before."""
        path = self._routings / f"{routing.workload}.json"
        with _said(path):
            descriptor, prepared = _open_beside(path)
        recorded = False

        def record() -> None:
            nonlocal recorded
            with _said(path):
                os.fsync(descriptor)  # it must outlive a power cut; what Envoy reads is made from it again
                prepared.replace(path)
            recorded = True

        try:
            with _said(path):
                os.write(descriptor, routing.model_dump_json().encode())
            yield record
        finally:
            os.close(descriptor)
            if not recorded:
                prepared.unlink(missing_ok=True)

    def forget(self, workload: str) -> None:
        """Nothing is in force for this workload. The folder of its routes stays: a listener that drains watches it for
        minutes, and one that comes meanwhile is told through the same watch."""
        with _said(self._routings):
            (self._routings / f"{workload}.json").unlink(missing_ok=True)
            self.routes(workload).unlink(missing_ok=True)
            for log in (self.log(workload), _older(self.log(workload))):
                log.unlink(missing_ok=True)

    # What Envoy reads

    def read(self, path: Path) -> JsonObject:
        """What Envoy would read; nothing where there is no file, or one that is no document."""
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def replace(self, path: Path, document: JsonObject) -> None:
        """Let Envoy read this. Raises Transient, and nothing has changed."""
        with _said(path):
            if not path.parent.is_dir():
                path.parent.mkdir(mode=_FOLDER_MODE, parents=True)
            _write_beside(path, json.dumps(document).encode()).replace(path)

    @contextlib.contextmanager
    def trying(self, path: Path, document: JsonObject) -> Iterator[None]:
        """Let Envoy read this; when what is inside raises, it is as before, for which no space is needed."""
        before = _link_to(path)
        try:
            self.replace(path, document)
            try:
                yield
            except BaseException:
                if before is None:
                    path.unlink(missing_ok=True)
                else:
                    before.replace(path)
                raise
        finally:
            if before is not None:
                before.unlink(missing_ok=True)

    def rotate(self, bytes_max: int) -> bool:
        """Put large logs aside, one older for each. Whether there was any: then Envoy must open its logs anew."""
        found = False
        for log in (self.path / "logs").glob("*.log"):
            if log.stat().st_size > bytes_max:
                log.replace(_older(log))
                found = True
        return found


def _older(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def _link_to(path: Path) -> Path | None:
    """Another name for the file as it is, outside of the folder that is watched."""
    other = path.parent.parent / f".{path.name}.{path.parent.name}.before"
    with _said(path):
        other.unlink(missing_ok=True)
        try:
            os.link(path, other)
        except FileNotFoundError:
            return None
    return other


def _open_beside(path: Path) -> tuple[int, Path]:
    """A new file from which a rename leads to `path`."""
    prepared = path.with_name(f".{path.name}.new")
    return os.open(prepared, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), prepared


def _write_beside(path: Path, body: bytes) -> Path:
    descriptor, prepared = _open_beside(path)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(body)
    except BaseException:
        prepared.unlink(missing_ok=True)
        raise
    return prepared


def _flock(descriptor: int) -> None:
    begun = time.monotonic()
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - begun > LOCK_SECONDS:
                raise _busy() from None
            pause.wait(_LOCK_POLL_SECONDS)
        else:
            return


def _busy() -> Transient:
    msg = "another change of traffic takes too long"
    return Transient(msg, code="traffic.busy", fix="ask again", effect_sent=False)


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """An error of the file system as ours: nothing has changed."""
    try:
        yield
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise Transient(msg, code="traffic.disk", fix="make room, or see who owns it", effect_sent=False) from error
