"""Adopts the orphans of guards that were killed, kills them and buries them, beside subprocess and asyncio.

A process that has children of its own may not simply wait for any child: it would take the exit codes that
`subprocess` and `asyncio` are waiting for. Only those are buried that were certainly born elsewhere.
"""

from __future__ import annotations

import ctypes
import os

from interlock.core.errors import Permanent
from interlock.engine.guard.process import PR_SET_CHILD_SUBREAPER
from interlock.engine.guard.process_tree import (
    MARK,
    ProcessStat,
    all_processes,
    descendants,
    kill_process,
    process_stat,
    read_bytes,
)


def become_subreaper() -> None:
    """From now on orphans among our descendants become our children, not those of process 1 (prctl(2)).

    Raises:
        Permanent: The kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        msg = f"this process cannot become a child subreaper: {os.strerror(ctypes.get_errno())}"
        raise Permanent(msg, code="guard.no_subreaper")


class OrphanReaper:
    """Call `sweep` on a timer, every few seconds, in the process that became the subreaper."""

    def __init__(self) -> None:
        self._born_elsewhere: set[tuple[int, int]] = set()

    def sweep(self) -> int:
        """Kill adopted processes of steps (their guard is dead, so the step has ended), and bury adopted zombies.

        A child is adopted when an earlier sweep saw it under another parent, when it is in a session that is neither
        ours nor its own, or when it carries a step's mark: a process that we start ourselves is none of these. What
        is not certain stays a zombie: exit codes of our own children are worth more.

        Returns:
            How many were buried.
        """
        own = os.getpid()
        processes = all_processes()
        below = list(descendants(own, processes))
        adopted = [process for process in below if process.parent == own and self._is_adopted(process)]
        for process in adopted:
            if process.is_alive and _carries_mark(process.pid):
                _kill(process)
        buried = sum(_bury(process) for process in adopted)
        known = {process.key for process in below}
        self._born_elsewhere &= known
        self._born_elsewhere |= {process.key for process in below if process.parent != own}
        self._born_elsewhere |= {process.key for process in adopted}
        return buried

    def _is_adopted(self, process: ProcessStat) -> bool:
        if process.key in self._born_elsewhere:
            return True
        if process.session not in (os.getsid(0), process.pid):
            return True
        return _carries_mark(process.pid)


def _carries_mark(pid: int) -> bool:
    """Whether a process has a mark that is not our own; a step of another Interlock may have started us."""
    try:
        theirs = _marks(read_bytes(f"/proc/{pid}/environ"))
    except OSError:
        return False
    return bool(theirs - _marks(read_bytes("/proc/self/environ")))


def _marks(environment: bytes) -> set[bytes]:
    return {entry for entry in environment.split(b"\0") if entry.startswith(f"{MARK}=".encode())}


def _kill(process: ProcessStat) -> None:
    try:
        kill_process(process)
    except PermissionError:
        return  # another user's; a takeover reports it as a survivor


def _bury(process: ProcessStat) -> bool:
    current = process_stat(process.pid)
    if current is None or current.key != process.key or current.is_alive:
        return False
    try:
        return os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
    except ChildProcessError:
        return False  # `prove_dead` was faster
