"""What both versions counted between the same two moments; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, Self

from interlock.core.model import JsonObject
from interlock.releases.judge.state import invalid_state, number, part


class Tally(NamedTuple):
    """What one version counted. `buckets`: upper edge in seconds -> how many requests took at most so long."""

    requests: float
    errors: float
    buckets: Mapping[float, float]

    def state(self) -> JsonObject:
        """What `restored` takes."""
        buckets: JsonObject = {repr(edge): count for edge, count in self.buckets.items()}
        return {"requests": self.requests, "errors": self.errors, "buckets": buckets}

    @classmethod
    def restored(cls, state: JsonObject) -> Self:
        """From a `state`. Raises Invalid."""
        found = part(state, "buckets")
        try:
            buckets = {float(edge): number(found, edge) for edge in found}
        except ValueError as fault:
            name = "buckets"
            raise invalid_state(name) from fault
        return cls(number(state, "requests"), number(state, "errors"), buckets)


class Both(NamedTuple):
    """Of the two versions."""

    stable: Tally
    candidate: Tally


class Growth(NamedTuple):
    """What both versions counted in the same stretch of time."""

    both: Both
    seconds: float


def is_sound(tally: Tally) -> bool:
    """Whether these are counts: finite, none negative."""
    values = (tally.requests, tally.errors, *tally.buckets.values())
    return all(math.isfinite(value) and value >= 0 for value in values)


def grown(before: Tally, after: Tally) -> Tally:
    """What was counted between two readings. A process that began anew counts from zero: then all it says is new.
    Buckets that are not the same as before say nothing this time."""
    same = before.buckets.keys() == after.buckets.keys()
    pairs = [(before.requests, after.requests), (before.errors, after.errors)]
    pairs += [(count, after.buckets[edge]) for edge, count in before.buckets.items()] if same else []
    if any(later < earlier for earlier, later in pairs):
        return after
    buckets = {edge: count - before.buckets[edge] for edge, count in after.buckets.items()} if same else {}
    return tally_of(after.requests - before.requests, after.errors - before.errors, buckets)


def tally_of(requests: float, errors: float, buckets: Mapping[float, float]) -> Tally:
    """A tally that is consistent: counters are read one after another, and interpolated, so that errors may be ahead
    of requests and a bucket ahead of the next one by a little."""
    rising, most = {}, 0.0
    for edge in sorted(buckets):
        most = max(most, buckets[edge])
        rising[edge] = most
    return Tally(max(requests, errors), errors, rising)


def inside(buckets: Mapping[float, float]) -> tuple[tuple[float, ...], list[float]]:
    """The finite edges, and how many lie in each bucket, the last one beyond all edges; nothing where the histogram
    does not say how many there are in all."""
    edges = sorted(buckets)
    if len(edges) < 2 or edges[-1] != math.inf:  # noqa: PLR2004 - one edge, and infinity
        return (), []
    counts = [buckets[edge] for edge in edges]
    return tuple(edges[:-1]), [counts[0], *(after - before for before, after in pairwise(counts))]
