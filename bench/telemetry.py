"""Claim: all that is counted of one ask costs at most three times the same calls with nobody counting."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from bench.measure import Result, figure, interleaved, ratio
from bench.report import run
from interlock.adapters.prometheus import PrometheusMeter
from interlock.core.meter import Meter, Unmetered
from interlock.core.trace import TRACE, parse_traceparent
from interlock.engine import metrics
from interlock.engine.telemetry import Telemetry
from interlock.lib.clock import SystemClock

ASKS = 500
ACTION = "file.write"


def _told(telemetry: Telemetry) -> None:
    """All that the engine tells of one ask that runs at once, from its frame to its end."""
    meter = telemetry.meter
    parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    with telemetry.part("ask", metrics.ASK_SECONDS, action=ACTION) as part:
        part.begin()
        with telemetry.part("plan", metrics.PLAN_SECONDS, ACTION):
            pass
        with telemetry.part("decide", metrics.DECIDE_SECONDS):
            pass
        meter.count(metrics.DECISIONS, "permit")
        meter.count(metrics.DECISIONS_BY_POLICY, "preset.read", "permit")
        with telemetry.part("record", metrics.RECORD_SECONDS):
            pass
        meter.count(metrics.EVIDENCE, by=3)
        meter.observe(metrics.QUEUE_SECONDS, 0.0)
        meter.count(metrics.ASKS, ACTION, "running")
    with telemetry.part("step", metrics.STEP_SECONDS, ACTION, action=ACTION, step=0):
        pass
    meter.count(metrics.STEPS, ACTION, "do", "ok")
    with telemetry.part("close", state="succeeded"):
        pass
    meter.count(metrics.EVIDENCE, by=2)
    meter.count(metrics.RUNS_CLOSED, ACTION, "succeeded")
    meter.observe(metrics.RUN_SECONDS, 0.01, ACTION)
    meter.count(metrics.REQUESTS, "submit", "ok")


def _microseconds(meter: Meter) -> Callable[[], float]:
    telemetry = Telemetry(SystemClock(), meter)

    def turn() -> float:
        TRACE.set(None)
        begun = time.perf_counter()
        for _ in range(ASKS):
            _told(telemetry)
        return (time.perf_counter() - begun) / ASKS * 1e6

    return turn


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Microseconds of an ask that are spent on telling of it."""
    meter = PrometheusMeter(metrics.METRICS)
    for label, values in {"action": (ACTION,), "policy": ("preset.read",), "method": ("submit",)}.items():
        meter.know(label, values)
    seen = interleaved({"told": _microseconds(meter), "silent": _microseconds(Unmetered())}, 5 if quick else 20)
    return [
        ratio("metrics of an ask / the same calls uncounted", seen, "told", "silent", limit=3),
        figure("an ask's metrics and trace id", "µs", [each["told"] for each in seen]),
        figure("of which without a meter", "µs", [each["silent"] for each in seen]),
    ]


if __name__ == "__main__":
    sys.exit(run((measure,)))
