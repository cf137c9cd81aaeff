"""Claim: the full door costs at most 5 times a bare loop on the fast path, 12 times through the queue."""

from __future__ import annotations

import sys
from functools import partial

from bench.measure import Result, figure, interleaved, ratio
from bench.participants import participate
from bench.report import run
from bench.server import bench_server

NAMES = ("bare", "door_fast", "door_person", "door_queue", "dbos_direct", "dbos_queue")


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 from the ask to the end, one at a time, each participant on a database of its own on one server."""
    rounds, count = (3, 150) if quick else (9, 400)
    with bench_server() as server:
        participants = {
            name: partial(
                participate,
                name,
                server.database(),
                server.folder / name,
                count // 4 if name == "dbos_queue" else count,
            )
            for name in NAMES
        }
        seen = interleaved(participants, rounds)
    return [
        ratio("full door, fast path, p50 / bare insert-claim-done", seen, "door_fast", "bare", limit=5),
        ratio("full door, through the queue, p50 / bare", seen, "door_queue", "bare", limit=12),
        ratio("DBOS queue (50 ms polls) p50 / full door through the queue", seen, "dbos_queue", "door_queue", limit=8, sense="at least"),
        ratio("a person's confirmed change, fast path, p50 / bare", seen, "door_person", "bare"),
        ratio("DBOS called directly, p50 / bare", seen, "dbos_direct", "bare"),
        *(figure(f"p50 of {name}", "ms", [each[name] for each in seen]) for name in NAMES),
    ]


if __name__ == "__main__":
    sys.exit(run((measure,)))
