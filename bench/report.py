"""The short table on the screen and the JSON beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import Result

RESULTS_FOLDER = Path(__file__).parent / "results"

Measure = Callable[[bool], list[Result]]
"""Measures one claim; True asks for a short run."""

_VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: ""}


def show(results: Iterable[Result]) -> None:
    """Print one line for each result."""
    for each in results:
        claim = f"{each.sense} {each.limit:,g}" if each.limit is not None else "(told only)"
        spread = f"{_number(each.low)} .. {_number(each.high)}"
        value = f"{_number(each.value)} {each.unit}"
        print(f"{each.name:<66} {value:>16}   {spread:<20} {claim:<18} {_VERDICTS[each.holds]}", flush=True)


def write(results: Iterable[Result], *, quick: bool, loads: tuple[tuple[float, ...], tuple[float, ...]]) -> Path:
    """Write what was measured, and on what, as JSON; returns where."""
    now = datetime.now(UTC)
    RESULTS_FOLDER.mkdir(exist_ok=True)
    path = RESULTS_FOLDER / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    body = {
        "at": now.isoformat(),
        "quick": quick,
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "load_before": loads[0],
            "load_after": loads[1],
        },
        "results": [
            {
                "name": each.name,
                "unit": each.unit,
                "median": each.value,
                "rounds": each.values,
                "limit": each.limit,
                "sense": each.sense if each.limit is not None else None,
                "holds": each.holds,
                "figures": each.figures,
            }
            for each in results
        ],
    }
    path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return path


def run(measures: Iterable[Measure]) -> int:
    """Measure, print and write. Returns 0 when all that is claimed holds, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Measure the performance claims beside their peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not a proof")
    quick = parser.parse_args().quick
    before = os.getloadavg()
    print(f"load {before[0]:.1f} on {os.cpu_count()} processors; median over rounds, then the extremes", flush=True)
    results: list[Result] = []
    for measure in measures:
        found = measure(quick)
        show(found)
        results += found
    path = write(results, quick=quick, loads=(before, os.getloadavg()))
    print(f"written to {path}")
    return 0 if all(each.holds is not False for each in results) else 1


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
