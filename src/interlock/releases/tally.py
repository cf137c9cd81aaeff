"""What was seen of both versions during one tick: counts, errors, latencies; what plots are drawn from; pure."""

from __future__ import annotations

from collections.abc import Iterable

from interlock.core.model import JsonObject
from interlock.core.traffic import Sample
from interlock.releases.judge.counting import is_error

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
KEPT_MAX = 20_000
"""Latencies of one version in one tick; of more of them only the first are kept, while all are counted."""


class Tally:
    """Counts of one tick."""

    def __init__(self, arms: Iterable[str]) -> None:
        self._arms = tuple(arms)
        self._counts = dict.fromkeys(self._arms, 0)
        self._errors = dict.fromkeys(self._arms, 0)
        self._seconds: dict[str, list[float]] = {arm: [] for arm in self._arms}

    @property
    def total(self) -> int:
        """How many attempts there were in all."""
        return sum(self._counts.values())

    def count(self, arm: str) -> int:
        """How many attempts a version answered."""
        return self._counts.get(arm, 0)

    def add(self, samples: Iterable[Sample]) -> None:
        """Count attempts; of other versions nothing is kept."""
        for sample in samples:
            if sample.arm not in self._counts or sample.client_left:
                continue
            self._counts[sample.arm] += 1
            self._errors[sample.arm] += is_error(sample)
            seconds = self._seconds[sample.arm]
            if len(seconds) < KEPT_MAX:
                seconds.append(sample.seconds)

    def row(self, at_seconds: float, **more: float | str | None) -> JsonObject:
        """The tick as it is kept: `arms` by name with n, errors and latencies in seconds."""
        arms: JsonObject = {arm: self._arm(arm) for arm in self._arms}
        return {"at_seconds": at_seconds, "arms": arms, **more}

    def _arm(self, arm: str) -> JsonObject:
        ordered = sorted(self._seconds[arm])
        found: JsonObject = {"n": self._counts[arm], "errors": self._errors[arm]}
        if ordered:
            found |= {name: round(quantile(ordered, level), 6) for name, level in QUANTILES.items()}
        return found


def quantile(ordered: list[float], level: float) -> float:
    """The smallest value that at least `level` of all do not exceed; `ordered` is not empty."""
    return ordered[min(len(ordered) - 1, max(0, -int(-level * len(ordered) // 1) - 1))]
