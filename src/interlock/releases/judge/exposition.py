"""Counters and histograms out of what a version tells as Prometheus text or OpenMetrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from interlock.core.errors import Invalid
from interlock.core.judgement import ExpositionMeasure
from interlock.releases.judge.readings import Reading

TEXT_MAX = 16 * 1024 * 1024
LINES_MAX = 20_000
"""Of the metrics that are asked for; a version with more series than that is not judged by them."""
DEPTH_MAX = 6
"""Of JSON that is looked through for values."""

_SELECTOR = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s*", re.DOTALL)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_SERIES = re.compile(r'[^\s{]+(?:\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+\S+')
"""Name, labels and value: what may follow is a time and an exemplar."""
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class Selector:
    """Which series: a metric, and what holds for their labels (a label that is absent is empty)."""

    metric: str
    matchers: tuple[tuple[str, Callable[[str], bool]], ...] = ()

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of the metric is meant."""
        return all(fits(labels.get(name, "")) for name, fits in self.matchers)


def parse_selector(text: str) -> Selector:
    """Read `http_requests_total{code=~"5..", method!="HEAD"}`, as PromQL does. Raises Invalid."""
    found = _SELECTOR.fullmatch(text)
    fix = 'write it as in PromQL: http_requests_total{code=~"5.."}'
    if found is None:
        msg = f"{text!r} names no metric"
        raise Invalid(msg, code="release.selector", fix=fix)
    rest, matchers = (found[2] or "").strip(), []
    while rest:
        each = _MATCHER.match(rest)
        if each is None:
            msg = f"{text!r}: {rest!r} says nothing about a label"
            raise Invalid(msg, code="release.selector", fix=fix)
        matchers.append(
            (each[1], _matcher(text, each[2], re.sub(r'\\[n"\\]', lambda part: _ESCAPES[part[0]], each[3])))
        )
        rest = rest[each.end() :].strip()
    return Selector(found[1], tuple(matchers))


def read_measure(body: bytes, measure: ExpositionMeasure) -> Reading | None:
    """What one version tells of a measure; None when it does not tell it.

    A counter of failures that does not exist yet is zero as soon as that of all exists. Raises Invalid when the text is
    none, or is too long.
    """
    text = _decode(body)
    if measure.histogram is not None:
        return _histogram(text, parse_selector(measure.histogram))
    if measure.bad is None or measure.total is None:
        return None
    total = _sum(text, parse_selector(measure.total))
    bad = _sum(text, parse_selector(measure.bad))
    return None if total is None else Reading(bad=bad or 0.0, total=total)


def read_values(body: bytes, names: Iterable[str]) -> dict[str, float]:
    """Values by name out of JSON (`a.b` for what is nested) or Prometheus text (names are selectors).

    What is absent, no number, or stands for several series is left out. Raises Invalid when the body is neither.
    """
    text = _decode(body)
    if text.lstrip()[:1] in {"{", "["}:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as fault:
            msg = "the values are no JSON"
            raise Invalid(msg, code="release.metrics", fix="look at what the endpoint answers") from fault
        return {name: value for name in names if (value := _nested(told, name)) is not None}
    found = {}
    for name in names:
        series = list(_series(text, parse_selector(name)))
        if len(series) == 1:
            found[name] = series[0][1]
    return found


def _matcher(text: str, operator: str, value: str) -> Callable[[str], bool]:
    if operator == "=":
        return lambda label: label == value
    if operator == "!=":
        return lambda label: label != value
    try:
        pattern = re.compile(value)
    except re.error as fault:
        msg = f"{text!r}: {value!r} is no regular expression: {fault}"
        raise Invalid(msg, code="release.selector", fix="mend the expression") from fault
    if operator == "=~":
        return lambda label: pattern.fullmatch(label) is not None
    return lambda label: pattern.fullmatch(label) is None


def _sum(text: str, selector: Selector) -> float | None:
    values = [value for _, value in _series(text, selector)]
    total = sum(values)
    return total if values and math.isfinite(total) else None


def _histogram(text: str, selector: Selector) -> Reading | None:
    upto: dict[float, float] = {}
    for labels, value in _series(text, Selector(f"{selector.metric}_bucket", selector.matchers)):
        try:
            edge = float(labels.get("le", ""))
        except ValueError:
            continue  # a series that is no bucket
        upto[edge] = upto.get(edge, 0.0) + value
    if not math.isfinite(upto.get(math.inf, math.inf)):
        return None
    return Reading(total=upto[math.inf], buckets=tuple(sorted(upto.items())))


def _series(text: str, selector: Selector) -> Iterable[tuple[Mapping[str, str], float]]:
    """All series that are meant, with finite values. Lines of other metrics are not read, so they can do no harm."""
    lines = [_without_exemplar(line) for line in text.split("\n") if _is_of(line, selector.metric)]
    if len(lines) > LINES_MAX:
        msg = f"{selector.metric} has {len(lines)} series; at most {LINES_MAX} are read"
        raise Invalid(msg, code="release.metrics", fix="name a metric with fewer series")
    try:
        families = list(text_string_to_metric_families("\n".join(lines) + "\n"))
        found = [
            (sample.labels, float(sample.value))
            for family in families
            for sample in family.samples
            if sample.name == selector.metric and selector.fits(sample.labels)
        ]
    except (ValueError, KeyError, IndexError, OverflowError) as fault:
        msg = f"{selector.metric} is told in a way that is no Prometheus text"
        raise Invalid(msg, code="release.metrics", fix="look at what the endpoint answers") from fault
    return [(labels, value) for labels, value in found if math.isfinite(value)]


def _without_exemplar(line: str) -> str:
    found = _SERIES.match(line)
    return line if found is None else found[0]


def _is_of(line: str, metric: str) -> bool:
    return line.startswith(metric) and line[len(metric) : len(metric) + 1] in {"{", " ", "\t"}


def _nested(told: object, name: str) -> float | None:
    value = told
    for part in name.split(".")[:DEPTH_MAX]:
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value) if abs(value) < 1e300 else math.inf  # noqa: PLR2004 - what no float holds
    return number if math.isfinite(number) else None


def _decode(body: bytes) -> str:
    if len(body) > TEXT_MAX:
        msg = f"the endpoint answers {len(body)} bytes; at most {TEXT_MAX} are read"
        raise Invalid(msg, code="release.metrics", fix="name an endpoint that tells less")
    return body.decode("utf-8", errors="replace")
