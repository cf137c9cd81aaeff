"""Claim: the comparator compares at least 300 requests a second, three answers of 2 kB each, beside the versions."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import uvloop

from bench.measure import Result
from bench.report import run
from interlock.comparison.shadow import ComparatorTask, ShadowSummary, comparator_process, read_summary, write_task
from interlock.core.comparison import ComparisonRules, FieldRule

SECONDS, SECONDS_QUICK = 5.0, 1.5
ROUNDS, ROUNDS_QUICK = 5, 3
CONNECTIONS = 24
ITEMS = 40
PATIENCE_SECONDS = 20.0
RULES = ComparisonRules(
    rules=(FieldRule(path="$.served_at", compare="time", tolerance=5),), key_fields=("$.items[*].price",)
)


def _answer() -> bytes:
    items = [{"id": number, "name": f"item {number}", "price": f"{number * 1.1:.2f}"} for number in range(ITEMS)]
    body = json.dumps({"items": items, "served_at": time.time()}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Version(asyncio.Protocol):
    """Answers whatever it is asked, always with another time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        *heads, self.held = (self.held + data).split(b"\r\n\r\n")
        for _ in heads:
            self.transport.write(_answer())  # type: ignore[attr-defined]


def _serve(port: int) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_server(_Version, "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(main())


def _free_ports(count: int) -> list[int]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


async def _copies(port: int, until: float) -> None:
    """A proxy's part: as many copies as are answered, each connection at most a hundred a second."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            while time.monotonic() < until:
                writer.write(b"GET /items HTTP/1.1\r\nhost: shop\r\nx-request-id: 1\r\naccept: */*\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _summary(folder: Path, received: int) -> ShadowSummary:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        summary = read_summary(folder)
        if summary is not None and summary.received >= received and summary.received == _dealt_with(summary):
            return summary
        assert time.monotonic() < end, "the comparator does not come to an end"
        time.sleep(0.05)


def _dealt_with(summary: ShadowSummary) -> int:
    return summary.pairs + sum(summary.shed.values()) + sum(summary.stable_failures.values())


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Rounds one after another, with one comparator and two versions."""
    stable, candidate, listen = _free_ports(3)
    versions = [multiprocessing.Process(target=_serve, args=(port,), daemon=True) for port in (stable, candidate)]
    for version in versions:
        version.start()
    rates, costs = [], []
    with tempfile.TemporaryDirectory() as place:
        task = ComparatorTask(
            release=1,
            workload="shop",
            listen=f"127.0.0.1:{listen}",
            stable=f"127.0.0.1:{stable}",
            stable_version="v1",
            candidate=f"127.0.0.1:{candidate}",
            candidate_version="v2",
            rules=RULES,
        )
        kept = comparator_process(task, write_task(Path(place), task), sys.executable)
        with subprocess.Popen(kept.argv, env={}, cwd=place) as process:
            try:
                before = _summary(Path(place), 0)
                for _ in range(ROUNDS_QUICK if quick else ROUNDS):
                    begun, used = time.monotonic(), _processor_seconds(process.pid)
                    uvloop.run(_copies(listen, begun + (SECONDS_QUICK if quick else SECONDS)))
                    seconds = time.monotonic() - begun
                    after = _summary(Path(place), before.received + 1)
                    pairs = after.pairs - before.pairs
                    rates.append(pairs / seconds)
                    costs.append((_processor_seconds(process.pid) - used) / pairs * 1000)
                    before = after
            finally:
                process.terminate()
                for version in versions:
                    version.terminate()
    return [
        Result("shadow: comparisons of three answers of 2 kB", "/s", tuple(rates), 300, "at least"),
        Result("shadow: processor time of one comparison", "ms", tuple(costs)),
    ]


if __name__ == "__main__":
    sys.exit(run((measure,)))
