"""Claim: a version that turns to nothing but errors under load is seen and taken back within 150 ms, through the door.

Everything is the product as it ships: Envoy, the keeper, the door with 200 policies, PostgreSQL that writes through.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.installation import PERSON, bench_installation
from bench.measure import Result, figure
from bench.report import run
from bench.server import bench_server
from bench.traffic_load import Seen, users
from interlock.bootstrap import Installation
from interlock.bootstrap.kept import own_keeper
from interlock.core.ask import Ask
from interlock.core.run import Run, RunState
from interlock.lib.clock import SystemClock

BACK_MS_MAX = 150.0
CONNECTIONS = 4
ROOT = Path(__file__).parents[1]
OK = 200
SETTLE_SECONDS = 1.5
WAIT_SECONDS = 30.0

_WORKLOADS = """
workloads:
  web:
    kind: service
    command: [{python}, -m, bench.turning_service, "{{version}}", "{{port}}"]
    environment: {{PYTHONPATH: "{root}"}}
    source: {{folder: "{folder}/versions/{{version}}"}}
    health: {{path: /, interval_seconds: 0.1, deadline_seconds: 20}}
    traffic: {{listen: "127.0.0.1:{port}", fallback: false}}
    release:
      steps: [{{weight_percent: 20, hold_seconds: 600}}]
      judge: {{latency_increase_max: 10}}  # what takes a fifth of a millisecond is twice as slow on a busy machine
      watch_seconds: 0
"""


@dataclass(frozen=True)
class Back:
    """One rollback, in milliseconds since the first bad answer, and how many requests were answered badly."""

    seen_ms: float
    routed_ms: float
    over_ms: float
    failed: int
    rate: float


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """So many versions one after another, each of which turns bad."""
    found = asyncio.run(_measure(3 if quick else 12))
    return [
        Result("first bad answer to all users sent back", "ms", tuple(each.routed_ms for each in found), BACK_MS_MAX),
        figure("first bad answer to the red line", "ms", [each.seen_ms for each in found]),
        figure("first bad answer to the last one", "ms", [each.over_ms for each in found]),
        figure("requests that users saw fail", "", [float(each.failed) for each in found]),
        figure("requests answered meanwhile", "1/s", [each.rate for each in found]),
    ]


async def _measure(rounds: int) -> list[Back]:
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name, bench_server() as server:
        folder = Path(name)
        for number in range(1, rounds + 2):
            (folder / "versions" / str(number)).mkdir(parents=True)
            (folder / "versions" / str(number) / "version").write_text(str(number))
        project = _WORKLOADS.format(python=sys.executable, root=ROOT, folder=folder, port=port)
        try:
            async with bench_installation(
                server.database(), folder, fast_path=True, further_project=project
            ) as installation:
                await _release(installation, 1, "released")
                return [await _round(installation, number, port, folder) for number in range(2, rounds + 2)]
        finally:
            keeper = own_keeper(folder / "state", SystemClock())
            for state in keeper.states():
                keeper.stop(state.process.name)


async def _round(installation: Installation, version: int, port: int, folder: Path) -> Back:
    number = await _release(installation, version, "canary")
    with users(port, CONNECTIONS, folder / "seen") as asking:
        await asyncio.sleep(SETTLE_SECONDS)
        os.kill(await _pid(folder, version), signal.SIGUSR1)
        await _until(installation, number, "rolled_back")
        await asyncio.sleep(0.3)
        seen = await asyncio.to_thread(asking.stop)
    lines = await _rows(installation, "select word, at, text from release_timeline where release = %s", number)
    if all(row.status == OK for row in seen):
        msg = f"version {version} went back before it was bad: {lines}"
        raise RuntimeError(msg)
    moments = {line["word"]: line["at"].timestamp() for line in lines}
    return _back(seen, moments["going_back"], moments["routed_back"])


def _back(seen: list[Seen], red_line: float, routed: float) -> Back:
    """The two clocks are held against each other at this moment; they differ by a constant."""
    shift = time.time() - time.monotonic()
    bad = [row for row in seen if row.status != OK]
    first = bad[0].ended + shift
    rate = len(seen) / (seen[-1].ended - seen[0].begun)
    over = (bad[-1].ended - bad[0].ended) * 1000
    return Back((red_line - first) * 1000, (routed - first) * 1000, over, len(bad), rate)


async def _release(installation: Installation, version: int, state: str) -> int:
    ask = Ask(action="release.start", args={"workload": "web", "version": str(version)}, confirmed=True)
    begun = await installation.door.submit(PERSON, ask)
    if not isinstance(begun, Run) or (await installation.door.wait(begun.number, 20)).state is not RunState.SUCCEEDED:
        msg = f"version {version} could not be released"
        raise RuntimeError(msg)
    (row,) = await _rows(installation, "select number from releases where run = %s", begun.number)
    await _until(installation, row["number"], state)
    return int(row["number"])


async def _until(installation: Installation, number: int, state: str) -> None:
    """Until it stands there, with all that this wants of the world."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        (row,) = await _rows(installation, "select state, epoch, settled from releases where number = %s", number)
        if row["state"] == state and (state != "canary" or row["settled"] == row["epoch"]):
            return
        if time.monotonic() > end or row["state"] == "failed":
            lines = await _rows(installation, "select text from release_timeline where release = %s", number)
            msg = f"release {number} stands at {row}: {lines}"
            raise RuntimeError(msg)
        await asyncio.sleep(0.05)


async def _rows(installation: Installation, query: str, *parameters: Any) -> list[dict[str, Any]]:
    async with installation.database.connection() as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def _pid(folder: Path, version: int) -> int:
    keeper = own_keeper(folder / "state", SystemClock())
    found = await asyncio.to_thread(keeper.states)
    return next(each.pid for each in found if each.pid and each.process.argv[-2:-1] == (str(version),))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(run((measure,)))
