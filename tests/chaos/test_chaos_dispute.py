"""Many Runs that all want the same target, from two workers."""

from __future__ import annotations

import pytest

from harness.world import RUNS, World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

# Whoever finds the folder there is not alone with the target.
ALONE = """
mkdir "$0.busy" || printf '%s overlap\\n' "$1" > "$0"
trap 'rmdir "$0.busy"' EXIT
"""


async def test_a_disputed_target_is_in_one_hand_at_a_time_and_in_order(world: World) -> None:
    before = await world.latency()
    await world.submit(target="the-only-one", script=ALONE)
    world.nursery.worker()
    world.nursery.worker()
    await world.settle()
    lines = world.ledger.lines()
    assert [line for line in lines if line.endswith(" overlap")] == []
    order = [int(line.split(":", 1)[0]) for line in lines]
    assert order == sorted(order)
    assert len(set(order)) == RUNS
    await world.account(before=before)
