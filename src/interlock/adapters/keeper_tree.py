"""Processes as /proc shows them to a keeper, and how the whole tree of a kept process is ended.

Standard library only, and of that only what is small: this is part of the keeper's own program, of which there is one
in memory for each kept process.
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Iterator
else:
    import _signal as signal  # the C half; `signal` builds enums of all signals

MARK = b"INTERLOCK_KEPT"
"""In the environment of a kept process and of what it starts: MARK=token:name."""
KILL_SECONDS = 10.0
QUIET_ROUNDS = 2
"""How often nobody must be found: one look may miss a process that forks while /proc is read."""
ENVIRONMENT_BYTES_MAX = 4 * 1024 * 1024

pidfd_open = getattr(os, "pidfd_open", None)  # absent where Python was built against an old C library
pidfd_send_signal = getattr(signal, "pidfd_send_signal", None)


class Seen:
    """One process. `pid` and `ticks`, its start after boot, name it until the machine is shut down."""

    __slots__ = ("alive", "parent", "pid", "session", "ticks")

    def __init__(self, pid: int, line: bytes) -> None:
        """Read a line of /proc/PID/stat, proc_pid_stat(5); the name may hold brackets, so from the last one on."""
        fields = line[line.rindex(b")") + 2 :].split()
        self.pid = pid
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.ticks = int(fields[19])
        # The first thread may be a zombie while others run on.
        self.alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1

    @property
    def key(self) -> tuple[int, int]:
        """Never used twice before the machine is shut down."""
        return self.pid, self.ticks


def boot_seconds() -> float:
    """Seconds since boot, suspended time included; never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_start(path: str, bytes_max: int) -> bytes:
    """The beginning of a file of /proc; OSError where it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while bytes_max > 0 and (part := os.read(descriptor, min(bytes_max, 65536))):
            parts.append(part)
            bytes_max -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def look(pid: int) -> Seen | None:
    """The process with this id, a zombie too; None when there is none."""
    try:
        return Seen(pid, read_start(f"/proc/{pid}/stat", 4096))
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid: int, ticks: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    seen = look(pid)
    return seen is not None and seen.alive and seen.ticks == ticks


def look_at_all() -> dict[int, Seen]:
    """Every process that this account may see."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  pathlib is not small
    return {seen.pid: seen for seen in found if seen is not None}


def below(root: int, processes: dict[int, Seen]) -> Iterator[Seen]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[Seen]] = {}
    for seen in processes.values():
        children.setdefault(seen.parent, []).append(seen)
    waiting = [root]
    while waiting:
        for seen in children.pop(waiting.pop(), ()):
            waiting.append(seen.pid)
            yield seen


def marked(mark: bytes, processes: dict[int, Seen]) -> Iterator[Seen]:
    """The processes with this mark in their environment, wherever they went; those of other accounts hide theirs."""
    needle = b"\0" + MARK + b"=" + mark + b"\0"
    for seen in processes.values():
        try:
            environment = read_start(f"/proc/{seen.pid}/environ", ENVIRONMENT_BYTES_MAX)
        except OSError:
            continue  # it ended, or belongs to another account
        if needle in b"\0" + environment:
            yield seen


def of_child(child: tuple[int, int], processes: dict[int, Seen]) -> Iterator[Seen]:
    """A process that leads its session, what is below it, and what is in its session."""
    root = processes.get(child[0])
    if root is not None and root.ticks == child[1]:
        yield root
        yield from below(child[0], processes)
        yield from (seen for seen in processes.values() if seen.session == child[0])


def send(pid: int, ticks: int, number: int) -> bool:
    """Signal this very process, never another that was given its id since; whether it was there."""
    descriptor = -1
    try:
        if pidfd_open is not None:
            descriptor = pidfd_open(pid)
        if not is_alive(pid, ticks):
            return False
        if descriptor >= 0 and pidfd_send_signal is not None:
            pidfd_send_signal(descriptor, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def pause(seconds: float) -> None:
    """Wait for what the kernel tells nobody about."""
    select.poll().poll(seconds * 1000)


def end_all(
    members: Callable[[], Iterable[Seen]],
    *,
    wait: Callable[[float], None] = pause,
    seconds: float = KILL_SECONDS,
) -> list[int]:
    """Kill until nobody is left.

    Args:
        members: Looks for those who must die; called anew in each round, because they may fork meanwhile.
        wait: Waits for so many seconds, and reaps.
        seconds: When to give up.

    Returns:
        The ids of those who do not die: what the kernel keeps (state D), what belongs to another account.
    """
    limit = boot_seconds() + seconds
    quiet_rounds, pause_seconds = 0, 0.001
    while True:
        alive = {seen.key: seen for seen in members() if seen.alive}
        quiet_rounds = 0 if alive else quiet_rounds + 1
        if quiet_rounds == QUIET_ROUNDS:
            return []
        if boot_seconds() >= limit:
            return sorted(pid for pid, _ in alive)
        for pid, ticks in alive:
            try:
                send(pid, ticks, signal.SIGKILL)
            except PermissionError:
                continue  # it is told as one that does not die
        wait(pause_seconds)
        pause_seconds = min(0.05, pause_seconds * 2)
