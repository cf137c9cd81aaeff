"""Finds the resident process, starts it when none runs, and replaces one of an older version."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interlock import __version__
from interlock.core.environment import require_environment
from interlock.core.errors import Conflict, Denied, Permanent, Transient
from interlock.interfaces.cli.answer import write_note
from interlock.interfaces.cli.patience import Patience
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.serve_lock import ALREADY_RUNNING, holder_of, require_here
from interlock.interfaces.errors import CONFLICT
from interlock.interfaces.local.client import Connection, NotRunning
from interlock.interfaces.local.protocol import PROTOCOL, decode_frame, error_from_json
from interlock.interfaces.messages import say
from interlock.settings import Locations, Settings

if TYPE_CHECKING:
    from io import FileIO

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 60.0
LOG_BYTES_MAX = 1024 * 1024

_WORD_BYTES_MAX = 64 * 1024
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 8 * 1024
_LOOK_AGAIN_SECONDS = 0.1
_TRY_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Resident:
    """A connection to a process that speaks our protocol, and what it said about itself."""

    connection: Connection
    hello: Record


def connect(locations: Locations, settings: Settings) -> Resident:
    """Knock; start the resident process when nobody is in.

    Raises:
        Denied: The door belongs to somebody else, or is closed to this account.
        Permanent: The resident process does not start; the message holds the end of its log.
        Transient: It does not get ready in `START_TIMEOUT_SECONDS`.
        Conflict: The process that runs speaks another protocol and is not ours to replace.
    """
    resident = attach(locations) or start(locations, settings)
    require_environment(resident.hello.record("project").text("environment") or None, settings.environment)
    theirs = resident.hello.text("version")
    if theirs == __version__:
        return resident
    return _other_version(resident, theirs, locations, settings)


def attach(locations: Locations) -> Resident | None:
    """A connection to the process that runs, or None.

    Raises: Conflict when one runs on this state, and answers somewhere else because the folder was moved.
    """
    try:
        connection = Connection(locations.door_socket, trusted_uids=locations.trusted_uids())
    except NotRunning:
        require_here(locations)
        return None
    return Resident(connection, Record(connection.call("hello")))


def start(locations: Locations, settings: Settings) -> Resident:
    """Start the resident process and wait until it answers. Two who start it at once end up with the same one.

    A process that holds the lock already is either starting, and will answer, or stopping: then we take its place.
    """
    _require_own(locations)
    locations.make_folders()
    said_before = locations.log_file.stat().st_size if locations.log_file.exists() else 0
    exit_code: int | None = CONFLICT
    with Patience(say("starting Interlock")) as patience:
        while exit_code == CONFLICT and patience.elapsed_seconds < START_TIMEOUT_SECONDS:
            started = _start_once(locations, settings, patience)
            if isinstance(started, Resident):
                return started
            exit_code = started
    if exit_code is None or exit_code == CONFLICT:
        msg = f"the resident process is not ready after {START_TIMEOUT_SECONDS:.0f} seconds"
        holder = holder_of(locations)
        fix = f"look at {locations.log_file}, and ask again"
        fix += f"; if it hangs: kill {holder.pid}" if holder is not None else ""
        raise Transient(msg, code="resident.slow", fix=fix)
    tail = _log_tail(locations, said_before)
    # After a traceback stands our own sentence about it, which says nothing of the cause.
    causes = [line for line in tail if say("this is a bug in Interlock; the lines above say where") not in line]
    msg = "the resident process did not start" + (f": {causes[-1].strip()}" if causes else "")
    fix = f"interlock serve; its log is {locations.log_file}"
    raise Permanent(msg, code="resident.failed", fix=fix, details={"log": tail})


def _start_once(locations: Locations, settings: Settings, patience: Patience) -> Resident | int | None:
    """The process that answers; or the exit code of ours, None while it is still starting when patience ends."""
    ready, told = os.pipe()
    with open(ready, "rb", buffering=0) as readiness:  # noqa: PTH123
        try:
            process = _spawn(locations, settings, told)
        finally:
            os.close(told)
        gave_way: float | None = None
        while patience.elapsed_seconds < START_TIMEOUT_SECONDS:
            resident = attach(locations)
            if resident is not None:
                # It is meant to outlive us; without this Python would complain that nobody waited for it.
                process.returncode = process.poll() or 0
                return resident
            if process.poll() is None:
                _raise_failure(_await_word(readiness))
                continue
            gave_way = gave_way or patience.elapsed_seconds
            if process.returncode != CONFLICT or patience.elapsed_seconds > gave_way + _TRY_AGAIN_SECONDS:
                break
            select.select([], [], [], _LOOK_AGAIN_SECONDS)
        return process.poll()


def stop(resident: Resident, *, acting_as: str | None = None) -> int:
    """Ask the process to stop and wait until it is gone; returns its pid.

    Raises: Denied (policy, or not ours), Transient (it still runs after `STOP_TIMEOUT_SECONDS`).
    """
    pid = resident.connection.peer.pid
    # The descriptor names this very process, so that a reused pid cannot deceive us.
    with open(os.pidfd_open(pid), "rb", buffering=0) as gone:  # noqa: PTH123
        resident.connection.call("stop", acting_as=acting_as)
        resident.connection.close()
        with Patience(say("waiting for what runs to reach a safe place")) as patience:
            while not select.select([gone], [], [], _LOOK_AGAIN_SECONDS)[0]:
                if patience.elapsed_seconds > STOP_TIMEOUT_SECONDS:
                    msg = f"the resident process (pid {pid}) still runs after {STOP_TIMEOUT_SECONDS:.0f} seconds"
                    raise Transient(msg, code="resident.stopping", fix="interlock status shows what it still does")
    return pid


def _other_version(resident: Resident, theirs: str, locations: Locations, settings: Settings) -> Resident:
    """An older process of ours is replaced, which loses no Run; any other one is left alone."""
    uid = resident.connection.peer.uid
    if _newer(theirs, __version__):
        _require_protocol(resident, theirs)
        return resident
    if uid != os.geteuid():
        _require_protocol(resident, theirs)
        write_note(say("Interlock {theirs} still runs here, and this is {ours}", theirs=theirs, ours=__version__))
        return resident
    write_note(say("Interlock {theirs} still runs; replacing it by {ours}", theirs=theirs, ours=__version__))
    stop(resident)
    return start(locations, settings)


def _require_protocol(resident: Resident, theirs: str) -> None:
    if resident.hello.number("protocol") != PROTOCOL:
        msg = f"the resident process is Interlock {theirs}, which does not understand {__version__}"
        raise Conflict(msg, code="protocol.version", fix="use the same version on both sides")


def _newer(one: str, other: str) -> bool:
    def parts(version: str) -> list[int]:
        return [int(part) for part in version.split(".") if part.isdigit()]

    return parts(one) > parts(other)


def _require_own(locations: Locations) -> None:
    try:
        owner = locations.state_folder.lstat().st_uid
    except FileNotFoundError:
        return
    except PermissionError:
        owner = -1
    if owner != os.geteuid():
        msg = f"Interlock does not run here, and {locations.state_folder} belongs to another account"
        raise Denied(msg, code="resident.not_ours", fix="ask that account's owner to run: interlock serve")


def _spawn(locations: Locations, settings: Settings, told: int) -> subprocess.Popen[bytes]:
    """Detached: own session, no terminal, no descriptor of ours but the pipe that says `ready`."""
    own = {"INTERLOCK_STATE_FOLDER": settings.state_folder, "INTERLOCK_RUNTIME_FOLDER": settings.runtime_folder}
    environment = dict(settings.resident_environment) | {name: str(path) for name, path in own.items() if path}
    if settings.environment is not None:
        environment["INTERLOCK_ENVIRONMENT"] = settings.environment
    # -P: the folder one happens to stand in must not be searched for modules.
    command = [sys.executable, "-P", "-m", "interlock", "serve", "--project", str(locations.project_file)]
    with _open_log(locations) as log:
        return subprocess.Popen(
            [*command, "--background-child", str(told)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
            pass_fds=(told,),
        )


def _open_log(locations: Locations) -> FileIO:
    """The log, emptied into `serve.log.1` when it has grown."""
    log = locations.log_file
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(log, flags, 0o600), "ab", buffering=0)  # noqa: PTH123 - the caller closes it


def _await_word(readiness: FileIO) -> bytes:
    """What the child says: nothing yet, that it is ready, or why it does not start."""
    if not select.select([readiness], [], [], _LOOK_AGAIN_SECONDS)[0]:
        return b""
    word = readiness.read(_WORD_BYTES_MAX) or b""
    if not word:
        select.select([], [], [], _LOOK_AGAIN_SECONDS)  # it closed the pipe and is about to end
    return word


def _raise_failure(word: bytes) -> None:
    """Raise the error that kept the child from starting, unless it gave way to another one."""
    if word.startswith(b"{"):
        error = error_from_json(decode_frame(word))
        if error.code != ALREADY_RUNNING:
            raise error


def _log_tail(locations: Locations, said_before: int) -> list[str]:
    """What the log says since the start; the whole of it where it was put away in between."""
    try:
        size = locations.log_file.stat().st_size
        with locations.log_file.open("rb") as log:
            log.seek(max(said_before if said_before <= size else 0, size - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.strip()][-_LOG_TAIL_LINES:]
