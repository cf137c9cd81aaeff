"""Whose sockets listen on a port of this machine, as /proc tells it."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

LISTENS = "0A"
"""TCP_LISTEN, as /proc/net/tcp writes states; proc_net_tcp in the kernel's documentation."""
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def _written(address: bytes) -> str:
    """As /proc/net writes an address: words of four bytes in the byte order of the machine."""
    return "".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", address))


LOOPBACK = socket.inet_pton(socket.AF_INET, "127.0.0.1")
EXACT = (_written(LOOPBACK), _written(bytes(10) + b"\xff\xff" + LOOPBACK))
ANY = (_written(bytes(4)), _written(bytes(16)))


def listens(pids: Iterable[int], port: int) -> bool | None:
    """Whether what is answered on 127.0.0.1 at this port is answered by one of these processes, and by no other.

    None when it cannot be known: the descriptors of a process are hidden from this account.
    """
    wanted = _listening(port)
    if wanted is None:
        return None
    held, hidden = set[str](), False
    for pid in pids:
        try:
            held |= _sockets(pid)
        except PermissionError:
            hidden = True
        if wanted and wanted <= held:
            return True
    return None if hidden else False


def _listening(port: int) -> frozenset[str] | None:
    """The inodes of the sockets that get what is sent to 127.0.0.1: those of that address, else those of any."""
    found: dict[str, set[str]] = {}
    try:
        lines = [line for name in ("tcp", "tcp6") for line in _lines(f"/proc/net/{name}")]
    except PermissionError:
        return None
    for fields in map(str.split, lines):
        address, _, number = fields[1].rpartition(":")
        if fields[3] == LISTENS and int(number, 16) == port:
            found.setdefault(address, set()).add(fields[9])
    for addresses in (EXACT, ANY):
        inodes = frozenset(inode for address in addresses for inode in found.get(address, ()))
        if inodes:
            return inodes
    return frozenset()


def _lines(path: str) -> list[str]:
    """Without the heading; none where the kernel was built without IPv6."""
    try:
        return Path(path).read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:
        return []


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets; none of one that has ended. Raises PermissionError."""
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                try:
                    match = _SOCKET.fullmatch(os.readlink(descriptor.path))  # noqa: PTH115 - thousands of them
                except FileNotFoundError:
                    continue  # closed since
                if match is not None:
                    found.add(match[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found
