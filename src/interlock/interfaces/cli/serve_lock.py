"""The lock of a state folder: held by its one resident process, and telling whoever finds it held by whom."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from interlock.core.errors import Conflict
from interlock.settings import Locations

ALREADY_RUNNING = "resident.running"
"""The code of the error with which a second resident process gives way to the first (see `alone`)."""
_WORDS_BYTES_MAX = 16 * 1024


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock: what it wrote into it when it started."""

    pid: int
    door: Path
    project_file: Path


@contextmanager
def alone(locations: Locations) -> Iterator[None]:
    """Hold the lock for as long as this process lives, however it ends. Raises Conflict when another one holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(locations.lock_file, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        msg = f"Interlock serves {locations.project_file} already"
        raise Conflict(
            msg,
            code="resident.running",
            fix="interlock stop, then the same again",
        ) from error
    else:
        words = {"pid": os.getpid(), "door": str(locations.door_socket), "project": str(locations.project_file)}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(words).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(locations: Locations) -> Holder | None:
    """Who holds the lock; None where nobody does, nobody can tell, or this account may not look."""
    try:
        descriptor = os.open(locations.lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parsed(os.read(descriptor, _WORDS_BYTES_MAX))
    finally:
        os.close(descriptor)
    return None


def require_here(locations: Locations) -> None:
    """Raise Conflict where the process that holds this state answers at another door.

    So it is when the project's folder was moved under a process that runs: clients look for the door by the folder's
    path, and would neither find the process nor be able to start another one.
    """
    holder = holder_of(locations)
    if holder is None or holder.door == locations.door_socket:
        return
    old = holder.project_file
    msg = f"the resident process (pid {holder.pid}) serves this state at its old place, {old.parent}"
    other_way = f"  or: interlock stop --project {old.parent}" if old.is_file() else ""
    raise Conflict(msg, code="resident.elsewhere", fix=f"stop it with: kill {holder.pid}{other_way}")


def _parsed(text: bytes) -> Holder | None:
    try:
        words = json.loads(text)
        return Holder(int(words["pid"]), Path(words["door"]), Path(words["project"]))
    except (ValueError, KeyError, TypeError):
        return None  # an older version, which wrote nothing, or one that has just begun
