"""Workers that sleep through their lease and wake up, and effects that leave their children behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from harness.engine import random_of
from harness.world import World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SEED = 20261121
LEASE_SECONDS = 10
ORPHAN_SCRIPT = """
key=$1 fifo=$0
setsid /bin/sh -c 'sleep 3; printf "%s orphan\\n" "$0" > "$1"' "$key" "$fifo" < /dev/null > /dev/null 2>&1 &
"""


async def test_a_worker_that_slept_through_its_lease_does_nothing_when_it_wakes_up(world: World) -> None:
    random = random_of(SEED)
    before = await world.latency()
    await world.submit()
    zombies = [
        world.nursery.worker(f"{point}:{random.randint(3, 12)}:SIGSTOP")
        for point in ("start:before", "go:before", "append:after", "leave:before")
    ]
    async with asyncio.timeout(30):
        while not all(stopped(pid) for pid in zombies):  # noqa: ASYNC110 - a stopped process tells nobody
            await asyncio.sleep(0.02)
    held = await world.engine.query("select number from run where state = 'running'")
    assert len(held) >= len(zombies)
    world.nursery.worker()
    await nothing_runs(world)
    for pid in zombies:
        os.kill(pid, signal.SIGCONT)
    await world.settle(workers=5)
    await world.account(before=before)


async def test_what_an_effect_leaves_behind_is_killed_with_it(world: World) -> None:
    random = random_of(SEED + 1)
    before = await world.latency()
    await world.submit(script=ORPHAN_SCRIPT)
    world.nursery.worker()
    world.nursery.worker()
    for _ in range(6):
        await asyncio.sleep(random.uniform(0.3, 1.0))
        os.kill(random.choice(world.nursery.alive()), signal.SIGKILL)
        world.nursery.worker()
    await world.settle()
    await asyncio.sleep(3.2)  # an orphan that lived would have spoken by now
    assert [line for line in world.ledger.lines() if line.endswith(" orphan")] == []
    await world.account(before=before)


async def nothing_runs(world: World) -> None:
    """Wait until the living have done what they could and have taken over what the sleepers held."""
    query = "select count(*) as n from run where state = 'running'"
    for _ in range(LEASE_SECONDS * 40):
        if (await world.engine.query(query))[0]["n"] == 0:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(await world.states())


def stopped(pid: int) -> bool:
    """Whether a process is stopped."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0] == "T"
