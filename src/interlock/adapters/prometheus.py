"""Keeps the metrics of this process in a registry of its own, and writes them as Prometheus reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from interlock.core.meter import OTHER, Metric

VALUES_MAX = 500
"""Of one label. What is made known beyond that counts as `OTHER`: policies may be exchanged for ever."""

Family = Counter | Gauge | Histogram
_CLASSES: dict[str, type[Counter | Gauge]] = {"counter": Counter, "gauge": Gauge}


class PrometheusMeter:
    """Every series stands at zero from the beginning; no label takes a value that was not made known.

    Args:
        metrics: All there will ever be; what is told of any other is a bug and raises KeyError.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._families = {metric: self._family(metric) for metric in metrics}
        self._known: dict[str, dict[str, None]] = {}
        self._series: dict[Metric, dict[tuple[str, ...], Family]] = {metric: {} for metric in self._families}
        self._lock = threading.Lock()
        for metric in self._families:
            self._begin(metric)

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """As `Meter.count`."""
        self._at(metric, labels).inc(by)  # type: ignore[union-attr]

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """As `Meter.observe`."""
        self._at(metric, labels).observe(seconds)  # type: ignore[union-attr]

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """As `Meter.set`."""
        self._at(metric, labels).set(value)  # type: ignore[union-attr]

    def know(self, label: str, values: Iterable[str]) -> None:
        """As `Meter.know`."""
        with self._lock:
            known = self._known.setdefault(label, {})
            fresh = [value for value in values if value not in known]
            known.update(dict.fromkeys(fresh[: max(0, VALUES_MAX - len(known))]))
            if fresh:
                for metric in self._families:
                    if label in metric.labels:
                        self._begin(metric)

    def exposition(self) -> str:
        """As `Meter.exposition`."""
        return generate_latest(self._registry).decode()

    def _family(self, metric: Metric) -> Family:
        names = tuple(metric.labels)
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.help, names, buckets=metric.buckets, registry=self._registry)
        return _CLASSES[metric.kind](metric.name, metric.help, names, registry=self._registry)

    def _begin(self, metric: Metric) -> None:
        """Make all series that it has by now."""
        series, family = self._series[metric], self._families[metric]
        if not metric.labels:
            series[()] = family
            return
        columns = [
            values if values is not None else (*self._known.get(name, ()), OTHER)
            for name, values in metric.labels.items()
        ]
        for labels in product(*columns):
            if labels not in series:
                series[labels] = family.labels(*labels)

    def _at(self, metric: Metric, labels: tuple[str, ...]) -> Family:
        series = self._series[metric]
        found = series.get(labels)
        if found is not None:
            return found
        kept = tuple(
            value if value in (allowed if allowed is not None else self._known.get(name, ())) else OTHER
            for value, (name, allowed) in zip(labels, metric.labels.items(), strict=True)
        )
        return series.get(kept) or self._unforeseen(metric, kept)

    def _unforeseen(self, metric: Metric, labels: tuple[str, ...]) -> Family:
        """A fixed label with a value that was not declared: counted all the same, as `OTHER`."""
        with self._lock:
            return self._series[metric].setdefault(labels, self._families[metric].labels(*labels))
