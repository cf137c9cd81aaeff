"""Who a guard is, so that a later worker, which may know nothing else, can prove that its whole tree is dead."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from interlock.core.errors import Permanent, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.engine.guard.process_tree import (
    ProcessStat,
    all_processes,
    cgroup_processes,
    descendants,
    end_all,
    kill_process,
    marked,
    process_stat,
    remove_cgroup,
)

MACHINE_ID = re.compile(r"[0-9a-f]{32}")
CGROUP_NAME = re.compile(r"interlock-\d+-\d+")


class GuardIdentity(Frozen):
    """A guard among all that ever ran anywhere.

    `pid` and `start_time_ticks` (proc_pid_stat(5), field 22) mean something only within one boot of one host and one
    PID namespace. `token` is the mark in the environment of what it started, and differs for each guard.
    """

    host: str
    machine: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_time_ticks: int
    cgroup: str | None
    token: str


def place() -> dict[str, str]:
    """Where process ids of this process mean something. `machine` is empty where there is no machine-id(5)."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return {
        "host": socket.gethostname(),
        "machine": machine if MACHINE_ID.fullmatch(machine) else "",
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
    }


def prove_dead(identity: JsonObject) -> None:
    """Kill a guard and everything it started, and return only when nothing of that is alive any more.

    Takes at most about 20 seconds. Stopped guards die too. A process that merely has the same id is left alone.

    Raises:
        Permanent: `guard.other_host`, nothing can be proven from here; `guard.not_permitted`, it belongs to another
            user; `guard.identity`, the record does not name a guard.
        Transient: `guard.survivors`, something does not die (yet): it waits for a disk, or belongs to another user.
    """
    guard = _validated(identity)
    if _is_from_an_earlier_boot(guard, place()):
        return
    process = process_stat(guard.pid)
    if process is not None and process.is_alive and process.start_time_ticks == guard.start_time_ticks:
        _end_stopped_tree(guard, process)
    _end(guard, lambda: _members(guard))
    if guard.cgroup is not None:
        remove_cgroup(guard.cgroup)


def _validated(identity: JsonObject) -> GuardIdentity:
    try:
        guard = GuardIdentity.model_validate(identity)
    except ValidationError as error:
        msg = f"this is not the identity of a guard: {error.error_count()} fields are missing or wrong"
        raise Permanent(msg, code="guard.identity") from error
    if guard.cgroup is not None and not CGROUP_NAME.fullmatch(Path(guard.cgroup).name):
        msg = "the record names a cgroup that no guard made; nothing of it is killed"
        raise Permanent(msg, code="guard.identity")
    return guard


def _is_from_an_earlier_boot(guard: GuardIdentity, here: dict[str, str]) -> bool:
    """Any doubt about the place is a refusal: host names repeat, and so do process ids."""
    same_host = (guard.host, guard.machine) == (here["host"], here["machine"])
    same_boot = guard.boot_id == here["boot_id"]
    # Without a machine id another boot may as well be another machine of the same name.
    rebooted = same_host and not same_boot and guard.machine != ""
    if rebooted:
        return True
    if not same_host or not same_boot or guard.pid_namespace != here["pid_namespace"]:
        msg = f"the guard ran on {guard.host}, in a place whose processes cannot be seen from here"
        raise Permanent(
            msg,
            code="guard.other_host",
            fix="make sure there that it is dead, then: interlock resolve N repeat|skip|undo",
            details={"guard": guard.model_dump(mode="json")},
        )
    return False


def _end_stopped_tree(guard: GuardIdentity, process: ProcessStat) -> None:
    """Stop the guard first: it stays the place to which orphans fall, so none can get away while they are killed."""
    try:
        kill_process(process, signal.SIGSTOP)
        _end(guard, lambda: (member for member in _members(guard) if member.key != process.key))
        kill_process(process)
    except PermissionError as error:
        msg = f"the guard (process {guard.pid}) belongs to another user, so it could not be killed"
        raise Permanent(msg, code="guard.not_permitted", fix="ask again as that user") from error


def _members(guard: GuardIdentity) -> Iterator[ProcessStat]:
    processes = all_processes()
    root = processes.get(guard.pid)
    if root is not None and root.start_time_ticks == guard.start_time_ticks:
        yield root
        yield from descendants(guard.pid, processes)
    if guard.cgroup is not None:
        yield from cgroup_processes(guard.cgroup, processes)
    yield from marked(guard.token, processes)


def _end(guard: GuardIdentity, members: Callable[[], Iterator[ProcessStat]]) -> None:
    found, survivors = end_all(members, cgroup=guard.cgroup, session=os.getsid(0))
    _reap(found, guard.pid)
    if survivors:
        msg = f"{len(survivors)} processes of the step do not die: {', '.join(map(str, survivors[:20]))}"
        raise Transient(msg, code="guard.survivors", fix="look at them with ps; then ask again")


def _reap(dead: set[tuple[int, int]], guard: int) -> None:
    """Bury those that became our children when their guard died; the guard itself is waited for by who started it."""
    for pid, start_time_ticks in dead:
        process = process_stat(pid)
        if process is None or pid == guard or process.start_time_ticks != start_time_ticks:
            continue
        if process.parent == os.getpid():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # the orphan reaper was faster
