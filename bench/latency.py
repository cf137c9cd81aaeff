"""Claim: the full door costs at most 5 times a bare loop on the fast path, 12 times through the queue."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

from bench.measure import Result, figure, interleaved, ratio
from bench.participants import Participant
from bench.report import run
from bench.server import bench_server

TURN = {
    "bare": 100,
    "door_fast": 50,
    "door_person": 50,
    "door_socket": 50,
    "door_queue": 50,
    "dbos_direct": 50,
    "dbos_queue": 8,
}
"""How many each does in one turn: under half a second, because the speed of the disk changes within seconds."""
WARM_UP_TURNS = 6


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 from the ask to the end, one at a time, each participant on a database of its own on one server."""
    with bench_server() as server, ExitStack() as stack:
        here = {name: stack.enter_context(Participant(name, server)) for name in TURN}
        turns = {name: _p50_ms(participant, TURN[name]) for name, participant in here.items()}
        interleaved(turns, WARM_UP_TURNS)
        seen = interleaved(turns, 12 if quick else 40)
    return [
        ratio("full door, fast path, p50 / bare insert-claim-done", seen, "door_fast", "bare", limit=5),
        ratio("full door, through the queue, p50 / bare", seen, "door_queue", "bare", limit=12),
        ratio("DBOS queue (50 ms polls) / door's queue, p50", seen, "dbos_queue", "door_queue", at_least=8),
        ratio("a person's confirmed change, fast path, p50 / bare", seen, "door_person", "bare"),
        ratio("the same over the local socket, p50 / bare", seen, "door_socket", "bare"),
        ratio("DBOS called directly, p50 / bare", seen, "dbos_direct", "bare"),
        *(figure(f"p50 of {name}", "ms", [each[name] for each in seen]) for name in TURN),
    ]


def _p50_ms(participant: Participant, count: int) -> Callable[[], float]:
    return lambda: statistics.median(participant.turn(count)) * 1000


if __name__ == "__main__":
    sys.exit(run((measure,)))
