"""Whose port it is, is told from the sockets that processes hold, and not from who answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from interlock.adapters.listening import listens

HOLDS = (
    "import socket, sys; s = socket.socket(); s.bind((sys.argv[1], 0)); s.listen(); print(s.getsockname()[1]);"
    "sys.stdout.flush(); sys.stdin.read()"
)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - for a moment, and nothing answers
def test_a_port_belongs_to_the_process_that_listens(address: str) -> None:
    command = [sys.executable, "-S", "-c", HOLDS, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        assert listens({holder.pid, os.getpid()}, port) is True
        assert listens({os.getpid()}, port) is False
        assert listens((), port) is False
        holder.kill()
    assert listens({holder.pid, os.getpid()}, port) is False


def test_a_port_that_two_share_belongs_to_neither_alone() -> None:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        other.bind(one.getsockname())
        one.listen()
        other.listen()
        port = one.getsockname()[1]
        assert listens({os.getpid()}, port) is True
        assert listens({os.getppid()}, port) is False


@pytest.mark.skipif(not socket.has_ipv6, reason="IPv6 is absent")
def test_a_socket_of_both_families_counts() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        assert listens({os.getpid()}, both.getsockname()[1]) is True
