"""Claim: asking over HTTP until the Run has succeeded takes at most twice as long as asking in the same process."""  # noqa: A005 - always bench.http

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

from bench.measure import Result, figure, interleaved, ratio
from bench.participants import Participant
from bench.report import run
from bench.server import bench_server

TURN = {"door_person": 50, "door_socket": 50, "door_http": 50}
"""How many each does in one turn: under half a second, because the speed of the disk changes within seconds."""
WARM_UP_TURNS = 6


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 of a person's confirmed change that does nothing, one at a time, over one connection that is kept."""
    with bench_server() as server, ExitStack() as stack:
        here = {name: stack.enter_context(Participant(name, server)) for name in TURN}
        turns = {name: _p50_ms(participant, TURN[name]) for name, participant in here.items()}
        interleaved(turns, WARM_UP_TURNS)
        seen = interleaved(turns, 12 if quick else 40)
    return [
        ratio("ask -> succeeded over HTTP, p50 / in-process door", seen, "door_http", "door_person", limit=2),
        ratio("the same over the local socket / in-process door", seen, "door_socket", "door_person"),
        *(figure(f"p50 of {name}", "ms", [each[name] for each in seen]) for name in TURN),
    ]


def _p50_ms(participant: Participant, count: int) -> Callable[[], float]:
    return lambda: statistics.median(participant.turn(count)) * 1000


if __name__ == "__main__":
    sys.exit(run((measure,)))
