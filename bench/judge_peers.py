"""The rules of others, as their own sources and documents state them, on the traffic that our judge sees.

Argo Rollouts (analysis_types.go, features/analysis.md): a metric is measured each interval; a measurement that misses
the success condition is a failure; the run fails when failures are more than failureLimit. Failures are counted over
the whole run.

Flagger (canary.go, scheduler.go): each interval the success rate of that interval must be at least the threshold and
P99 at most 500 ms; a check that fails is counted, and at `threshold` failed checks the canary goes back. Failed checks
are counted over the whole analysis.

Kayenta (NetflixACAJudge.scala, MannWhitney.scala): at each look, over all points since the beginning, the 98 % interval
of the Hodges-Lehmann shift between canary and baseline by Mann and Whitney's test; "High" when its lower end is above
0.25 times the estimate. Points are minutes; a group score below the pass mark of one critical metric fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.judged_traffic import BASELINE, CANARY, Counts, Floats, Second
from interlock.releases.judge.latency import Edges

FLAGGER_P99_SECONDS = 0.5
NORMAL_99 = 2.3263
"""The normal distribution's quantile at 99 %: both ends of a 98 % interval."""
TOLERANCE = 0.25


class Peer(Protocol):
    """One rule, judging R releases."""

    name: str
    fired_at: Floats
    """When each release was sent back, in seconds; infinite if never."""

    def tick(self, at: float, second: Second) -> None:
        """Take what came until `at`."""
        ...


@dataclass
class Interval:
    """What came since the last look."""

    requests: Counts
    errors: Counts
    latencies: Floats


class Polling:
    """A threshold on the success rate (and on P99) of each interval; so many failures send back."""

    def __init__(self, name: str, releases: int, edges: Edges, *, every: float, success: float, failures: int) -> None:
        self.name = name
        self.fired_at = np.full(releases, np.inf)
        self._edges = np.append(edges.seconds, np.inf)
        self._every, self._success, self._failures = every, success, failures
        self._failed = np.zeros(releases, dtype=np.int64)
        self._next = every
        self._interval: Interval | None = None

    def tick(self, at: float, second: Second) -> None:
        """Take what came until `at`."""
        came = Interval(second.requests[:, CANARY], second.errors[:, CANARY], second.candidate_latencies)
        before = self._interval
        self._interval = came if before is None else _together(before, came)
        if at + 1e-9 < self._next:
            return
        self._next += self._every
        seen = self._interval
        self._interval = None
        share = 1 - seen.errors / np.maximum(seen.requests, 1)
        slow = _quantile(seen.latencies, self._edges, 0.99) > FLAGGER_P99_SECONDS
        self._failed += (share < self._success) | slow
        self.fired_at[(self._failed >= self._failures) & np.isinf(self.fired_at)] = at


class Kayenta:
    """Mann and Whitney's test over all points of a minute, looked at every five."""

    def __init__(self, releases: int, edges: Edges, *, point: float = 60.0, look: float = 300.0) -> None:
        self.name = f"Kayenta ({point:g} s points, {look / 60:g} min looks)"
        self.fired_at = np.full(releases, np.inf)
        self._edges = np.append(edges.seconds, np.inf)
        self._point, self._look = point, look
        self._next_point, self._next_look = point, look
        self._intervals: dict[int, Interval] = {}
        self._points: dict[int, list[tuple[Floats, Floats]]] = {CANARY: [], BASELINE: []}

    def tick(self, at: float, second: Second) -> None:
        """Take what came until `at`."""
        for arm, latencies in ((CANARY, second.candidate_latencies), (BASELINE, second.baseline_latencies)):
            came = Interval(second.requests[:, arm], second.errors[:, arm], latencies)
            before = self._intervals.get(arm)
            self._intervals[arm] = came if before is None else _together(before, came)
        if at + 1e-9 < self._next_point:
            return
        self._next_point += self._point
        for arm, seen in self._intervals.items():
            share = seen.errors / np.maximum(seen.requests, 1)
            self._points[arm].append((share, _quantile(seen.latencies, self._edges, 0.95)))
        self._intervals = {}
        if at + 1e-9 < self._next_look:
            return
        self._next_look += self._look
        for metric in (0, 1):
            canary, baseline = (
                np.stack([point[metric] for point in self._points[arm]], axis=1) for arm in (CANARY, BASELINE)
            )
            self.fired_at[_is_high(canary, baseline) & np.isinf(self.fired_at)] = at


def all_peers(releases: int, edges: Edges) -> list[Peer]:
    """As documented, and as somebody would set them who knows that 1 % of errors is normal."""
    return [
        Polling("Flagger (1 min x 5, 99 %)", releases, edges, every=60, success=0.99, failures=5),
        Polling("Flagger (1 min x 1, 98 %)", releases, edges, every=60, success=0.98, failures=1),
        Polling("Argo (5 min, more than 3, 95 %)", releases, edges, every=300, success=0.95, failures=4),
        Polling("Argo (30 s, more than 3, 98 %)", releases, edges, every=30, success=0.98, failures=4),
        Kayenta(releases, edges),
    ]


def _together(one: Interval, other: Interval) -> Interval:
    return Interval(one.requests + other.requests, one.errors + other.errors, one.latencies + other.latencies)


def _quantile(latencies: Floats, edges: Floats, quantile: float) -> Floats:
    """The upper edge of the bucket that holds it; 0 where there were none."""
    upto = np.cumsum(latencies, axis=1)
    index = np.count_nonzero(upto < quantile * upto[:, -1:], axis=1)
    return np.where(upto[:, -1] > 0, edges[index], 0.0)


def _is_high(canary: Floats, baseline: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each row of the canary's points is higher, by Kayenta's rule."""
    points = canary.shape[1]
    differences = np.sort((canary[:, :, None] - baseline[:, None, :]).reshape(len(canary), -1), axis=1)
    count = differences.shape[1]
    below = count / 2 - NORMAL_99 * math.sqrt(count * (2 * points + 1) / 12)
    if below < 0:
        return np.zeros(len(canary), dtype=np.bool_)
    estimate = np.median(differences, axis=1)
    lowest = differences[:, max(math.floor(below), 0)]
    higher = canary.mean(axis=1) >= baseline.mean(axis=1)
    return (lowest > TOLERANCE * np.abs(estimate)) & higher
