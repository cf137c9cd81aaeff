"""Asks all that `measures:` declares once, through whatever fetches and reads: what one tick gives to the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from interlock.core.errors import InterlockError, Invalid
from interlock.core.judgement import ExpositionMeasure, JudgeSettings, Measure, PromqlMeasure, ThresholdMeasure
from interlock.releases.judge.exposition import read_measure, read_values
from interlock.releases.judge.promql import query_of, reading_of
from interlock.releases.judge.readings import Reading, Readings
from interlock.releases.judge.thresholds import ThresholdReading, parse_thresholds

Fetch = Callable[[str], bytes]
"""The body of what a URL answers, bounded in size and time. Raises one of the seven errors."""
ReadFile = Callable[[str], bytes]
"""The content of a file, bounded. Raises one of the seven errors."""


class Endpoint(NamedTuple):
    """Where one version can be asked: its name, and HOST:PORT."""

    version: str
    address: str


class Collected(NamedTuple):
    """What was read, by the name of the measure, and what could not be, in words."""

    readings: dict[str, Readings | ThresholdReading]
    problems: tuple[str, ...]


def collect(
    settings: JudgeSettings, *, stable: Endpoint, candidate: Endpoint, fetch: Fetch, read_file: ReadFile
) -> Collected:
    """Ask each declared measure once. One that cannot be read is left out and said; the others are read all the same.

    A version whose endpoint does not answer gives no reading, and the other one's waits for it: what happens in between
    is compared when both are there again.
    """
    readings: dict[str, Readings | ThresholdReading] = {}
    problems = []
    for measure in settings.measures:
        try:
            readings[measure.name] = _collect_one(measure, stable, candidate, fetch, read_file)
        except InterlockError as error:
            problems.append(f"{measure.name}: {error.message}")
    return Collected(readings, tuple(problems))


def _collect_one(
    measure: Measure, stable: Endpoint, candidate: Endpoint, fetch: Fetch, read_file: ReadFile
) -> Readings | ThresholdReading:
    if isinstance(measure, ThresholdMeasure):
        thresholds = parse_thresholds(read_file(measure.file))
        body = fetch(measure.url.replace("{port}", candidate.address.rpartition(":")[2]))
        return ThresholdReading(thresholds, read_values(body, thresholds))
    pair = [_reading(measure, endpoint, fetch) for endpoint in (stable, candidate)]
    for endpoint, reading in zip((stable, candidate), pair, strict=True):
        if reading is None:
            msg = f"{endpoint.version} does not tell it"
            raise Invalid(msg, code="release.metrics", fix="look at what the endpoint answers")
    return Readings(*pair)


def _reading(measure: ExpositionMeasure | PromqlMeasure, endpoint: Endpoint, fetch: Fetch) -> Reading | None:
    if isinstance(measure, ExpositionMeasure):
        return read_measure(fetch(f"http://{endpoint.address}{measure.path}"), measure)
    bad, total = (
        fetch(f"{measure.url.rstrip('/')}/api/v1/query?query={quote(query_of(query, endpoint.version), safe='')}")
        for query in (measure.bad, measure.total)
    )
    return reading_of(bad=bad, total=total)
