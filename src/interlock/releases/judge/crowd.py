"""What another answer to the same user still tells: users differ in how slow everything is for them.

A heavy account is slow on any version, and stays with the version it got. Whoever counts all of its answers takes
twenty slow accounts for a slow version. With rho the correlation between two answers to one user (of exceeding a
threshold or not), k of them tell as much as k / (1 + (k - 1) rho) answers to different users (Kish's design effect).
So the k-th counts

    w_k = k / (1 + (k - 1) rho) - (k - 1) / (1 + (k - 2) rho),

which is 1 for everybody's first, always 1 where users do not differ, and soon next to nothing where they do. rho is
learnt from pairs of answers that the stable version gave to the same user. This is an approximation: evidence from
latencies is exact where rho is 0 and close to exact else, which is measured (`make bench`), not proven.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from interlock.core.model import JsonObject
from interlock.releases.judge.state import Floats, from_json, invalid_state, to_json, whole

USERS_MAX = 10_000
"""So many users' answers are counted, and those of as many who came before them. Who stays away longer counts as
somebody new: where there are so many, how they differ is averaged out."""
PAIRED_MAX = 1000
"""From so many users rho is learnt. When they are more, one of two is taken from then on, chosen by hash."""
ANSWERS_MAX = 300
"""Of one user; further ones count as the last."""
_NUMBERS = np.arange(1, ANSWERS_MAX + 1)
PAIRS_MIN = 30
"""Before so many pairs were seen, users are thought to differ as much as can be."""


class Crowd:
    """Whose latencies were counted how often, and how much users differ.

    Args:
        quantiles: How many thresholds there are.
    """

    def __init__(self, quantiles: int) -> None:
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._places: dict[int, int] = {}
        self._rows = np.zeros((0, 2, quantiles))
        """By place, of who is paired, for each threshold: how many answers, and how many of them exceeded it."""
        self._halvings = 0
        self._pairs = np.zeros(quantiles)
        self._both = np.zeros(quantiles)
        self._seen = np.zeros(quantiles)
        self.rho = 1.0
        """The correlation of two answers to the same user, at the threshold where it is greatest; rather too much."""
        self._table = weight_of(_NUMBERS, self.rho)
        """What the first, second, ... answer to one user counts, until more is learnt."""
        self._beyond = np.zeros(quantiles)

    @property
    def learnt(self) -> bool:
        """Whether `rho` is more than what is thought before anything is known."""
        return bool((self._pairs >= PAIRS_MIN).any())

    def take(self, keys: list[int], weights: Floats) -> Floats:
        """What one answer to each of these users counts, and remember that each of them got one.

        Negative keys are nobody known: what they count stays as it is.
        """
        if not keys:
            return weights
        recent, older = self._recent, self._older
        earlier = np.array([recent.get(key) or older.get(key, 0) for key in keys])
        recent.update(zip(keys, np.minimum(earlier + 1, ANSWERS_MAX - 1).tolist(), strict=True))
        if min(keys) < 0:
            for key in keys:
                if key < 0:
                    del recent[key]
        if len(recent) > USERS_MAX:
            self._recent, self._older = {}, recent
        return cast("Floats", weights * self._table[earlier])

    def learn(self, keys: list[int], latencies: Floats, thresholds: Floats) -> None:
        """Learn from the stable version's answers how much users differ.

        Args:
            keys: Whose; as many as `latencies`.
            latencies: In seconds.
            thresholds: As they were before the tick; NaN where one is not known yet.
        """
        known = ~np.isnan(thresholds)
        if not known.any():
            return
        others = (1 << self._halvings) - 1
        chosen = [place for place, key in enumerate(keys) if not key & others and key >= 0]
        if chosen:
            self._pair([keys[place] for place in chosen], latencies[chosen, None] > thresholds, known)
            self._conclude()

    def state(self) -> JsonObject:
        """What `restore` takes; exact."""
        return {
            "recent": _pairs_of(self._recent),
            "older": _pairs_of(self._older),
            "halvings": self._halvings,
            "paired": [*self._places],
            "rows": to_json(self._rows[: len(self._places)]),
            "pairs": to_json(self._pairs),
            "both": to_json(self._both),
            "seen": to_json(self._seen),
            "beyond": to_json(self._beyond),
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        self._recent, self._older = _answers(state, "recent"), _answers(state, "older")
        paired = _whole_list(state, "paired")
        self._places = {key: place for place, key in enumerate(paired)}
        self._rows = from_json(state, "rows", (len(paired), 2, len(self._both)))
        self._halvings = whole(state, "halvings")
        self._pairs = from_json(state, "pairs", self._pairs.shape)
        self._seen = from_json(state, "seen", self._seen.shape)
        self._both = from_json(state, "both", self._both.shape)
        self._beyond = from_json(state, "beyond", self._beyond.shape)
        self._conclude()

    def _pair(self, keys: list[int], beyond: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> None:
        """Pair these users' answers, (N, quantiles), with all earlier ones of the same user, where tau is known."""
        places = self._places
        for key in keys:
            places.setdefault(key, len(places))
        missing = len(places) - len(self._rows)
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, missing), (0, 0), (0, 0)))
        index = [places[key] for key in keys]
        earlier = self._rows[index]
        self._pairs += earlier[:, 0].sum(axis=0) * known
        self._both += (earlier[:, 1] * beyond).sum(axis=0)
        self._seen += len(keys) * known
        self._beyond += beyond.sum(axis=0)
        self._rows[index] += np.stack([np.broadcast_to(known, beyond.shape), beyond], axis=1)
        while len(self._places) > PAIRED_MAX:
            self._halvings += 1
            others = (1 << self._halvings) - 1
            kept = [key for key in self._places if not key & others]
            self._rows = self._rows[[self._places[key] for key in kept]]
            self._places = {key: place for place, key in enumerate(kept)}

    def _conclude(self) -> None:
        """What the pairs say of rho, with one standard error of the estimate on top."""
        known = self._pairs >= PAIRS_MIN
        if known.any():
            share, pairs = self._beyond[known] / self._seen[known], self._pairs[known]
            spread = np.maximum(share * (1 - share), 1e-9)
            found = (self._both[known] / pairs - share**2) / spread + 1 / np.sqrt(pairs)
            self.rho = float(min(max(found.max(), 0.0), 1.0))
            self._table = weight_of(_NUMBERS, self.rho)


def weight_of(number: npt.NDArray[np.int64], rho: float) -> Floats:
    """What the k-th answer to one user counts, for k = `number` >= 1."""
    before = number - 1
    told_before = np.where(before > 0, before / np.maximum(1 + (before - 1) * rho, 1e-12), 0.0)
    return cast("Floats", np.maximum(number / (1 + before * rho) - told_before, 0.0))


def _pairs_of(answers: dict[int, int]) -> list[JsonValue]:
    """Key, count, key, count, ..."""
    return [each for pair in answers.items() for each in pair]


def _answers(state: JsonObject, name: str) -> dict[int, int]:
    flat = _whole_list(state, name)
    counts = [min(max(count, 0), ANSWERS_MAX - 1) for count in flat[1::2]]
    if len(flat) % 2:
        raise invalid_state(name)
    return dict(zip(flat[::2], counts, strict=True))


def _whole_list(state: JsonObject, name: str) -> list[int]:
    found = state.get(name)
    return [int(each) for each in from_json(state, name, (len(found) if isinstance(found, list) else 0,))]
