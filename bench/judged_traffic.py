"""Simulated traffic of many releases at once, second by second: users who come, fail and leave, and their latencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from interlock.releases.judge.latency import Edges

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

CANARY, BASELINE, REST = 0, 1, 2
"""The arms: the candidate, as many users of the stable version (which Kayenta asks for), and all others of it."""
USERS = 20_000
ACTIVE = 1 / 40
"""A user sends a request each 40 s: 500 requests a second."""
LEAVES = 1 / 600
"""A user stays ten minutes, and a new one comes in his place."""
MEDIAN_SECONDS, SIGMA = 0.060, 0.6
"""Lognormal latencies: P50 60 ms, P95 161 ms, P99 242 ms."""
GRAIN = 1 << 16


def constant(value: float) -> Callable[[float], float]:
    """The same at all times."""
    return lambda _seconds: value


one_percent, as_long, a_tenth = constant(0.01), constant(1.0), constant(0.1)


@dataclass(frozen=True)
class World:
    """What is true in a simulation.

    Args:
        name: For people.
        error_share: Of a request to the stable version, by time in seconds.
        error_share_candidate: Of a request to the candidate; the same if None.
        slower: By which factor all latencies are longer, by time.
        slower_candidate: By which further factor the candidate's are.
        candidate_share: Of the users, by time; only ever grows.
        always_failing: Which part of the users fails always, on either version.
        latencies: Whether latencies are simulated at all.
    """

    name: str
    error_share: Callable[[float], float] = one_percent
    error_share_candidate: Callable[[float], float] | None = None
    slower: Callable[[float], float] = as_long
    slower_candidate: float = 1.0
    candidate_share: Callable[[float], float] = a_tenth
    always_failing: float = 0.0
    latencies: bool = True


class Second(NamedTuple):
    """What one tick brings to R releases, by arm: arrays of the shape (R, 3)."""

    users: Counts
    """Who came and had met no error before."""
    first_errors: Counts
    requests: Counts
    errors: Counts
    candidate_latencies: Floats
    """Buckets of the candidate's good answers, (R, B + 1)."""
    baseline_latencies: Floats
    stable_latencies: Floats
    """Of baseline and all others."""


class Traffic:
    """R releases in one world, each with its own chance."""

    def __init__(self, world: World, releases: int, edges: Edges, *, seed: int, tick_seconds: float) -> None:
        self._world = world
        self._random = np.random.default_rng(seed)
        self._edges = edges
        self._tick_seconds = tick_seconds
        self._at = 0.0
        self._active = 1 - (1 - ACTIVE) ** tick_seconds
        self._tables: dict[int, npt.NDArray[np.int64]] = {}
        share = world.candidate_share(0.0)
        # Nobody compares a ramp with a baseline of another size: then the baseline is empty.
        sizes = np.round(USERS * np.array([share, min(share, 1 - share), max(1 - 2 * share, 0.0)])).astype(np.int64)
        shape = (releases, 3)
        failing = self._random.binomial(np.broadcast_to(sizes, shape), world.always_failing)
        nobody = np.zeros(shape, dtype=np.int64)
        self._pools = {"fresh": sizes - failing, "failed": nobody, "bad": failing, "bad_failed": nobody.copy()}
        self._share = share

    def tick(self) -> Second:
        """The next tick of all releases."""
        self._ramp()
        self._churn()
        shares = self._error_shares()
        active = {name: self._random.binomial(pool, self._active) for name, pool in self._pools.items()}
        first = self._random.binomial(active["fresh"], shares)
        again = self._random.binomial(active["failed"], shares)
        self._move("fresh", "failed", first)
        self._move("bad", "bad_failed", active["bad"])
        requests = active["fresh"] + active["failed"] + active["bad"] + active["bad_failed"]
        errors = first + again + active["bad"] + active["bad_failed"]
        good = requests - errors
        slower = self._world.slower(self._at)
        second = Second(
            users=active["fresh"] + active["bad"],
            first_errors=first + active["bad"],
            requests=requests,
            errors=errors,
            candidate_latencies=self._latencies(good[:, CANARY], slower * self._world.slower_candidate),
            baseline_latencies=(baseline := self._latencies(good[:, BASELINE], slower)),
            stable_latencies=baseline + self._latencies(good[:, REST], slower),
        )
        self._at += self._tick_seconds
        return second

    def _error_shares(self) -> Floats:
        stable = self._world.error_share(self._at)
        candidate = self._world.error_share_candidate
        return np.array([stable if candidate is None else candidate(self._at), stable, stable])

    def _move(self, origin: str, to: str, who: Counts) -> None:
        self._pools[origin] = self._pools[origin] - who
        self._pools[to] = self._pools[to] + who

    def _ramp(self) -> None:
        """Users go over to the candidate, whatever they met before; nobody goes back."""
        share = self._world.candidate_share(self._at)
        if share <= self._share:
            return
        part = (share - self._share) / (1 - self._share)
        self._share = share
        for name, pool in self._pools.items():
            leaving = self._random.binomial(pool[:, BASELINE:], part)
            moved = pool.copy()
            moved[:, BASELINE:] -= leaving
            moved[:, CANARY] += leaving.sum(axis=1)
            self._pools[name] = moved

    def _churn(self) -> None:
        part = 1 - (1 - LEAVES) ** self._tick_seconds
        left = {name: self._random.binomial(pool, part) for name, pool in self._pools.items()}
        coming = sum(left.values())
        bad = self._random.binomial(coming, self._world.always_failing)
        for name, pool in self._pools.items():
            self._pools[name] = pool - left[name]
        self._pools["fresh"] = self._pools["fresh"] + coming - bad
        self._pools["bad"] = self._pools["bad"] + bad

    def _latencies(self, counts: Counts, factor: float) -> Floats:
        """How many of each release's answers lie in each bucket, (R, B + 1)."""
        buckets = len(self._edges.seconds) + 1
        if not self._world.latencies:
            return np.zeros((len(counts), buckets))
        drawn = self._random.integers(0, GRAIN, int(counts.sum()), dtype=np.uint16)
        place = self._table(factor)[drawn] + np.repeat(np.arange(len(counts)) * buckets, counts)
        return np.bincount(place, minlength=len(counts) * buckets).reshape(-1, buckets).astype(np.float64)

    def _table(self, factor: float) -> npt.NDArray[np.int64]:
        """The bucket of each of 65536 equally probable latencies; factors are told apart to a hundredth."""
        grain = round(factor * 100)
        if grain not in self._tables:
            normal = _normal_quantiles()
            latencies = MEDIAN_SECONDS * grain / 100 * np.exp(SIGMA * normal)
            self._tables[grain] = np.searchsorted(self._edges.seconds, latencies)
        return self._tables[grain]


def _normal_quantiles() -> Floats:
    """Of the standard normal distribution at the middle of each of 65536 equal parts."""
    grid = np.linspace(-6, 6, 200_001)
    steps = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    upto = np.cumsum(steps) - steps / 2
    return np.interp((np.arange(GRAIN) + 0.5) / GRAIN, upto / steps.sum(), grid)
