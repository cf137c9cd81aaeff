"""Counters, histograms and thresholds out of what endpoints tell, in all the ways in which they tell it."""

from __future__ import annotations

import json
import math

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from interlock.core.errors import Invalid, Transient
from interlock.core.judgement import ExpositionMeasure, JudgeSettings, PromqlMeasure, ThresholdMeasure
from interlock.releases.judge.collect import Endpoint, collect
from interlock.releases.judge.exposition import parse_selector, read_measure, read_values
from interlock.releases.judge.promql import query_of, read_answer
from interlock.releases.judge.readings import Brought, CounterPair, HistogramPair, Reading, Readings
from interlock.releases.judge.thresholds import ThresholdReading, ThresholdWatch, parse_thresholds

ERRORS = ExpositionMeasure(name="jobs", bad='jobs_total{result=~"fail.*"}', total="jobs_total")
TIMES = ExpositionMeasure(name="took", histogram="took_seconds", quantile=0.9)


def _told() -> CollectorRegistry:
    registry = CollectorRegistry()
    jobs = PrometheusCounter("jobs", "what ran", ["result", "queue"], registry=registry)
    jobs.labels("failed", 'a # {"b"}, c').inc(3)
    jobs.labels("done", "d").inc(97)
    took = Histogram("took_seconds", "how long", buckets=(0.1, 0.5, 1.0), registry=registry)
    for seconds in (0.05, 0.05, 0.3, 2.0):
        took.observe(seconds, {"trace_id": "x # {y}"})
    return registry


@pytest.mark.parametrize("generate", [generate_latest, generate_openmetrics])
def test_counters_and_histograms_are_read_from_both_formats(generate: object) -> None:
    body = generate(_told())  # type: ignore[operator]
    assert read_measure(body, ERRORS) == Reading(bad=3.0, total=100.0)
    expected = ((0.1, 2.0), (0.5, 3.0), (1.0, 3.0), (math.inf, 4.0))
    assert read_measure(body, TIMES) == Reading(total=4.0, buckets=expected)


def test_a_counter_of_failures_that_is_not_there_yet_is_zero_and_one_of_all_is_unknown() -> None:
    assert read_measure(b'jobs_total{result="done"} 4\n', ERRORS) == Reading(bad=0.0, total=4.0)
    assert read_measure(b"other_total 4\n", ERRORS) is None
    assert read_measure(b"took_seconds_sum 4\n", TIMES) is None


def test_lines_of_other_metrics_do_no_harm_and_bad_ones_of_this_are_said() -> None:
    assert read_measure(b'\xff\xfe{{{\njobs_total_more{x=" 1\njobs_total 4 1700000000000\n', ERRORS) == Reading(
        0.0, 4.0
    )
    for body in (b"jobs_total four\n", b'jobs_total{result="a} 4\n', b"jobs_total \n"):
        with pytest.raises(Invalid, match="jobs_total"):
            read_measure(body, ERRORS)
    assert read_measure(b"jobs_total " + b"9" * 5000, ERRORS) is None
    assert read_measure(b'jobs_total NaN\njobs_total{a="b"} +Inf\n', ERRORS) is None


def test_series_without_end_are_refused() -> None:
    body = b"".join(b'jobs_total{user="%d"} 1\n' % number for number in range(20_001))
    with pytest.raises(Invalid, match="20001 series"):
        read_measure(body, ERRORS)


@pytest.mark.parametrize(
    ("selector", "labels", "fits"),
    [
        ("m", {}, True),
        ("m{}", {"a": "b"}, True),
        ('m{a="b"}', {"a": "b"}, True),
        ('m{a="b",}', {"a": "c"}, False),
        ('m{a!="b"}', {}, True),
        ('m{a=""}', {}, True),
        ('m{ a =~ "5.." , b !~ "x|y" }', {"a": "503", "b": "z"}, True),
        ('m{a=~"5"}', {"a": "503"}, False),
        ('m{a="quote \\" and } brace"}', {"a": 'quote " and } brace'}, True),
    ],
)
def test_selectors_mean_what_they_mean_in_promql(selector: str, labels: dict[str, str], fits: bool) -> None:  # noqa: FBT001
    assert parse_selector(selector).fits(labels) is fits


@pytest.mark.parametrize("selector", ["", "9a", "m{a}", "m{a=b}", 'm{a=~"("}', 'm{a="b" c="d"}', "m{", "sum(m)"])
def test_a_selector_that_is_none_is_refused(selector: str) -> None:
    with pytest.raises(Invalid):
        parse_selector(selector)


def test_what_a_prometheus_answers() -> None:
    def vector(*values: str) -> bytes:
        result = [{"metric": {}, "value": [1.0, value]} for value in values]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()

    assert read_answer(vector("1.5", "2")) == 3.5
    assert read_answer(vector()) is None
    assert read_answer(vector("NaN")) is None
    assert read_answer(b'{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}') == 7.0
    with pytest.raises(Invalid, match="parse error"):
        read_answer(b'{"status":"error","error":"parse error at char 3"}')
    matrix = b'{"status":"success","data":{"resultType":"matrix","result":[]}}'
    for body in (b"", b"[]", b"<html>", b'{"status":"success"}', matrix, vector("many"), b"[" * 100_000):
        with pytest.raises(Invalid):
            read_answer(body)


def test_a_version_stands_in_a_query_as_text() -> None:
    assert query_of('sum(a{v="{version}"})', 'v1"}) or vector(0') == 'sum(a{v="v1\\"}) or vector(0"})'


def test_only_what_happened_while_both_were_read_is_compared() -> None:
    pair = CounterPair()
    assert pair.take(Readings(Reading(5, 100), Reading(1, 10)), 1.0) == Brought()
    assert pair.take(Readings(Reading(6, 200), None), 1.0) == Brought()
    assert pair.take(Readings(Reading(7, 300), Reading(3, 30)), 1.0) == Brought(2, 200, 2, 2, 20)


def test_a_counter_that_began_anew_counts_from_nothing() -> None:
    pair = CounterPair()
    pair.take(Readings(Reading(5, 100), Reading(9, 90)), 1.0)
    assert pair.take(Readings(Reading(5, 150), Reading(1, 20)), 1.0) == Brought(0, 50, 1, 1, 20)


def test_counters_that_are_no_counts_are_not_taken() -> None:
    pair = CounterPair()
    pair.take(Readings(Reading(0, 0), Reading(0, 0)), 1.0)
    assert pair.take(Readings(Reading(0, math.nan), Reading(0, 10)), 1.0) == Brought()
    assert pair.take(Readings(Reading(0, 10), Reading(-1, 10)), 1.0) == Brought()
    assert pair.take(Readings(Reading(9, 5), Reading(0, 10)), 1.0) == Brought(9, 9, 0, 0, 10)


def _histogram(fast: float, slow: float) -> Reading:
    return Reading(total=fast + slow, buckets=((0.1, fast), (0.2, fast), (0.4, fast + slow), (math.inf, fast + slow)))


def test_histograms_are_compared_on_their_own_edges() -> None:
    """P90 of 95 fast and 5 slow lies at 0.1 s; the next edge beyond the margin is 0.2 s."""
    pair = HistogramPair(0.9, 0.05)
    for number in range(3):
        both = _histogram(95.0 * number, 5.0 * number)
        assert pair.take(Readings(both, both), 1.0) == Brought() or number == 2
    assert pair.threshold_seconds == 0.1
    found = pair.take(Readings(_histogram(285, 15), _histogram(200, 40)), 1.0)
    assert found == Brought(5.0, 100.0, 30.0, 30.0, 40.0)
    other = HistogramPair(0.9, 0.05)
    other.restore(json.loads(json.dumps(pair.state())))
    next_readings = Readings(_histogram(380, 20), _histogram(210, 40))
    assert other.take(next_readings, 1.0) == pair.take(next_readings, 1.0)


def test_a_histogram_with_other_edges_or_no_end_is_not_compared() -> None:
    pair = HistogramPair(0.9, 0.05)
    odd = Reading(total=4, buckets=((0.1, 4.0), (0.1, 4.0), (math.inf, 4.0)))
    falling = Reading(total=4, buckets=((0.1, 4.0), (0.2, 3.0), (math.inf, 4.0)))
    for reading in (odd, falling, Reading(total=4, buckets=((0.1, 4.0),)), Reading(total=4)):
        assert pair.take(Readings(reading, reading), 1.0) == Brought()
    assert (
        pair.take(Readings(_histogram(1, 1), Reading(total=1, buckets=((1.0, 1.0), (math.inf, 1.0)))), 1.0) == Brought()
    )


THRESHOLDS = parse_thresholds(b"p95_seconds: {max: 0.5}\nfree: {min: 10}\n")


def _watch() -> ThresholdWatch:
    measure = ThresholdMeasure(
        source="threshold", name="limits", url="http://localhost:1/x", file="/x", interval_seconds=10, breaches=2
    )
    return ThresholdWatch(measure)


def _read(**values: float) -> ThresholdReading:
    return ThresholdReading(THRESHOLDS, values)


def test_a_value_beyond_its_threshold_twice_in_a_row_is_a_breach() -> None:
    watch = _watch()
    watch.take(_read(p95_seconds=0.6, free=20), 1.0)
    assert (watch.breach, watch.clear) == (None, False)
    watch.take(_read(p95_seconds=0.7, free=20), 9.0)
    assert watch.breach is None, "it is not time yet"
    watch.take(_read(p95_seconds=0.7, free=20), 1.0)
    assert watch.breach == "p95_seconds is 0.7, above 0.5, 2 times in a row"


def test_a_value_that_is_missing_neither_passes_nor_fails() -> None:
    watch = _watch()
    watch.take(_read(free=5, p95_seconds=0.1), 10.0)
    watch.take(_read(p95_seconds=0.1), 10.0)
    assert (watch.breach, watch.clear, watch.missing) == (None, False, ("free",))
    watch.take(None, 10.0)
    watch.take(_read(p95_seconds=0.1, free=math.nan), 10.0)
    assert watch.breach is None
    watch.take(_read(p95_seconds=0.1, free=5), 10.0)
    assert watch.breach == "free is 5, below 10, 2 times in a row"
    other = _watch()
    other.restore(json.loads(json.dumps(watch.state())))
    assert other.breach == watch.breach


def test_values_inside_are_clear_and_a_good_one_begins_anew() -> None:
    watch = _watch()
    for free in (5.0, 20.0, 5.0, 20.0):
        watch.take(_read(p95_seconds=0.1, free=free), 10.0)
    assert (watch.breach, watch.clear) == (None, True)


@pytest.mark.parametrize(
    "body", [b"- a", b"a: 1", b"a: {max: fast}", b"a: {}", b"a: {max: 1, top: 2}", b"a: {max: [", b"\xff"]
)
def test_thresholds_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid, match="threshold"):
        parse_thresholds(body)


def test_values_are_read_from_json_and_from_text() -> None:
    body = json.dumps({"a": {"b": 1.5}, "c": True, "d": "4", "e": 3, "f": 10**400}).encode()
    assert read_values(body, ["a.b", "a", "c", "d", "e", "f", "missing"]) == {"a.b": 1.5, "e": 3.0}
    text = b'up 1\nsize{disk="a"} 5\nsize{disk="b"} 6\n'
    assert read_values(text, ["up", "size", 'size{disk="b"}']) == {"up": 1.0, 'size{disk="b"}': 6.0}
    with pytest.raises(Invalid, match="JSON"):
        read_values(b"{a: 1}", ["a"])


def test_everything_declared_is_asked_once_and_what_fails_is_said() -> None:
    queries = PromqlMeasure(source="promql", name="sales", url="http://prom:9090/", bad='b{v="{version}"}', total="t")
    limits = ThresholdMeasure(
        source="threshold", name="limits", url="http://127.0.0.1:{port}/stats", file="/etc/limits"
    )
    settings = JudgeSettings(measures=(ERRORS, queries, limits, TIMES))
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        if "prom:9090" in url:
            msg = "the Prometheus does not answer"
            raise Transient(msg)
        return b'{"p95_seconds": 0.2}' if url.endswith("/stats") else b"jobs_total 5\n"

    found = collect(
        settings,
        stable=Endpoint("v1", "127.0.0.1:2001"),
        candidate=Endpoint("v2", "127.0.0.1:2002"),
        fetch=fetch,
        read_file=lambda _path: b"p95_seconds: {max: 0.5}",
    )
    assert found.readings["jobs"] == Readings(Reading(0, 5), Reading(0, 5))
    assert found.readings["limits"] == ThresholdReading(
        parse_thresholds(b"p95_seconds: {max: 0.5}"), {"p95_seconds": 0.2}
    )
    assert found.problems == ("sales: the Prometheus does not answer", "took: v1 does not tell it")
    assert "http://127.0.0.1:2002/stats" in asked
    assert "http://prom:9090/api/v1/query?query=b%7Bv%3D%22v1%22%7D" in asked
