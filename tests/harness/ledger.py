"""A ledger in a process of its own: effects tell it that they happened, and it never forgets and never merges.

An effect writes one short line into a FIFO, which is atomic (pipe(7)); whoever asks at the socket gets all lines. The
ledger knows nothing of Interlock, so that nothing in Interlock can make it count wrong.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 10.0
READ_BYTES = 65536


class Ledger:
    """The ledger's process, seen by a test."""

    def __init__(self, folder: Path) -> None:
        self.fifo = folder / "ledger.fifo"
        self._address = folder / "ledger.sock"
        os.mkfifo(self.fifo, 0o600)
        command = [sys.executable, "-I", str(Path(__file__).resolve()), str(self.fifo), str(self._address)]
        self._process = subprocess.Popen(command)
        end = time.monotonic() + START_SECONDS
        while not self._address.exists() and time.monotonic() < end:
            time.sleep(0.01)

    def lines(self) -> list[str]:
        """Every line there is, in the order in which they were told."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(self._address))
            with client.makefile("rb") as answer:
                return list(json.loads(answer.read()))

    def counts(self) -> dict[str, int]:
        """How often each step (`run:step`) told anything."""
        found: dict[str, int] = {}
        for line in self.lines():
            key = line.split(" ", 1)[0]
            found[key] = found.get(key, 0) + 1
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def serve(fifo: str, address: str) -> None:
    """Read the FIFO and answer at the socket, until killed."""
    told = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # our own writing end keeps it open
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(16)
    pending, lines = b"", []
    while True:
        ready, _, _ = select.select([told, listener], [], [])
        while True:  # what was told before a question belongs into its answer
            try:
                pending += os.read(told, READ_BYTES)
            except BlockingIOError:
                break
        *whole, pending = pending.split(b"\n")
        lines += [line.decode() for line in whole]
        if listener in ready:
            client, _ = listener.accept()
            with client:
                client.sendall(json.dumps(lines).encode())


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
