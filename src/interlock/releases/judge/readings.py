"""Counters and histograms of both versions, read now and then, to what happened between two readings."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from interlock.core.model import JsonObject
from interlock.releases.judge.latency import Edges, Exceedances, LatencyWatch
from interlock.releases.judge.state import Floats, from_json, number, part

COUNT_MAX = 2.0**53
"""What says more counted something else: beyond it a number is no longer told from the next one."""


class Reading(NamedTuple):
    """What one version tells of one measure, counted since it began: counters, or a histogram's buckets."""

    bad: float = 0.0
    total: float = 0.0
    buckets: tuple[tuple[float, float], ...] = ()
    """(upper edge in seconds, how many lie at or below it), the last edge infinite; for a histogram only."""


class Readings(NamedTuple):
    """Of one measure; None for a version that told nothing this time."""

    stable: Reading | None = None
    candidate: Reading | None = None


class Brought(NamedTuple):
    """Between two readings: what of which."""

    stable_bad: float = 0.0
    stable_seen: float = 0.0
    candidate_bad: float = 0.0
    candidate_bad_margin: float = 0.0
    candidate_seen: float = 0.0


class CounterPair:
    """Two counters of each version.

    Both versions are read for the same stretch of time or not at all: when one of them is silent, the next reading of
    both covers what was missed. A counter that is less than before began anew, and all it says is new.
    """

    def __init__(self) -> None:
        self._before: Readings | None = None

    def take(self, now: Readings, _elapsed_seconds: float) -> Brought:
        """What happened since the last time that both told something."""
        stable, candidate = now
        if stable is None or candidate is None or not (_sound(stable) and _sound(candidate)):
            return Brought()
        before, self._before = self._before, now
        if before is None or before.stable is None or before.candidate is None:
            return Brought()
        stable_bad, stable_seen = _since(before.stable, stable)
        candidate_bad, candidate_seen = _since(before.candidate, candidate)
        return Brought(stable_bad, stable_seen, candidate_bad, candidate_bad, candidate_seen)

    def state(self) -> JsonObject:
        """What `restore` takes."""
        return {"before": [] if self._before is None else [*_flat(self._before)]}

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        found = state.get("before")
        size = 4 if found else 0
        values = from_json(state, "before", (size,)).tolist()
        self._before = Readings(Reading(*values[:2]), Reading(*values[2:])) if values else None


class HistogramPair:
    """A histogram of each version, compared where the stable version's quantile lies.

    Thresholds lie on the histogram's own edges, and the candidate's is the next edge at or beyond the margin; so the
    counting is exact, and where edges are far apart the margin is wider than was asked for.
    """

    def __init__(self, quantile: float, margin: float) -> None:
        self._quantile = quantile
        self._margin = margin
        self._edges: tuple[float, ...] = ()
        self._watch: LatencyWatch | None = None
        self._before: tuple[Floats, Floats] | None = None
        self._elapsed_seconds = 0.0

    def take(self, now: Readings, elapsed_seconds: float) -> Brought:
        """What happened since the last time that both told something."""
        self._elapsed_seconds += elapsed_seconds
        if now.stable is None or now.candidate is None:
            return Brought()
        edges, stable = _buckets(now.stable)
        other, candidate = _buckets(now.candidate)
        if not edges or edges != other:
            return Brought()
        if edges != self._edges or self._watch is None:
            self._open(edges)
            self._before = (stable, candidate)
            return Brought()
        if self._before is None:
            self._before = (stable, candidate)
            return Brought()
        pairs = zip((stable, candidate), self._before, strict=True)
        grown = [after - before if np.all(after >= before) else after for after, before in pairs]
        self._before = (stable, candidate)
        found = self._watch.tick(grown[0], grown[1], self._elapsed_seconds)
        self._elapsed_seconds = 0.0
        return _brought(found)

    @property
    def threshold_seconds(self) -> float | None:
        """Where the stable version's quantile lies now."""
        found = math.nan if self._watch is None else float(self._watch.thresholds()[0])
        return None if math.isnan(found) else found

    def expected_shares(self) -> tuple[float, float]:
        """Which part of the stable version's exceeds the threshold, and the margin beyond it."""
        if self._watch is None:
            return 0.0, 0.0
        plain, margin = self._watch.expected_shares()
        return float(plain[0]), float(margin[0])

    def state(self) -> JsonObject:
        """What `restore` takes."""
        before: list[JsonValue] = [] if self._before is None else [*np.concatenate(self._before).tolist()]
        watch: JsonObject = {} if self._watch is None else self._watch.state()
        return {"edges": [*self._edges], "before": before, "watch": watch, "elapsed": self._elapsed_seconds}

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        found, told = state.get("edges"), state.get("before")
        self._elapsed_seconds = number(state, "elapsed")
        edges = from_json(state, "edges", (len(found) if isinstance(found, list) else 0,))
        if not edges.size:
            return
        watch = self._open(tuple(edges.tolist()))
        watch.restore(part(state, "watch"))
        if told:
            before = from_json(state, "before", (2, len(edges) + 1))
            self._before = (before[0], before[1])

    def _open(self, edges: tuple[float, ...]) -> LatencyWatch:
        self._edges = edges
        self._watch = LatencyWatch(Edges(np.array(edges), self._margin), (self._quantile,))
        return self._watch


def _sound(reading: Reading) -> bool:
    """Whether a counter can say this: a version tells it of itself, and may tell anything."""
    return all(0 <= value <= COUNT_MAX for value in (reading.bad, reading.total))


def _since(before: Reading, now: Reading) -> tuple[float, float]:
    began_anew = now.total < before.total or now.bad < before.bad
    total = now.total if began_anew else now.total - before.total
    bad = now.bad if began_anew else now.bad - before.bad
    return bad, max(total, bad)  # read at the same moment, yet not counted at the same moment


def _flat(readings: Readings) -> list[float]:
    return [value for each in readings if each is not None for value in each[:2]]


def _buckets(reading: Reading) -> tuple[tuple[float, ...], Floats]:
    """The finite edges, and what lies in each bucket; nothing when it is no histogram."""
    told = sorted(reading.buckets)
    edges = tuple(edge for edge, _ in told if abs(edge) <= COUNT_MAX)
    upto = np.array([count for _, count in told], dtype=np.float64)
    if len(told) != len(edges) + 1 or len(set(edges)) != len(edges) or told[-1][0] != math.inf:
        return (), upto
    if not np.all((upto >= 0) & (upto <= COUNT_MAX)):  # and nothing that is no number
        return (), upto
    inside = np.diff(upto, prepend=0.0)
    return ((), upto) if np.any(inside < 0) else (edges, inside)


def _brought(found: Exceedances) -> Brought:
    return Brought(
        stable_bad=float(found.stable[0]),
        stable_seen=float(found.stable_seen[0]),
        candidate_bad=float(found.candidate[0]),
        candidate_bad_margin=float(found.candidate_margin[0]),
        candidate_seen=float(found.candidate_seen[0]),
    )
