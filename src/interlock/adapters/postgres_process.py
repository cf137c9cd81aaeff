"""Tells whether a PostgreSQL server lives in a data folder, whatever its pid file claims, and signals it safely."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from interlock.core.errors import Transient
from interlock.lib.clock import Clock

POLL_SECONDS = 0.01
_PROC = Path("/proc")
_STATE_FIELD = 0  # fields of /proc/PID/stat, counted from the one after the command name (proc_pid_stat(5))
_START_FIELD = 19
_DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for all time: a pid alone may be given to another program, a pid with its start time is not.

    `start_ticks` is the start in clock ticks after boot.
    """

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return _start_ticks(self.pid) == self.start_ticks

    def send_signal(self, number: signal.Signals) -> bool:
        """Signal this process and never one that took its pid. Returns whether it was there to be signalled."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


@dataclass(frozen=True)
class PidFile:
    """What PostgreSQL writes into `postmaster.pid` (storage/pidfile.h), one fact per line.

    `pid` is the absolute value: a single-user server writes it negated. `status` is `starting`, `stopping`, `ready`
    or `standby`, and empty while the server has not got that far.
    """

    pid: int
    socket_folder: str
    status: str


def read_pid_file(data_folder: Path) -> PidFile | None:
    """The pid file of a data folder; None when there is none, or it is damaged or half written."""
    try:
        lines = (data_folder / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    try:
        pid = abs(int(lines[0]))
    except (IndexError, ValueError):
        return None
    lines += [""] * 8
    return PidFile(pid=pid, socket_folder=lines[4].strip(), status=lines[7].strip())


def find_postmaster(title: str, user_id: int, *, hint: int | None = None) -> ProcessIdentity | None:
    """The live server that was started with `cluster_name=title`.

    A process counts only when it is no zombie, runs as `user_id`, calls itself `postgres` and was given the title:
    each of these is readable without further privilege, also by root in a container without CAP_SYS_PTRACE, and none
    of them can be had by accident, by a reused pid or by another user. `hint` is the pid to look at first.
    """
    for pid in (*([] if hint is None else [hint]), *_pids()):
        identity = identify(pid)
        arguments = _arguments(pid, user_id)
        if identity is not None and _is_postgres(arguments) and f"cluster_name={title}" in arguments[1:]:
            return identity
    return None


def find_children(title: str, user_id: int) -> list[ProcessIdentity]:
    """The server processes other than the postmaster, by the title that each of them shows."""
    prefix = f"postgres: {title}:"
    found = []
    for pid in _pids():
        identity = identify(pid)
        arguments = _arguments(pid, user_id)
        if identity is not None and arguments and arguments[0].startswith(prefix):
            found.append(identity)
    return found


def find_strangers(data_folder: Path, user_id: int) -> list[ProcessIdentity]:
    """Servers that somebody started by hand on a data folder, and that know nothing of our lock.

    Where /proc shows it, the folder itself is compared, and not only its path: a container may use the same one.
    """
    found = []
    for pid in _pids():
        identity = identify(pid)
        arguments = _arguments(pid, user_id)
        if identity is None or not _is_postgres(arguments) or str(data_folder) not in arguments[1:]:
            continue
        try:
            is_same = (_PROC / str(pid) / "cwd").samefile(data_folder)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        except PermissionError:
            is_same = True
        if is_same:
            found.append(identity)
    return found


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None when there is none or it is a zombie."""
    start_ticks = _start_ticks(pid)
    return None if start_ticks is None else ProcessIdentity(pid=pid, start_ticks=start_ticks)


def try_lock(path: Path) -> int | None:
    """Take an exclusive flock(2) and return its descriptor; None when somebody holds it.

    The lock belongs to the open file, so a child that inherits the descriptor keeps it locked after we are gone, and
    the kernel frees it when the last such process ends, however it ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def exclusive(path: Path, clock: Clock, *, timeout_seconds: float, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `waiting` is called again and again for as long as somebody else has it.

    Raises:
        Transient: somebody else has held the lock for `timeout_seconds`.
    """
    begin = clock.monotonic()
    while (descriptor := try_lock(path)) is None:
        waited = clock.monotonic() - begin
        if waited > timeout_seconds:
            msg = f"another process has held {path} for {waited:.0f} seconds"
            raise Transient(
                msg,
                code="postgres.locked",
                fix=f"look who it is (`fuser {path}`) and try again when it has finished",
                effect_sent=False,
            )
        waiting()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], bool], clock: Clock, *, timeout_seconds: float) -> bool:
    """Poll until the condition holds; returns whether it did within the time."""
    deadline = clock.monotonic() + timeout_seconds
    while not condition():
        if clock.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdecimal()]  # noqa: PTH208 - thousands of Paths for naught


def _start_ticks(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if chr(fields[_STATE_FIELD][0]) in _DEAD_STATES:
        return None
    return int(fields[_START_FIELD])


def _is_postgres(arguments: list[str]) -> bool:
    return bool(arguments) and Path(arguments[0]).name == "postgres"


def _arguments(pid: int, user_id: int) -> list[str]:
    folder = _PROC / str(pid)
    try:
        if folder.stat().st_uid != user_id:
            return []
        text = (folder / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # it ended, or /proc hides it: then it is not a server of this user
    return os.fsdecode(text).rstrip("\0").split("\0")
