"""Claim: an agent's `run` over MCP costs, beyond a plain MCP tool, at most 1.5x what the door costs in process."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

from bench.measure import Result, figure, interleaved
from bench.participants import Participant
from bench.report import run
from bench.server import bench_server

TURN = {"door_agent": 50, "door_mcp": 50, "plain_mcp": 50}
WARM_UP_TURNS = 6
LIMIT = 1.5


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """p50 of an agent's look that does nothing, one at a time, over one connection that is kept; streamable HTTP."""
    with bench_server() as server, ExitStack() as stack:
        here = {name: stack.enter_context(Participant(name, server)) for name in TURN}
        turns = {name: _p50_ms(participant, TURN[name]) for name, participant in here.items()}
        interleaved(turns, WARM_UP_TURNS)
        seen = interleaved(turns, 12 if quick else 40)
    overheads = tuple((each["door_mcp"] - each["plain_mcp"]) / each["door_agent"] for each in seen)
    figures = {name: statistics.median(each[name] for each in seen) for name in TURN}
    return [
        Result("MCP run, p50: (run - plain tool) / in-process door", "x", overheads, LIMIT, "at most", figures),
        *(figure(f"p50 of {name}", "ms", [each[name] for each in seen]) for name in TURN),
    ]


def _p50_ms(participant: Participant, count: int) -> Callable[[], float]:
    return lambda: statistics.median(participant.turn(count)) * 1000


if __name__ == "__main__":
    sys.exit(run((measure,)))
