"""Which nginx processes serve, and with whom they are connected, as the kernel tells (/proc)."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interlock.adapters.keeper_tree import Seen, look, read_start, send
from interlock.core.errors import Permanent

_MASTER = b"nginx: master process"
_WORKER = b"nginx: worker process"
_LEAVING = b"nginx: worker process is shutting down"
_NAME = b" (nginx) "
_TITLE_BYTES_MAX = 4096
_TABLES = {4: "tcp", 16: "tcp6"}
"""By the bytes of an address."""
_CONNECTED = frozenset({"01", "02"})  # ESTABLISHED and SYN_SENT of tcp_states.h


@dataclass(frozen=True)
class Worker:
    """A process that serves. `is_leaving`: it finishes what it has begun, and takes nothing new."""

    pid: int
    start_ticks: int
    is_leaving: bool

    @property
    def key(self) -> tuple[int, int]:
        """Never used twice before the machine is started anew."""
        return self.pid, self.start_ticks


def master_of(pid_file: Path) -> Seen | None:
    """The master that wrote this file, if it lives; its number may be another program's by now."""
    try:
        pid = int(pid_file.read_text(encoding="ascii").strip() or "0")
    except (FileNotFoundError, ValueError):
        return None
    except PermissionError as error:
        msg = f"{pid_file} may not be read by this account"
        raise Permanent(msg, code="nginx.not_permitted", fix=f"let this account read {pid_file}") from error
    seen = look(pid) if pid else None
    return seen if seen is not None and seen.alive and _title(pid).startswith(_MASTER) else None


def workers_of(master: Seen | None, folder: Path | None = None) -> list[Worker]:
    """The workers of a master, and those that run in a folder and whose master is gone.

    Such orphans go on serving, and keep its ports.
    """
    found = []
    for seen, title in _workers():
        is_child = master is not None and seen.parent == master.pid
        if is_child or (folder is not None and _is_orphan(seen, folder)):
            found.append(Worker(seen.pid, seen.ticks, title.startswith(_LEAVING)))
    return found


def orphans_in(folder: Path) -> list[Worker]:
    """Workers that run in this folder and whose master is gone."""
    return workers_of(None, folder)


def _is_orphan(worker: Seen, folder: Path) -> bool:
    return not _title(worker.parent).startswith(_MASTER) and _runs_in(worker.pid, folder)


def tell(process: Seen | Worker, number: signal.Signals) -> bool:
    """Signal this very process; whether it was there. Raises Permanent when it is another account's."""
    try:
        return send(*process.key, number)
    except PermissionError as error:
        msg = f"nginx (process {process.pid}) belongs to another account"
        raise Permanent(msg, code="nginx.not_permitted", fix="run Interlock as that account") from error


def connections_to(address: str, processes: list[int]) -> int:
    """How many connections these processes have to an address (HOST:PORT).

    Where their descriptors may not be seen, all connections of their accounts to it are counted: never too few.
    """
    wanted = _places(address)
    tables = sorted({_TABLES[len(host)] for host, _ in wanted})
    sockets = {inode: uid for name in tables for inode, uid, place in _established(name) if place in wanted}
    if not sockets:
        return 0
    try:
        own = {inode for pid in processes for inode in _sockets_of(pid)}
    except PermissionError:
        accounts = {_account(pid) for pid in processes}
        return sum(uid in accounts for uid in sockets.values())
    return len(own & sockets.keys())


def _workers() -> Iterator[tuple[Seen, bytes]]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed of hundreds
        if not name.isdigit():
            continue
        try:
            line = read_start(f"/proc/{name}/stat", _TITLE_BYTES_MAX)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if _NAME in line:
            seen, title = Seen(int(name), line), _title(int(name))
            if seen.alive and title.startswith(_WORKER):
                yield seen, title


def _title(pid: int) -> bytes:
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            return file.read(_TITLE_BYTES_MAX)
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _runs_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it is gone, or another account's


def _account(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return -1


def _sockets_of(pid: int) -> Iterator[int]:
    """Inodes of a process's sockets. Raises PermissionError."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names are all that is needed of thousands
    except (FileNotFoundError, ProcessLookupError):
        return
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - as above
        except (FileNotFoundError, ProcessLookupError):
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _established(table: str) -> Iterator[tuple[int, int, tuple[bytes, int]]]:
    """(inode, account, the other side) of TCP connections, as in proc_net_tcp.txt of the kernel's documentation."""
    for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] in _CONNECTED:
            host, port = fields[2].split(":")
            yield int(fields[9]), int(fields[7]), (_packed(bytes.fromhex(host)), int(port, 16))


def _packed(shown: bytes) -> bytes:
    """Words are shown in the machine's own order."""
    words = [shown[start : start + 4][::-1] for start in range(0, len(shown), 4)]
    return b"".join(words) if _IS_LITTLE_ENDIAN else shown


_IS_LITTLE_ENDIAN = socket.htons(1) != 1


def _places(address: str) -> set[tuple[bytes, int]]:
    host, _, port = address.rpartition(":")
    if host == "localhost":
        host = "127.0.0.1"  # as nginx is told
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return set()  # nobody can be connected with what has no address
    return {(ipaddress.ip_address(each[4][0]).packed, int(port)) for each in found}
