"""Reads metrics for a command that runs by itself, without the resident process."""

from __future__ import annotations

from interlock.adapters.metric_source import HttpMetricSource
from interlock.core.metric_source import MetricSource
from interlock.lib.clock import Clock


def own_metric_source(clock: Clock) -> MetricSource:
    """Reads with no more rights than whoever runs the command has."""
    return HttpMetricSource(clock)
