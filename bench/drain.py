"""Claim: with 16 clients and one worker, Runs are drained at least twice as fast as DBOS drains workflows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

from bench.measure import Result, figure, interleaved, ratio
from bench.participants import Participant
from bench.report import run
from bench.server import bench_server

NAMES = ("door_drain", "dbos_drain", "dbos_drain_unbounded", "door_clients", "door_clients_fast", "dbos_clients")


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Per second: a backlog that 16 clients left and one worker drains; and 16 clients that wait for each of theirs."""
    rounds, count = (3, 300) if quick else (7, 600)
    with bench_server() as server, ExitStack() as stack:
        here = {name: stack.enter_context(Participant(name, server)) for name in NAMES}
        turns = {name: _rate(participant, count) for name, participant in here.items()}
        interleaved(turns, 1)
        seen = interleaved(turns, rounds)
    return [
        ratio("backlog of 16 clients, one worker: Runs / DBOS", seen, "door_drain", "dbos_drain", at_least=2),
        ratio("16 clients that wait, one worker: Runs / DBOS", seen, "door_clients_fast", "dbos_clients", at_least=2),
        ratio("the same without the fast path / DBOS", seen, "door_clients", "dbos_clients"),
        ratio("backlog: Runs / DBOS that takes on everything at once", seen, "door_drain", "dbos_drain_unbounded"),
        *(figure(f"rate of {name}", "/s", [each[name] for each in seen]) for name in NAMES),
    ]


def _rate(participant: Participant, count: int) -> Callable[[], float]:
    return lambda: participant.turn(count)[0]


if __name__ == "__main__":
    sys.exit(run((measure,)))
