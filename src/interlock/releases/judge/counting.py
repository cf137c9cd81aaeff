"""From what the proxy saw to what a judge may count: users instead of requests, each of them failing once.

Requests of one user are not independent of each other. A client that always fails makes a hundred failures of one, a
retry four; whoever counts requests sends good versions back because of a handful of such users. So what is counted are
users who meet their *first* error, among the users who came in the tick and met none before (the log-rank test's users
at risk), on whichever version they met it. A user whom the ramp carries from one version to the other brings no old
trouble with him.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
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
_CANDIDATE, _ERROR, _REFUSED = 1, 2, 4
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
    keys: list[int]
    """Whose they are, as hashes; negative where nobody is known."""
    came: float
    """All who came."""


class TickCounts(NamedTuple):
    """Of both versions."""

    stable: ArmCounts
    candidate: ArmCounts


class Counter:
    """Remembers who met an error, and which requests were counted.

    Args:
        stable: The arms' names; samples of any other are not looked at.
        candidate: As above.
        requests_together_max: So many requests without a user are thought to fail together.
    """

    def __init__(self, stable: str, candidate: str, *, requests_together_max: int) -> None:
        self._arms = {stable: 0, candidate: _CANDIDATE}
        self._anonymous_weight = 1.0 / requests_together_max
        self._erred: set[int] = set()
        self._refused: set[int] = set()
        self._requests: dict[int, None] = {}
        self.halvings = 0
        """One user of 2 ** halvings is counted."""
        self.anonymous = 0
        """Requests whose user was not known."""

    def count(self, samples: Iterable[Sample]) -> TickCounts:
        """Count one tick's samples, each once."""
        met, latencies = self._meetings(samples)
        stable = self._arm([key for key, flags in met.items() if not flags & _CANDIDATE], met, latencies)
        candidate = self._arm([key for key, flags in met.items() if flags & _CANDIDATE], met, latencies)
        self._remember(met)
        return TickCounts(stable, candidate)

    def state(self) -> JsonObject:
        """What `restore` takes."""
        return {
            "erred": [*sorted(self._erred)],
            "refused": [*sorted(self._refused)],
            "requests": [*self._requests],
            "halvings": self.halvings,
            "anonymous": self.anonymous,
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`."""
        self._erred = set(_keys(state, "erred"))
        self._refused = set(_keys(state, "refused"))
        self._requests = dict.fromkeys(_keys(state, "requests"))
        self.halvings = whole(state, "halvings")
        self.anonymous = whole(state, "anonymous")

    def _meetings(self, samples: Iterable[Sample]) -> tuple[dict[int, int], dict[int, float]]:
        """What each user met, as flags, and his first good answer's seconds.

        Users by a hash of their name, requests of nobody known by negative numbers.
        """
        met: dict[int, int] = {}
        latencies: dict[int, float] = {}
        for sample in samples:
            arm, status, unit, fell_back = sample.arm, sample.status, sample.unit, sample.fell_back
            if sample.client_left or arm not in self._arms:
                continue
            key = self._key(sample, len(met)) if self.halvings or not unit else zlib.crc32(unit.encode())
            if key is None:
                continue
            # Whom the stable version answered in place of the candidate was failed by the candidate.
            candidate = _CANDIDATE if fell_back else self._arms[arm]
            flags = met.get(key, candidate)
            if fell_back:
                flags |= _CANDIDATE
            elif flags & _CANDIDATE != candidate:
                continue  # one user, one version in a tick: the one he met first
            if fell_back or status >= ERROR_STATUS_MIN or status == NO_ANSWER:
                flags |= _ERROR
            elif status >= REFUSED_STATUS_MIN:
                flags |= _REFUSED
            else:
                latencies.setdefault(key, sample.seconds)
            met[key] = flags
        return met, latencies

    def _arm(self, keys: list[int], met: Mapping[int, int], latencies: Mapping[int, float]) -> ArmCounts:
        came = self._weigh(keys)
        answered = [key for key in keys if key in latencies]
        trouble = [key for key in keys if met[key] > _CANDIDATE]
        return ArmCounts(
            seen=came - self._weigh(self._erred.intersection(keys)),
            errors=self._weigh([key for key in trouble if met[key] & _ERROR and key not in self._erred]),
            asked=came - self._weigh(self._refused.intersection(keys)),
            refusals=self._weigh([key for key in trouble if met[key] & _REFUSED and key not in self._refused]),
            latencies=np.array([latencies[key] for key in answered], dtype=np.float64),
            weights=self._weights(answered),
            keys=answered,
            came=came,
        )

    def _weights(self, keys: list[int]) -> Floats:
        if not self.anonymous:
            return np.ones(len(keys))
        return np.where(np.array(keys, dtype=np.int64) < 0, self._anonymous_weight, 1.0)

    def _weigh(self, keys: Collection[int]) -> float:
        """Users count 1, requests of nobody known a part."""
        anonymous = sum(key < 0 for key in keys) if self.anonymous else 0
        return len(keys) - anonymous * (1 - self._anonymous_weight)

    def _key(self, sample: Sample, number: int) -> int | None:
        """What the sample is counted under; None when it is not counted."""
        if sample.unit:
            key = zlib.crc32(sample.unit.encode())
            return None if key % (1 << self.halvings) else key
        self.anonymous += 1
        if not sample.request:
            return -number - 1 - _BEYOND_CRC
        key = -zlib.crc32(sample.request.encode()) - 1
        return None if key in self._requests else key

    def _remember(self, met: Mapping[int, int]) -> None:
        for key, flags in met.items():
            if key < 0:
                if key >= -_BEYOND_CRC:
                    self._requests[key] = None
            elif flags > _CANDIDATE:
                if flags & _ERROR:
                    self._erred.add(key)
                if flags & _REFUSED:
                    self._refused.add(key)
        while len(self._requests) > REQUESTS_MAX:
            del self._requests[next(iter(self._requests))]
        while max(len(self._erred), len(self._refused)) > UNITS_MAX:
            self._halve()

    def _halve(self) -> None:
        self.halvings += 1
        step = 1 << self.halvings
        self._erred = {key for key in self._erred if key % step == 0}
        self._refused = {key for key in self._refused if key % step == 0}


def is_error(sample: Sample) -> bool:
    """Whether the version failed: no answer, an answer from 500 on, or one that another version had to give."""
    return sample.fell_back or sample.status == NO_ANSWER or sample.status >= ERROR_STATUS_MIN


def _keys(state: JsonObject, name: str) -> list[int]:
    found = state.get(name)
    size = len(found) if isinstance(found, list) else 0
    return [int(each) for each in from_json(state, name, (size,))]
