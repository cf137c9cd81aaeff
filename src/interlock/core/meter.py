"""Counts what happens: what a metric is, and where the engine tells of it without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

MetricKind = Literal["counter", "gauge", "histogram"]

OTHER = "other"
"""Stands for every value of a label that was not made known: what people write must not make series."""

SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900)
"""Upper bounds of what is done by machines."""

HOURS: tuple[float, ...] = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
"""Upper bounds, in seconds, of what waits for people."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One family of series, named as Prometheus wants it: base units, `_total` behind a counter.

    `labels` holds each label with all values it can have; None where they are made known later (`Meter.know`) and
    anything else counts as `OTHER`. A metric is the same only as itself.
    """

    name: str
    kind: MetricKind
    help: str
    labels: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    buckets: tuple[float, ...] = SECONDS


class Meter(Protocol):
    """Takes what is told of; it never fails, never blocks, and may be told from any thread.

    Labels are given by place, in the order in which the metric declares them.
    """

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """A counter goes up."""
        ...

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """A histogram takes one more value."""
        ...

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """A gauge stands at a value."""
        ...

    def know(self, label: str, values: Iterable[str]) -> None:
        """These values of a label exist: their series stand at zero from now on."""
        ...

    def exposition(self) -> str:
        """Everything, in the text format of Prometheus 0.0.4."""
        ...


class Unmetered:
    """Nobody listens."""

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Nothing."""

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Nothing."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Nothing."""

    def know(self, label: str, values: Iterable[str]) -> None:
        """Nothing."""

    def exposition(self) -> str:
        """Nothing."""
        return ""
