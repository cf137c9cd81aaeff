"""Workers that are killed at every boundary of a commit and of an effect, and guards that are killed at any time."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from harness.engine import random_of
from harness.nursery import BOUNDARIES
from harness.world import RUNS, World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SEED = 20261120
WORKER_ASKS = 40


async def test_workers_killed_at_every_boundary_lose_and_repeat_nothing(world: World) -> None:
    random = random_of(SEED)
    before = await world.latency()
    await world.submit(RUNS - WORKER_ASKS)
    points = [f"{boundary}:{random.randint(1, 9)}:SIGKILL" for boundary in BOUNDARIES]
    random.shuffle(points)
    for point in points:
        if point.startswith(("insert", "take_over")):
            point = ":".join([*point.split(":")[:2], "1", "SIGKILL"])  # noqa: PLW2901 - these come up rarely
        pid = world.nursery.worker(point, asks=(0, WORKER_ASKS))
        for _ in range(60):
            if pid not in world.nursery.alive():
                break
            await asyncio.sleep(0.05)
    deaths = len(points) - len(world.nursery.alive())
    assert deaths >= len(points) * 2 // 3
    for pid in world.nursery.alive():
        os.kill(pid, signal.SIGKILL)
    pid = world.nursery.worker(None, asks=(0, WORKER_ASKS))
    await world.settle()
    runs = await world.engine.query("select count(*) as n from run where action = 'test.ledger'")
    assert runs[0]["n"] == RUNS
    await world.account(before=before)


async def test_killed_guards_leave_nothing_behind_and_nothing_is_repeated(world: World) -> None:
    random = random_of(SEED + 1)
    before = await world.latency()
    await world.submit()
    workers = [world.nursery.worker(), world.nursery.worker()]
    killed = 0
    while killed < 30 and (await world.states())["queued"] > 20:
        await asyncio.sleep(random.uniform(0.01, 0.08))
        guards = [child for worker in workers for child in children(worker)]
        if guards:
            try:
                os.kill(random.choice(guards), signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
    assert killed >= 10
    await world.settle()
    await world.account(before=before)


def children(pid: int) -> list[int]:
    """The processes that a worker started: guards, all of them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
