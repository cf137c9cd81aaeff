"""How often each version exceeds the stable version's quantiles: what latencies put into e-processes.

tau, the stable version's quantile of the minutes *before* the tick, is a threshold that nothing of the tick could
choose. The claim "the candidate exceeds (1 + d) tau no more often than the stable version exceeds tau" is one about two
rates in the same tick; where tau is the stable version's true quantile it is "the candidate's quantile is at most
(1 + d) times the stable version's". Where (1 + d) tau is less than tau and what nobody notices, the latter counts: that
only makes the claim weaker. Only requests of one tick are compared, so what changes for both changes nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from interlock.core.model import JsonObject
from interlock.releases.judge.state import Floats, from_json, to_json

Indexes = npt.NDArray[np.int64]
Known = npt.NDArray[np.bool_]

SHORTEST_SECONDS = 0.0001
LONGEST_SECONDS = 1000.0
WIDTH_MAX = math.log(1.025)
"""Of a bucket, as a logarithm: thresholds lie on edges."""
HALF_LIFE_SECONDS = 60.0
"""What the stable version did so long ago counts half: a window of about one to five minutes."""
KEPT_MIN = 1000.0
"""Of so few answers nothing is forgotten: where traffic is thin the window is longer."""
FORGOTTEN = 1e-6
"""What weighs less is forgotten."""
BEYOND_MIN = 5.0
"""A quantile is used from when so many answers of the window lie beyond it."""


class Exceedances(NamedTuple):
    """Of one tick, for Q quantiles: arrays of the shape (..., Q)."""

    stable: Floats
    """How many answers of the stable version took longer than tau."""
    candidate: Floats
    """How many of the candidate's took longer than tau."""
    candidate_margin: Floats
    """How many of the candidate's took longer than (1 + d) tau."""
    stable_seen: Floats
    """Of how many; 0 while tau is not known."""
    candidate_seen: Floats


class Edges:
    """Upper edges of buckets in seconds, and for each the edge that is at least (1 + margin) times as long, and longer
    by `harmless_seconds`.

    A latency lies in bucket i if edge i - 1 < latency <= edge i; the last bucket holds what exceeds all edges.
    """

    def __init__(self, seconds: Floats, margin: float, harmless_seconds: float = 0.0) -> None:
        self.seconds = seconds
        allowed = np.maximum(seconds * (1 + margin), seconds + harmless_seconds)
        beyond = np.searchsorted(seconds, allowed * (1 - 1e-9))
        self.margin_index = np.minimum(beyond, len(seconds))
        """`len(seconds)` where no edge is that long: nothing is known to exceed it."""

    @classmethod
    def logarithmic(
        cls,
        margin: float,
        *,
        harmless_seconds: float = 0.0,
        shortest: float = SHORTEST_SECONDS,
        longest: float = LONGEST_SECONDS,
    ) -> Edges:
        """Edges of which one always lies at exactly (1 + margin) times another."""
        width = math.log1p(margin) / math.ceil(math.log1p(margin) / WIDTH_MAX)
        count = math.ceil(math.log(longest / shortest) / width)
        return cls(shortest * np.exp(width * np.arange(count + 1)), margin, harmless_seconds)

    def count(self, latencies: Floats, *weights: Floats) -> list[Floats]:
        """For each way to weigh them what lies in each bucket, (len(seconds) + 1,).

        A latency that is no number was never seen.
        """
        seen = np.isfinite(latencies)
        index = np.searchsorted(self.seconds, latencies[seen])
        counted = (np.bincount(index, each[seen], minlength=len(self.seconds) + 1) for each in weights)
        return [each.astype(np.float64, copy=False) for each in counted]


class LatencyWatch:
    """The stable version's recent latencies as a histogram that forgets, and what exceeds its quantiles.

    Args:
        edges: B of them.
        quantiles: Q of them.
        shape: Of whatever runs beside each other: () for one release, (R,) for a simulation.
    """

    def __init__(self, edges: Edges, quantiles: tuple[float, ...], shape: tuple[int, ...] = ()) -> None:
        self._edges = edges
        self._quantiles = np.array(quantiles)
        self._kept_min = max(KEPT_MIN, 2 * BEYOND_MIN / (1 - max(quantiles)))
        self._recent = np.zeros((*shape, len(edges.seconds) + 1))
        self._margin_index = np.append(edges.margin_index, len(edges.seconds))
        self._index, self._known = self._thresholds()

    def thresholds(self) -> Floats:
        """The thresholds tau in seconds, (..., Q); NaN while it is not known."""
        seconds = np.append(self._edges.seconds, np.inf)[self._index]
        return cast("Floats", np.where(self._known, seconds, np.nan))

    def tick(
        self, stable: Floats, candidate: Floats, elapsed_seconds: float, *, answers: Floats | None = None
    ) -> Exceedances:
        """Count what exceeds the thresholds of before this tick; only then let the tick change them.

        Args:
            stable: How many of its answers lie in each bucket, (..., B + 1).
            candidate: The same of the candidate.
            elapsed_seconds: Since the tick before.
            answers: What quantiles are learnt from: all answers of the stable version, when `stable` weighs them.
        """
        index, known = self._index, self._known
        margin = self._margin_index[index]
        stable_upto = np.cumsum(stable, axis=-1)
        candidate_upto = np.cumsum(candidate, axis=-1)
        stable_seen, candidate_seen = stable_upto[..., -1:], candidate_upto[..., -1:]
        found = Exceedances(
            stable=np.where(known, stable_seen - np.take_along_axis(stable_upto, index, -1), 0.0),
            candidate=np.where(known, candidate_seen - np.take_along_axis(candidate_upto, index, -1), 0.0),
            candidate_margin=np.where(known, candidate_seen - np.take_along_axis(candidate_upto, margin, -1), 0.0),
            stable_seen=np.where(known, stable_seen, 0.0),
            candidate_seen=np.where(known, candidate_seen, 0.0),
        )
        total = np.maximum(self._recent.sum(axis=-1, keepdims=True), self._kept_min)
        self._recent *= np.maximum(0.5 ** (elapsed_seconds / HALF_LIFE_SECONDS), self._kept_min / total)
        self._recent[self._recent < FORGOTTEN] = 0.0
        self._recent += stable if answers is None else answers
        self._index, self._known = self._thresholds()
        return found

    def expected_shares(self) -> tuple[Floats, Floats]:
        """Which part of the stable version's recent answers exceeded tau, and (1 + d) tau; both (..., Q)."""
        index, known = self._index, self._known
        margin = self._margin_index[index]
        upto = np.cumsum(self._recent, axis=-1)
        total = np.maximum(upto[..., -1:], 1e-9)
        beyond = 1 - np.take_along_axis(upto, index, -1) / total
        beyond_margin = 1 - np.take_along_axis(upto, margin, -1) / total
        return np.where(known, beyond, 0.0), np.where(known, beyond_margin, 0.0)

    def state(self) -> JsonObject:
        """What `restore` takes: only the buckets that are not empty."""
        (filled,) = np.nonzero(self._recent.ravel())
        return {"buckets": [int(each) for each in filled], "recent": to_json(self._recent.ravel()[filled])}

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid when it is of other edges."""
        found = state.get("buckets")
        size = len(found) if isinstance(found, list) else 0
        filled = from_json(state, "buckets", (size,), largest=float(self._recent.size - 1)).astype(np.int64)
        recent = from_json(state, "recent", (size,))
        flat = np.zeros(self._recent.size)
        flat[np.maximum(filled, 0)] = np.maximum(recent, 0.0)
        self._recent = flat.reshape(self._recent.shape)
        self._index, self._known = self._thresholds()

    def _thresholds(self) -> tuple[Indexes, Known]:
        """The bucket whose upper edge is tau, (..., Q), and whether tau is known."""
        upto = np.cumsum(self._recent, axis=-1)
        total = upto[..., -1]
        reached = total[..., None] * self._quantiles * (1 - 1e-12)
        columns = [np.count_nonzero(upto < reached[..., q, None], axis=-1) for q in range(len(self._quantiles))]
        index = np.stack(columns, axis=-1)
        known = (total[..., None] * (1 - self._quantiles) >= BEYOND_MIN) & (index < len(self._edges.seconds))
        return index, known
