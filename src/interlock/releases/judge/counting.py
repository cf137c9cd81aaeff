"""From what the proxy saw to what a judge may count: users instead of requests, each of them failing once.

Requests of one user are not independent of each other. A client that always fails makes a hundred failures of one, a
retry four; whoever counts requests sends good versions back because of a handful of such users. So what is counted are
users who meet their *first* error, among the users who came in the tick and met none before (the log-rank test's users
at risk), on whichever version they met it. A user whom the ramp carries from one version to the other brings no old
trouble with him.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from interlock.core.model import JsonObject
from interlock.core.traffic import Sample
from interlock.releases.judge.state import Floats, from_json, whole

UNITS_MAX = 20_000
"""So many users who met an error are remembered. When they are more, one user of two is counted from then on, chosen by
hash; then one of four, and so on: less evidence, as sound."""
REQUESTS_MAX = 5_000
"""So many recent requests of nobody known are remembered, so that attempts of one request count once."""
ERROR_STATUS_MIN = 500
REFUSED_STATUS_MIN = 400
NO_ANSWER = 0
_BEYOND_CRC = 1 << 33
"""Keys of requests that have no id lie below all others."""


class ArmCounts(NamedTuple):
    """Users of one version in one tick (or requests, each as 1 / `requests_together_max` of a user)."""

    seen: float
    """Who came and had met no error before."""
    errors: float
    """Who met the first."""
    asked: float
    """Who came and had not been refused before."""
    refusals: float
    """Who were refused for the first time."""
    latencies: Floats
    """Seconds: one good answer of each."""
    weights: Floats
    """What each of these answers counts."""
    came: bool
    """Whether anybody came at all."""


class TickCounts(NamedTuple):
    """Of both versions."""

    stable: ArmCounts
    candidate: ArmCounts


class _Unit:
    """What one user (or one request of nobody known) met in one tick."""

    __slots__ = ("candidate", "error", "latency", "refused", "weight")

    def __init__(self, *, candidate: bool, weight: float) -> None:
        self.candidate = candidate
        self.weight = weight
        self.error = False
        self.refused = False
        self.latency: float | None = None


class Counter:
    """Remembers who met an error, and which requests were counted.

    Args:
        stable: The arms' names; samples of any other are not looked at.
        candidate: As above.
        requests_together_max: So many requests without a user are thought to fail together.
    """

    def __init__(self, stable: str, candidate: str, *, requests_together_max: int) -> None:
        self._stable = stable
        self._candidate = candidate
        self._anonymous_weight = 1.0 / requests_together_max
        self._erred: set[int] = set()
        self._refused: set[int] = set()
        self._requests: dict[int, None] = {}
        self.halvings = 0
        """One user of 2 ** halvings is counted."""
        self.known = 0
        """Requests whose user was known."""
        self.anonymous = 0
        """Requests whose user was not."""

    def count(self, samples: Iterable[Sample]) -> TickCounts:
        """Count one tick's samples, each once."""
        units = self._units(samples)
        stable, candidate = _Sums(), _Sums()
        for key, unit in units.items():
            sums = candidate if unit.candidate else stable
            sums.came = True
            named = key >= 0
            if not (named and key in self._erred):
                sums.seen += unit.weight
                sums.errors += unit.weight * unit.error
            if not (named and key in self._refused):
                sums.asked += unit.weight
                sums.refusals += unit.weight * unit.refused
            if named and unit.error:
                self._erred.add(key)
            if named and unit.refused:
                self._refused.add(key)
            if unit.latency is not None:
                sums.latencies.append(unit.latency)
                sums.weights.append(unit.weight)
        self._remember(key for key in units if key < 0)
        while max(len(self._erred), len(self._refused)) > UNITS_MAX:
            self._halve()
        return TickCounts(stable.counts(), candidate.counts())

    def state(self) -> JsonObject:
        """What `restore` takes."""
        return {
            "erred": [*sorted(self._erred)],
            "refused": [*sorted(self._refused)],
            "requests": [*self._requests],
            "halvings": self.halvings,
            "known": self.known,
            "anonymous": self.anonymous,
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`."""
        self._erred = set(_keys(state, "erred"))
        self._refused = set(_keys(state, "refused"))
        self._requests = dict.fromkeys(_keys(state, "requests"))
        self.halvings = whole(state, "halvings")
        self.known = whole(state, "known")
        self.anonymous = whole(state, "anonymous")

    def _units(self, samples: Iterable[Sample]) -> dict[int, _Unit]:
        """Users by a hash of their name; requests of nobody known by negative numbers."""
        units: dict[int, _Unit] = {}
        arms = {self._stable, self._candidate}
        for sample in samples:
            if sample.client_left or sample.arm not in arms:
                continue
            key = self._key(sample, len(units))
            if key is None:
                continue
            # Whom the stable version answered in place of the candidate was failed by the candidate.
            candidate = sample.fell_back or sample.arm == self._candidate
            unit = units.get(key)
            if unit is None:
                unit = units[key] = _Unit(candidate=candidate, weight=1.0 if key >= 0 else self._anonymous_weight)
            elif sample.fell_back:
                unit.candidate = True
            elif unit.candidate != candidate:
                continue  # one user, one version in a tick: the one he met first
            _meet(unit, sample)
        return units

    def _key(self, sample: Sample, number: int) -> int | None:
        """What the sample is counted under; None when it is not counted."""
        if sample.unit:
            self.known += 1
            key = zlib.crc32(sample.unit.encode())
            return None if key % (1 << self.halvings) else key
        self.anonymous += 1
        if not sample.request:
            return -number - 1 - _BEYOND_CRC
        key = -zlib.crc32(sample.request.encode()) - 1
        return None if key in self._requests else key

    def _remember(self, keys: Iterable[int]) -> None:
        for key in keys:
            if key >= -_BEYOND_CRC:
                self._requests[key] = None
        while len(self._requests) > REQUESTS_MAX:
            del self._requests[next(iter(self._requests))]

    def _halve(self) -> None:
        self.halvings += 1
        step = 1 << self.halvings
        self._erred = {key for key in self._erred if key % step == 0}
        self._refused = {key for key in self._refused if key % step == 0}


class _Sums:
    """What adds up to `ArmCounts`."""

    def __init__(self) -> None:
        self.seen = self.errors = self.asked = self.refusals = 0.0
        self.latencies: list[float] = []
        self.weights: list[float] = []
        self.came = False

    def counts(self) -> ArmCounts:
        return ArmCounts(
            seen=self.seen,
            errors=self.errors,
            asked=self.asked,
            refusals=self.refusals,
            latencies=np.array(self.latencies, dtype=np.float64),
            weights=np.array(self.weights, dtype=np.float64),
            came=self.came,
        )


def is_error(sample: Sample) -> bool:
    """Whether the version failed: no answer, an answer from 500 on, or one that another version had to give."""
    return sample.fell_back or sample.status == NO_ANSWER or sample.status >= ERROR_STATUS_MIN


def _meet(unit: _Unit, sample: Sample) -> None:
    if is_error(sample):
        unit.error = True
    elif sample.status >= REFUSED_STATUS_MIN:
        unit.refused = True
    elif unit.latency is None:
        unit.latency = sample.seconds


def _keys(state: JsonObject, name: str) -> list[int]:
    found = state.get(name)
    size = len(found) if isinstance(found, list) else 0
    return [int(each) for each in from_json(state, name, (size,))]
