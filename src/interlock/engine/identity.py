"""Who this process is, in words that a later process can check: host, boot, pid and start time."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from interlock.core.errors import Permanent
from interlock.core.model import JsonObject

START_TIME_FIELD = 19  # field 22 of /proc/PID/stat, counted behind the command name (proc(5))


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time_ticks(pid: int) -> int | None:
    """When a living process started, in clock ticks after boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD])


def process_identity() -> JsonObject:
    """The calling process, as evidence names it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": boot_id(), "pid": pid, "start": start_time_ticks(pid)}


def owner_of(identity: JsonObject) -> str:
    """The identity as the lease names it."""
    return f"{identity['host']}/{identity['boot']}/{identity['pid']}/{identity['start']}"


def is_dead(owner: str, here: JsonObject) -> bool:
    """Whether the owner of a lease is known to be gone; an owner on another host is not known to be."""
    host, boot, pid, start = owner.rsplit("/", 3)
    if host != here["host"]:
        return False
    return boot != here["boot"] or start_time_ticks(int(pid)) != int(start)


def require_dead(worker: JsonObject, here: JsonObject) -> None:
    """Make sure that the worker which started a step is gone.

    Raises: Permanent when it is alive, or lives where we cannot look. A worker that is merely stopped is alive.
    """
    if worker == here:
        return
    if not is_dead(owner_of(worker), here):
        msg = f"its worker (process {worker['pid']} on {worker['host']}) is not known to be dead"
        raise Permanent(msg, code="worker.alive", fix="end that process, then: interlock resolve N repeat|skip|undo")
