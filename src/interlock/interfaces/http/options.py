"""What the process that answers HTTP is told by the resident process when it starts, and again at every SIGHUP."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from interlock.core.http import HttpLimits, Tls
from interlock.core.model import Frozen

LISTEN_DEFAULT = "127.0.0.1:7410"
READY = b"1"
"""What a front says when it answers for the first time."""


class FrontOptions(Frozen):
    """Nothing in it is secret; the file is of mode 0600 because nobody else has business with it.

    `descriptor` is the listening socket, which the resident process opened: while the front is replaced, whoever
    knocks waits in its queue.
    """

    door: Path
    trusted_uids: frozenset[int]
    descriptor: int
    address: str
    lock: Path
    hosts: tuple[str, ...] = ()
    tls: Tls | None = None
    limits: HttpLimits = HttpLimits()

    def write(self, path: Path) -> None:
        """Replace the file at once."""
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - the descriptor has the mode
            file.write(self.model_dump_json())
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> FrontOptions:
        """What `write` wrote."""
        return cls.model_validate_json(path.read_bytes())


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, as interlock.yaml and `--listen` have it; `[::1]:7410` for IPv6."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
