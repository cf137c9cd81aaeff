"""Users and versions for measurements of traffic, each in a process of its own so that nobody waits for another.

As programs: `python -m bench.traffic_load serve VERSION PORT`, and `... ask PORT CONNECTIONS RECORD`, which asks until
its standard input ends and then writes what it saw.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from interlock.engine.loop import run_loop

ROOT = Path(__file__).parents[1]
THOUGHT_SECONDS = 0.001
"""Between two requests of one user: what is measured is the change, and not how long users wait for each other."""
_FIELDS = 4
_FAILED = -1.0
_HEAD_BYTES_MAX = 64 * 1024


class Seen(NamedTuple):
    """One request, by CLOCK_MONOTONIC: which version answered (its digits as a number), and how."""

    begun: float
    ended: float
    version: float
    status: float


@dataclass(frozen=True)
class Users:
    """Somebody who asks again and again, on so many connections."""

    process: subprocess.Popen[bytes]
    record: Path

    def stop(self) -> list[Seen]:
        """All that they saw, in the order in which it ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(30)
        found = array.array("d", self.record.read_bytes())
        rows = (Seen(*found[at : at + _FIELDS]) for at in range(0, len(found), _FIELDS))
        return sorted(rows, key=lambda row: row.ended)


@contextlib.contextmanager
def users(port: int, connections: int, record: Path) -> Iterator[Users]:
    """They ask from now on, each without a cookie: everybody is somebody new."""
    with _program("ask", str(port), str(connections), str(record)) as process:
        yield Users(process, record)


@contextlib.contextmanager
def version(number: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A version that answers at once and says its number. After SIGUSR1 it answers 503, after SIGUSR2 200 again."""
    with _program("serve", str(number), str(port)) as process:
        yield process


@contextlib.contextmanager
def _program(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "bench.traffic_load", *words]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is not None:
            process.stdout.readline()  # it is ready
        try:
            yield process
        finally:
            process.kill()


class _Version(asyncio.Protocol):
    """Answers each request head that comes; there are no bodies."""

    status = b"200 OK"

    def __init__(self, rest: bytes) -> None:
        self._rest = rest
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._begun = (self._begun + data).split(b"\r\n\r\n")
        self._transport.write((b"HTTP/1.1 " + self.status + self._rest) * len(heads))


async def _serve(number: str, port: int) -> None:
    rest, loop = f"\r\nx-version: {number}\r\ncontent-length: 2\r\n\r\nok".encode(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, setattr, _Version, "status", b"503 Failing")
    loop.add_signal_handler(signal.SIGUSR2, setattr, _Version, "status", b"200 OK")
    server = await loop.create_server(lambda: _Version(rest), "127.0.0.1", port)
    print("ready", flush=True)
    async with server:
        await asyncio.Event().wait()


async def _ask(port: int, connections: int, record: Path) -> None:
    seen, ended = array.array("d"), asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    print("ready", flush=True)
    await asyncio.gather(*(_use(port, seen, ended) for _ in range(connections)))
    await asyncio.to_thread(record.write_bytes, seen.tobytes())


async def _use(port: int, seen: array.array[float], ended: asyncio.Event) -> None:
    """One connection, opened anew when it ends."""
    while not ended.is_set():
        begun = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_HEAD_BYTES_MAX)
        except OSError:
            seen.extend((begun, time.monotonic(), 0.0, _FAILED))
            await asyncio.sleep(0.005)
            continue
        with contextlib.closing(writer):
            while not ended.is_set() and await _one(reader, writer, seen):
                pass


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: array.array[float]) -> bool:
    begun = time.monotonic()
    writer.write(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields[b"content-length"]))
    except (OSError, asyncio.IncompleteReadError):
        seen.extend((begun, time.monotonic(), 0.0, _FAILED))
        return False
    seen.extend((begun, time.monotonic(), float(fields.get(b"x-version", b"0")), float(head[9:12])))
    await asyncio.sleep(THOUGHT_SECONDS)
    return fields.get(b"connection") != b"close"


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    run_loop(_serve(given[0], int(given[1])) if what == "serve" else _ask(int(given[0]), int(given[1]), Path(given[2])))
