"""Looks at an endpoint's values again and again, and says how they lie to a file of thresholds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError

from interlock.bootstrap.metric_source import own_metric_source
from interlock.core.errors import InterlockError, Invalid, Transient
from interlock.core.judgement import ThresholdMeasure
from interlock.core.metric_source import MetricSource
from interlock.interfaces.cli.answer import write_note
from interlock.interfaces.messages import say
from interlock.lib.clock import SystemClock
from interlock.releases.judge.exposition import read_values
from interlock.releases.judge.thresholds import ThresholdReading, ThresholdWatch, parse_thresholds


class Watching(NamedTuple):
    """What was asked for."""

    file: str
    url: str
    every_seconds: float
    breaches: int
    for_seconds: float


@dataclass
class Found:
    """What was seen: the breach, if there was one; otherwise whether all values were told and inside at the end."""

    breach: str | None = None
    clear: bool = False
    looks: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    trouble: str | None = None


def watch_thresholds(asked: Watching, *, notes: bool) -> Found:
    """Look until a value is beyond its threshold or the time is over. `notes` says what each look found.

    Raises Invalid, NotFound: the file or the address is wrong, as seen at the first look.
    """
    clock, watch, found = SystemClock(), ThresholdWatch(_measure(asked)), Found()
    source = own_metric_source(clock)
    end, never = clock.monotonic() + asked.for_seconds, threading.Event()
    while True:
        _look(source, asked, watch, found)
        if notes:
            _tell(found)
        left = end - clock.monotonic()
        if found.breach is not None or left <= 0:
            return found
        never.wait(min(asked.every_seconds, left))


def _measure(asked: Watching) -> ThresholdMeasure:
    """Raises Invalid."""
    try:
        return ThresholdMeasure(
            source="threshold",
            name="thresholds",
            url=asked.url,
            file=asked.file,
            interval_seconds=asked.every_seconds,
            breaches=asked.breaches,
        )
    except ValidationError as fault:
        msg = f"the address or the file is none: {asked.url!r}, {asked.file!r}"
        raise Invalid(msg, code="usage", fix="write http://HOST:PORT/PATH, and the name of a file") from fault


def _look(source: MetricSource, asked: Watching, watch: ThresholdWatch, found: Found) -> None:
    """One look; an endpoint that does not answer now tells nothing now."""
    thresholds = parse_thresholds(source.read(asked.file))
    found.looks += 1
    try:
        found.values = read_values(source.fetch(asked.url), thresholds)
        found.trouble = None
    except Transient as error:
        found.values, found.trouble = {}, error.message
    except InterlockError as error:
        if found.looks == 1:
            raise
        found.values, found.trouble = {}, error.message
    watch.take(ThresholdReading(thresholds, found.values), asked.every_seconds)
    found.breach, found.clear, found.missing = watch.breach, watch.clear, watch.missing


def _tell(found: Found) -> None:
    shown = ", ".join(f"{name} {value:g}" for name, value in found.values.items())
    write_note(say("look {number}: {values}", number=found.looks, values=found.trouble or shown or say("no values")))
