"""What was seen of both versions during one tick: counts, errors, latencies; what plots are drawn from; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from interlock.core.model import JsonObject
from interlock.core.traffic import Sample
from interlock.releases.judge.counting import is_error

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
KEPT_MAX = 20_000
"""Latencies of one version in one tick; of more of them only the first are kept, while all are counted."""


REQUESTS_MAX = 20_000
"""Requests that the candidate failed are remembered so many at a time, to join what the stable version answers then."""


def by_chance_of(samples: Iterable[Sample], arms: Collection[str]) -> list[Sample]:
    """What users met whom chance gave one of these versions. Who chose it himself is no evidence: a single client could
    send back a good version, or let a bad one look well."""
    return [each for each in samples if each.arm in arms and not each.chosen]


class Tally:
    """Counts of one tick. `arms`: the candidate last.

    An answer that the stable version gave in place of the candidate is the candidate's failure: it counts neither as a
    request of the stable version nor as an error of it, and its time is nobody's latency.
    """

    def __init__(self, arms: Iterable[str], failed: dict[str, None] | None = None) -> None:
        self._arms = tuple(arms)
        self._counts = dict.fromkeys(self._arms, 0)
        self._errors = dict.fromkeys(self._arms, 0)
        self._seconds: dict[str, list[float]] = {arm: [] for arm in self._arms}
        self._failed = failed if failed is not None else {}
        self._rescued = 0
        self._fell_back = 0

    @property
    def total(self) -> int:
        """How many attempts there were in all."""
        return sum(self._counts.values()) + self._fell_back

    def following(self) -> Tally:
        """An empty one for the next tick: attempts of one request may be told in two of them."""
        return Tally(self._arms, self._failed)

    def count(self, arm: str) -> int:
        """How many attempts a version answered."""
        return self._counts.get(arm, 0)

    def add(self, samples: Iterable[Sample]) -> None:
        """Count attempts; of other versions nothing is kept."""
        for sample in samples:
            if sample.arm not in self._counts or sample.client_left:
                continue
            if sample.fell_back:
                self._fall_back(sample)
                continue
            failed = is_error(sample)
            if failed and sample.arm == self._arms[-1] and not self._is_first_failure(sample.request):
                continue
            self._counts[sample.arm] += 1
            self._errors[sample.arm] += failed
            seconds = self._seconds[sample.arm]
            if len(seconds) < KEPT_MAX:
                seconds.append(sample.seconds)

    def _fall_back(self, sample: Sample) -> None:
        """The stable version answered; the candidate may have been asked before, or was known to be down."""
        self._rescued += not is_error(sample._replace(fell_back=False))
        if self._is_first_failure(sample.request):
            self._counts[self._arms[-1]] += 1
            self._errors[self._arms[-1]] += 1
        else:
            self._fell_back += 1

    def _is_first_failure(self, request: str) -> bool:
        """Whether the candidate is not known yet to have failed this request."""
        if request and request in self._failed:
            return False
        if request:
            self._failed[request] = None
            if len(self._failed) > REQUESTS_MAX:
                del self._failed[next(iter(self._failed))]
        return True

    def row(self, at_seconds: float, **more: float | str | None) -> JsonObject:
        """The tick as it is kept: `arms` by name with n, errors, rescued and latencies in seconds."""
        arms: JsonObject = {arm: self._arm(arm) for arm in self._arms}
        return {"at_seconds": at_seconds, "arms": arms, **more}

    def _arm(self, arm: str) -> JsonObject:
        ordered = sorted(self._seconds[arm])
        found: JsonObject = {"n": self._counts[arm], "errors": self._errors[arm]}
        found["rescued"] = self._rescued if arm == self._arms[-1] else 0
        if ordered:
            found |= {name: round(quantile(ordered, level), 6) for name, level in QUANTILES.items()}
        return found


def quantile(ordered: list[float], level: float) -> float:
    """The smallest value that at least `level` of all do not exceed; `ordered` is not empty."""
    return ordered[min(len(ordered) - 1, max(0, -int(-level * len(ordered) // 1) - 1))]
