"""Counters as a Prometheus scraped them, series by series, to what was counted between two moments; pure.

A Prometheus scrapes one process after another, so that at any moment it knows of each what was true some seconds ago,
and of no two at the same time. Comparing what it says of two versions "now" compares different stretches of time: an
incident that hits both alike looks like the fault of the version that was scraped later. Hence raw samples are asked
for, with their times; both versions are cut at moments for which each of their processes was scraped, and a counter
between two scrapes is taken to have grown evenly.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from interlock.core.errors import Invalid

ALIVE_SCRAPES = 2.5
"""A series without a sample for so many scrapes before the newest has ended."""
LOOK_BACK_SCRAPES = 8.0
"""A series that has no sample in so many scrapes before the stretch is new, and counts from zero."""
SERIES_MAX = 20_000


class Series(NamedTuple):
    """One series: its labels, and its samples, (seconds since 1970, value), by time."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


def read_matrix(body: bytes) -> list[Series]:
    """The series of an answer to an instant query for a range (`metric[60s]`); what is no number is left out.

    Raises Invalid when it is no answer of a Prometheus, with its own words where it gave any.
    """
    try:
        told = json.loads(body)
        if told["status"] != "success":
            msg = f"the Prometheus says: {str(told.get('error', 'nothing'))[:300]}"
            raise Invalid(msg, code="judge.metrics", fix="try the selector in its own console")
        if told["data"]["resultType"] != "matrix" or len(told["data"]["result"]) > SERIES_MAX:
            msg = "the Prometheus answers something else than samples, or too many series"
            raise Invalid(msg, code="judge.metrics", fix="write `requests`, `errors` and `latency` as selectors")
        return [_series(each) for each in told["data"]["result"]]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as fault:
        msg = "that is no answer of a Prometheus to an instant query"
        raise Invalid(msg, code="judge.metrics", fix="let the destination be the Prometheus itself") from fault


def known_until(series: Iterable[Series], scrape_seconds: float) -> float | None:
    """Until when everything is known: the oldest of the last samples of all series that go on. None without any."""
    last = [each.samples[-1][0] for each in series if each.samples]
    if not last:
        return None
    oldest_alive = max(last) - ALIVE_SCRAPES * scrape_seconds
    return min(moment for moment in last if moment >= oldest_alive)


def increase(series: Iterable[Series], start: float, end: float) -> float:
    """By how much all series grew together from `start` to `end`."""
    return math.fsum(_increase(each.samples, start, end) for each in series)


def increase_by_edge(series: Iterable[Series], start: float, end: float) -> dict[float, float]:
    """The same of a histogram's buckets, by their upper edge (`le`)."""
    found: dict[float, list[Series]] = {}
    for each in series:
        try:
            edge = float(each.labels.get("le", ""))
        except ValueError:
            continue  # a series that is no bucket
        found.setdefault(edge, []).append(each)
    return {edge: increase(those, start, end) for edge, those in found.items() if not math.isnan(edge)}


def _series(told: Mapping[str, object]) -> Series:
    labels, values = told["metric"], told.get("values", [])
    if not isinstance(labels, dict) or not isinstance(values, list):
        msg = "labels and values"
        raise TypeError(msg)
    pairs = [(float(moment), float(value)) for moment, value in values]
    sound = sorted(pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1]) and pair[1] >= 0)
    return Series({str(name): str(value) for name, value in labels.items()}, sound)


def _increase(samples: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Of one series. A value that is less than the one before began anew at zero; so did a series that begins here."""
    if not samples:
        return 0.0
    moments, totals = [moment for moment, _ in samples], _totals(samples)
    at_start = _at(moments, totals, start) if moments[0] <= start else 0.0
    at_end = _at(moments, totals, end) if moments[0] <= end else 0.0
    return max(0.0, at_end - at_start)


def _totals(samples: Sequence[tuple[float, float]]) -> list[float]:
    """The values as if the counter had never begun anew."""
    total = before = samples[0][1]
    found = [total]
    for _, value in samples[1:]:
        total += value - before if value >= before else value
        before = value
        found.append(total)
    return found


def _at(moments: Sequence[float], totals: Sequence[float], moment: float) -> float:
    """Between two scrapes evenly; after the last one as it was then."""
    place = bisect_right(moments, moment) - 1
    if place + 1 == len(moments):
        return totals[-1]
    span = moments[place + 1] - moments[place]
    return totals[place] + (totals[place + 1] - totals[place]) * (moment - moments[place]) / span
