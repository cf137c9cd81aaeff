"""Claim: with 16 clients and one worker, Runs are drained at least twice as fast as DBOS drains workflows."""

from __future__ import annotations

import sys
from functools import partial

from bench.measure import Result, figure, interleaved, ratio
from bench.participants import participate
from bench.report import run
from bench.server import bench_server

NAMES = ("door_drain", "door_clients", "door_clients_fast", "dbos_drain", "dbos_clients", "dbos_drain_unbounded")


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Per second: a backlog that 16 clients left, drained by one worker; and 16 clients that wait for each of theirs."""
    rounds, count = (3, 300) if quick else (7, 1000)
    with bench_server() as server:
        participants = {
            name: partial(participate, name, server.database(), server.folder / name, count) for name in NAMES
        }
        seen = interleaved(participants, rounds)
    return [
        ratio("backlog of 16 clients, one worker: Runs/s / DBOS workflows/s", seen, "door_drain", "dbos_drain", limit=2, sense="at least"),
        ratio("16 clients that wait, one worker: Runs/s / DBOS workflows/s", seen, "door_clients", "dbos_clients", limit=2, sense="at least"),
        ratio("the same with the fast path / DBOS", seen, "door_clients_fast", "dbos_clients"),
        ratio("backlog: Runs/s / DBOS that takes on everything at once", seen, "door_drain", "dbos_drain_unbounded"),
        *(figure(f"rate of {name}", "/s", [each[name] for each in seen]) for name in NAMES),
    ]


if __name__ == "__main__":
    sys.exit(run((measure,)))
