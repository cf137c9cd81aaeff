"""Processes as /proc shows them, and how to end a whole tree of them; shared by the guard and by a takeover.

Standard library only, and of that only what loads quickly (not pathlib): the guard pays for each import at each
effect.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Iterator
else:
    import _signal as signal  # the C half; `signal` builds enums for 3 ms at each start

MARK = "INTERLOCK_STEP"
"""In the environment of the effect and of what it starts: MARK=token."""
GUARD_MARK = "INTERLOCK_GUARD"
"""The same for the guard itself, and for its child until that has become the effect."""
KILL_SECONDS = 10.0
QUIET_ROUNDS = 2
"""How often nobody must be found: one look may miss a process that forks while /proc is read."""
FILE_BYTES_MAX = 16 * 1024 * 1024

pidfd_open = getattr(os, "pidfd_open", None)  # absent where Python was built against an old C library
pidfd_send_signal = getattr(signal, "pidfd_send_signal", None)


def boot_seconds() -> float:
    """Seconds since boot, suspended time included: the clock of every lease."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_bytes(path: str | bytes, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """The beginning of a file of /proc, /sys or /etc; OSError where it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(descriptor, bytes_max)
    finally:
        os.close(descriptor)


def write_bytes(path: str, content: bytes) -> None:
    """Give a file of /sys its value; OSError where the kernel refuses it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, bytes_max: int) -> bytes:
    """What is left to read from a descriptor, at most `bytes_max`."""
    parts = []
    while bytes_max > 0:
        part = os.read(descriptor, min(bytes_max, 65536))
        if not part:
            break
        parts.append(part)
        bytes_max -= len(part)
    return b"".join(parts)


class ProcessStat:
    """Who a process is and where it stands. `pid` and `start_time_ticks` name it for the time from boot to shutdown."""

    __slots__ = ("group", "is_alive", "parent", "pid", "session", "start_time_ticks")

    def __init__(self, pid: int, line: bytes) -> None:
        """Read a line of /proc/PID/stat, proc_pid_stat(5).

        The name may hold blanks and brackets, so the fields are counted from the last bracket: state is the third,
        num_threads the 20th, starttime the 22nd.
        """
        fields = line[line.rindex(b")") + 2 :].split()
        self.pid = pid
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start_time_ticks = int(fields[19])
        # The first thread may be a zombie while others run on.
        self.is_alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1

    @property
    def key(self) -> tuple[int, int]:
        """Process id and start time: never used twice."""
        return self.pid, self.start_time_ticks


def process_stat(pid: int) -> ProcessStat | None:
    """The process with this id, a zombie too; None when there is none."""
    try:
        return ProcessStat(pid, read_bytes(f"/proc/{pid}/stat", 4096))
    except (FileNotFoundError, ProcessLookupError):
        return None


def all_processes() -> dict[int, ProcessStat]:
    """Every process that this user may see."""
    found = (process_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  see above
    return {process.pid: process for process in found if process is not None}


def descendants(root: int, processes: dict[int, ProcessStat]) -> Iterator[ProcessStat]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[ProcessStat]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    waiting = [root]
    while waiting:
        for process in children.pop(waiting.pop(), ()):
            waiting.append(process.pid)
            yield process


def marked(token: str, processes: dict[int, ProcessStat]) -> Iterator[ProcessStat]:
    """The processes that carry a step's mark, wherever they went.

    The environments of other users' processes cannot be read: those are found by descent and cgroup only.
    """
    needles = [f"\0{name}={token}\0".encode() for name in (MARK, GUARD_MARK)]
    for process in processes.values():
        try:
            environment = b"\0" + read_bytes(f"/proc/{process.pid}/environ")
        except OSError:
            continue  # it ended, or belongs to another user
        if any(needle in environment for needle in needles):
            yield process


def cgroup_processes(cgroup: str, processes: dict[int, ProcessStat]) -> Iterator[ProcessStat]:
    """The processes of a cgroup; none when the cgroup is gone."""
    try:
        members = read_bytes(f"{cgroup}/cgroup.procs").split()
    except OSError:
        return  # removed, and so empty
    for member in members:
        process = processes.get(int(member)) or process_stat(int(member))
        if process is not None:
            yield process


def kill_process(process: ProcessStat, number: int = signal.SIGKILL) -> None:
    """Signal this very process, never another one that was given its id since. PermissionError passes through."""
    descriptor = None
    try:
        if pidfd_open is not None:
            descriptor = pidfd_open(process.pid)
        current = process_stat(process.pid)
        if current is None or current.key != process.key:
            return
        if descriptor is not None and pidfd_send_signal is not None:
            pidfd_send_signal(descriptor, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return  # what is asked for has happened
    finally:
        if descriptor is not None:
            os.close(descriptor)


def kill_group(process: ProcessStat) -> None:
    """Kill all of a process's group in one call, between which and itself no fork can slip.

    A process that forks and exits over and over is seldom where the last look at /proc saw it; its group is.
    """
    current = process_stat(process.pid)
    if current is None or current.key != process.key or current.group != process.group or current.group <= 1:
        return
    try:
        os.killpg(process.group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # ended meanwhile, or all members belong to another user: `kill_process` will tell


def kill_cgroup(cgroup: str) -> None:
    """Let the kernel kill a cgroup at once; where it cannot (before Linux 5.14) its members are killed one by one."""
    try:
        write_bytes(f"{cgroup}/cgroup.kill", b"1")
    except OSError:
        return  # not supported, or removed meanwhile: the caller looks again


def end_all(
    members: Callable[[], Iterable[ProcessStat]],
    *,
    cgroup: str | None,
    session: int,
    pause: Callable[[float], None] = time.sleep,
    seconds: float = KILL_SECONDS,
) -> tuple[set[tuple[int, int]], list[int]]:
    """Kill until nobody is left.

    Args:
        members: Looks for those who must die; called anew in each round, because they may fork meanwhile.
        cgroup: The folder of their cgroup, if they have one.
        session: A session that is not theirs: its groups are spared.
        pause: Waits for so many seconds, and reaps.
        seconds: When to give up.

    Returns:
        Who was found alive, and the ids of those who still are: what the kernel keeps (state D), what belongs to
        another user.
    """
    found: set[tuple[int, int]] = set()
    limit = boot_seconds() + seconds
    quiet_rounds = 0
    pause_seconds = 0.001
    while True:
        alive = [process for process in members() if process.is_alive]
        quiet_rounds = 0 if alive else quiet_rounds + 1
        if quiet_rounds == QUIET_ROUNDS:
            return found, []
        if boot_seconds() >= limit:
            return found, sorted({process.pid for process in alive})
        found.update(process.key for process in alive)
        if cgroup is not None and alive:
            kill_cgroup(cgroup)
        for group in {process.group: process for process in alive if process.session != session}.values():
            kill_group(group)
        for process in alive:
            try:
                kill_process(process)
            except PermissionError:
                continue  # counted as a survivor if it stays
        pause(pause_seconds)
        pause_seconds = min(0.05, pause_seconds * 2)


def own_cgroup_folder() -> str | None:
    """The folder of this process's cgroup v2, also in the hybrid layout (`unified`); None where it is not mounted."""
    own = [line[3:] for line in read_bytes("/proc/self/cgroup").split(b"\n") if line.startswith(b"0::")]
    if not own or b".." in own[0]:
        return None
    for line in read_bytes("/proc/self/mountinfo").split(b"\n"):
        place, _, kind = line.partition(b" - ")
        if kind.startswith(b"cgroup2 "):
            root, mounted = place.split(b" ")[3:5]
            if root != b"/" and not (own[0] + b"/").startswith(root + b"/"):
                return None
            below = own[0] if root == b"/" else own[0][len(root) :]
            return os.fsdecode(mounted.replace(b"\\040", b" ") + below.rstrip(b"/"))
    return None


def make_cgroup(name: str) -> str | None:
    """A new cgroup below our own, or None where the system does not allow it: best effort, recorded in the identity."""
    try:
        parent = own_cgroup_folder()
        if parent is None or not os.access(f"{parent}/cgroup.procs", os.W_OK):
            return None
        os.mkdir(f"{parent}/{name}", 0o755)  # noqa: PTH102  see above
    except OSError:
        return None
    return f"{parent}/{name}"


def remove_cgroup(cgroup: str) -> None:
    """Remove an empty cgroup. The dead may keep it busy for a moment; one that stays is empty and harms nobody."""
    for attempt in range(10):
        try:
            os.rmdir(cgroup)  # noqa: PTH106  see above
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            time.sleep(0.0005 * 2**attempt)
        else:
            return
