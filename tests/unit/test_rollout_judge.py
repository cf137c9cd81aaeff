"""The judge of rollouts that others drive: what is read becomes counts of the same time, and counts a verdict."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from interlock.core.errors import Invalid
from interlock.core.judgement import Judgement
from interlock.core.model import JsonObject
from interlock.core.rollout_judge import RolloutJudge
from interlock.judges.answer import answer_of, answer_of_release
from interlock.judges.growth import Both, Growth, Tally, grown, inside, tally_of
from interlock.judges.reading import Names, Place, queries_of
from interlock.judges.scraped import Series, increase, increase_by_edge, known_until, read_matrix
from interlock.judges.store import Session
from interlock.judges.verdict import CountsJudge

SCRAPE = 15.0
EDGES = (*np.geomspace(0.01, 2.0, 40).tolist(), math.inf)
PROMETHEUS: dict[str, Any] = {
    "prometheus": "prometheus",
    "stable": {"where": 'hash="{stable}"'},
    "candidate": {"where": 'hash="{session}"'},
    "requests": 'http_requests_total{app="checkout"}',
    "errors": 'http_requests_total{app="checkout",code=~"5.."}',
    "latency": "http_request_duration_seconds",
}
ENDPOINTS: dict[str, Any] = {
    "stable": {"destination": "old"},
    "candidate": {"destination": "new"},
    "requests": "requests_total",
    "errors": "errors_total",
}


def _declared(**changes: Any) -> RolloutJudge:
    return RolloutJudge.model_validate({**PROMETHEUS, **changes})


def _series(*samples: tuple[float, float], **labels: str) -> Series:
    return Series(labels, samples)


# What is declared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stable": {"destination": "old"}}, "give `prometheus`, or `destination`"),
        ({"stable": {}}, "`where` goes with `prometheus`"),
        ({"stable": {"where": 'hash="{old}"'}}, "{old} stands for nothing"),
        ({"stable": {"where": 'hash="{session}"'}}, "could never differ"),
        ({"settings": {"refusals": "block"}}, "settings.refusals says nothing here"),
        ({"settings": {"measures": []}}, "settings.measures says nothing here"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=r".*") as caught:
        _declared(**changes)
    assert words in str(caught.value)


def test_labels_of_a_version_join_those_of_the_metric() -> None:
    declared = _declared()
    requests, errors, buckets = queries_of(declared, declared.candidate, Names("7d9", "6c4"))
    assert requests == 'http_requests_total{app="checkout",hash="7d9"}'
    assert errors == 'http_requests_total{app="checkout",code=~"5..",hash="7d9"}'
    assert buckets == 'http_request_duration_seconds_bucket{hash="7d9"}'


@pytest.mark.parametrize("where", ['hash="{session}"} or vector(1) or x{y="', "hash", 'hash=="x"', '{hash="x"}'])
def test_labels_that_would_end_the_selector_are_refused(where: str) -> None:
    declared = _declared(candidate={"where": where})
    with pytest.raises(Invalid) as caught:
        queries_of(declared, declared.candidate, Names("7d9", "6c4"))
    assert caught.value.fix


# Scraped counters


def test_counters_between_two_scrapes_grow_evenly() -> None:
    series = [_series((0, 100), (10, 200), (20, 400))]
    assert increase(series, 5, 15) == pytest.approx(150)
    assert increase(series, 0, 20) == 300


def test_a_counter_that_began_anew_counts_from_zero() -> None:
    assert increase([_series((0, 1000), (10, 1010), (20, 4), (30, 10))], 0, 30) == 20


def test_a_series_that_begins_counts_wholly_and_once() -> None:
    errors = [_series((12, 40), (22, 50))]
    parts = [increase(errors, start, start + 5) for start in range(0, 25, 5)]
    assert sum(parts) == pytest.approx(50)
    assert parts[:2] == [0, 0]


def test_a_process_that_goes_takes_nothing_with_it() -> None:
    """Summed by the Prometheus, the total would fall, and all that is left of it would count as new."""
    gone, goes_on = _series((0, 1_000_000), (10, 1_000_050)), _series((0, 500), (10, 550), (20, 600), (30, 650))
    assert increase([gone, goes_on], 10, 30) == 100


def test_a_series_that_ended_holds_up_nobody() -> None:
    ended, goes_on, later = _series((0, 1), (10, 2)), _series((85, 1), (100, 2)), _series((80, 1), (95, 2))
    assert known_until([ended, goes_on, later], SCRAPE) == 95
    assert known_until([_series()], SCRAPE) is None


def test_buckets_are_added_up_by_their_edge() -> None:
    series = [
        _series((0, 0), (10, 5), le="0.1", pod="a"),
        _series((0, 0), (10, 7), le="0.1", pod="b"),
        _series((0, 0), (10, 20), le="+Inf", pod="a"),
        _series((0, 0), (10, 1), le="many"),
    ]
    assert increase_by_edge(series, 0, 10) == {0.1: 12, math.inf: 20}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"status":"success"}',
        b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":[],"values":[]}]}}',
        b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[["x"]]}]}}',
        b'{"status":"error","errorType":"bad_data","error":"parse error"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_of_a_prometheus_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_matrix(body)
    assert caught.value.code == "judge.metrics"


def test_samples_that_are_no_counts_are_left_out() -> None:
    values = [[1, "1"], [2, "NaN"], [3, "+Inf"], [4, "-5"], [5, "9"]]
    told = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"a": "b"}, "values": values}]}}
    assert read_matrix(json.dumps(told).encode()) == [Series({"a": "b"}, [(1.0, 1.0), (5.0, 9.0)])]


def _scraped(rate: Any, offset: float, until: float) -> list[tuple[float, float]]:
    """Samples of a counter that grows by rate(second) each second, every SCRAPE seconds from `offset` on."""
    totals = list(itertools.accumulate((rate(second) for second in range(int(until) + 1)), initial=0.0))
    moments = np.arange(offset, until, SCRAPE)
    return [(float(moment), totals[int(moment)]) for moment in moments]


def _arm(rate: float, offset: float) -> list[Series]:
    """Requests and errors of a version: 1 % of errors, and 30 % during an incident of three minutes."""
    return [
        Series({}, _scraped(lambda _: rate, offset, 1200)),
        Series({}, _scraped(lambda second: rate * (0.3 if 600 <= second < 780 else 0.01), offset, 1200)),
    ]


def _known(arm: list[Series], now: float) -> list[Series]:
    return [Series({}, [sample for sample in each.samples if sample[0] <= now]) for each in arm]


def _counts(requests: float, errors: float) -> Tally:
    return tally_of(requests, errors, {})


def test_an_incident_that_hits_both_is_nobodys_fault_however_they_are_scraped() -> None:
    """At each look the stable version was scraped 14 s before the candidate, which knows of the incident first."""
    declared = _declared(latency=None, settings={"requests_together_max": 1})
    stable, candidate = _arm(450, 1.0), _arm(50, 0.0)
    naive, ours, before = CountsJudge(declared), CountsJudge(declared), 60.0
    last: Both | None = None
    said, said_naively = [], []
    for now in range(75, 1200, 15):
        known = [_known(stable, now), _known(candidate, now)]
        both = Both(*(_counts(requests.samples[-1][1], errors.samples[-1][1]) for requests, errors in known))
        if last is not None:
            newest = Both(grown(last.stable, both.stable), grown(last.candidate, both.candidate))
            said_naively.append(naive.tick(float(now), Growth(newest, 15)).verdict)
        last = both
        end = min(known_until(arm, SCRAPE) or 0.0 for arm in known)
        cut = Both(*(_counts(*(increase([each], before, end) for each in arm)) for arm in known))
        said.append(ours.tick(float(now), Growth(cut, end - before)).verdict)
        before = end
    assert "no_go" in said_naively
    assert "no_go" not in said


# Counts between two readings


def test_a_process_that_began_anew_counts_from_zero_here_too() -> None:
    before = Tally(100, 5, {0.1: 90, math.inf: 100})
    assert grown(before, Tally(130, 6, {0.1: 110, math.inf: 130})) == Tally(30, 1, {0.1: 20, math.inf: 30})
    anew = Tally(7, 1, {0.1: 6, math.inf: 7})
    assert grown(before, anew) == anew


def test_buckets_that_changed_say_nothing_this_time() -> None:
    found = grown(Tally(100, 5, {}), Tally(130, 6, {0.1: 110, math.inf: 130}))
    assert found == Tally(30, 1, {})
    assert inside({0.1: 3.0}) == ((), [])


# Verdicts


def _traffic(seed: int, *, ratio: float = 1.0, slower: float = 1.0, rps: tuple[int, int] = (450, 50)) -> Iterator[Both]:
    """Five seconds each: 1 % errors, lognormal latencies; the candidate has `ratio` times as many errors."""
    random = np.random.default_rng(seed)
    while True:
        tallies = []
        for rate, errors, factor in zip(rps, (0.01, 0.01 * ratio), (1.0, slower), strict=True):
            count = int(random.poisson(rate * 5))
            seconds = np.sort(random.lognormal(math.log(0.06 * factor), 0.6, count))
            buckets = {edge: float(np.searchsorted(seconds, edge, side="right")) for edge in EDGES}
            tallies.append(Tally(count, float(random.binomial(count, errors)), buckets))
        yield Both(*tallies)


def _judged(traffic: Iterator[Both], ticks: int, declared: RolloutJudge | None = None) -> list[Judgement]:
    judge, found = CountsJudge(declared or _declared()), []
    for index, both in enumerate(itertools.islice(traffic, ticks)):
        found.append(judge.tick(1000.0 + 5 * index, Growth(both, 5.0)))
        if found[-1].verdict != "not_yet":
            break
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_candidate_with_more_errors_is_sent_back_within_seconds(seed: int) -> None:
    said = _judged(_traffic(seed, ratio=5.0), 60)
    assert said[-1].verdict == "no_go"
    assert len(said) * 5 <= 60
    assert "errors" in said[-1].summary


def test_a_candidate_that_is_slower_is_sent_back() -> None:
    said = _judged(_traffic(1, slower=1.6), 120)
    assert said[-1].verdict == "no_go"
    assert "latency" in said[-1].summary


@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_that_is_no_worse_is_certified(seed: int) -> None:
    said = _judged(_traffic(seed), 1000)
    assert said[-1].verdict == "go"
    assert said[len(said) // 2].seconds_to_go is not None


def test_what_was_worse_stays_so() -> None:
    judge, bad = CountsJudge(_declared()), _traffic(2, ratio=20.0)
    verdicts = [judge.tick(1000.0 + 5 * index, Growth(next(bad), 5.0)).verdict for index in range(20)]
    good = _traffic(3)
    verdicts += [judge.tick(1100.0 + 5 * index, Growth(next(good), 5.0)).verdict for index in range(100)]
    first = verdicts.index("no_go")
    assert set(verdicts[first:]) == {"no_go"}


def test_silence_decides_nothing_however_long() -> None:
    nothing = Tally(0, 0, dict.fromkeys(EDGES, 0.0))
    lonely = Both(Tally(450, 4, dict.fromkeys(EDGES, 450.0)), nothing)
    for growth in (None, Growth(Both(nothing, nothing), 5.0), Growth(lonely, 5.0)):
        judge = CountsJudge(_declared())
        said = [judge.tick(1000.0 + 5 * index, growth) for index in range(1000)]
        assert {each.verdict for each in said} == {"not_yet"}
        assert "silence decides nothing" in said[-1].summary


def test_go_does_not_outlive_its_counts() -> None:
    judge, good, at = CountsJudge(_declared()), _traffic(4), 1000.0
    said = judge.tick(at, None)
    while said.verdict != "go":
        at += 5
        said = judge.tick(at, Growth(next(good), 5.0))
    assert judge.tick(at + 30, None).verdict == "go"
    assert judge.tick(at + 600, None).verdict == "not_yet"
    assert judge.tick(at + 605, Growth(next(good), 5.0)).verdict == "go"


def test_a_judge_that_is_made_from_its_state_goes_on_as_it_was() -> None:
    traffic = [Growth(both, 5.0) for both in itertools.islice(_traffic(5, ratio=1.4), 60)]
    whole, halves = CountsJudge(_declared()), CountsJudge(_declared())
    for index, growth in enumerate(traffic):
        halves = CountsJudge(_declared(), json.loads(json.dumps(halves.state(), allow_nan=False)))
        at = 1000.0 + 5 * index
        assert halves.tick(at, growth) == whole.tick(at, growth)


@pytest.mark.parametrize("state", [{}, {"of": "x"}, {"of": 1, "board": []}])
def test_a_state_of_something_else_begins_anew_and_says_so(state: JsonObject) -> None:
    said = CountsJudge(_declared(), state).tick(1.0, None)
    assert said.verdict == "not_yet"
    assert any(note.startswith("began anew") for note in said.notes)


def test_settings_that_changed_begin_anew_and_how_often_it_reads_does_not() -> None:
    judge = CountsJudge(_declared())
    for index, both in enumerate(itertools.islice(_traffic(2, ratio=20.0), 20)):
        judge.tick(1000.0 + 5 * index, Growth(both, 5.0))
    oftener = CountsJudge(_declared(every_seconds=1), judge.state())
    assert oftener.tick(1200.0, None).verdict == "no_go"
    assert CountsJudge(_declared(settings={"false_alarm": 0.2}), judge.state()).tick(1200.0, None).verdict == "not_yet"


def test_buckets_that_differ_are_said_and_not_compared() -> None:
    one, other = Tally(500, 5, {0.1: 400, math.inf: 500}), Tally(50, 0, {0.2: 40, math.inf: 50})
    said = CountsJudge(_declared()).tick(1.0, Growth(Both(one, other), 5.0))
    assert any("buckets of both versions differ" in note for note in said.notes)


def test_evidence_beyond_all_numbers_is_still_json() -> None:
    judge = CountsJudge(_declared(latency=None, settings={"requests_together_max": 1}))
    both = Both(Tally(1_000_000, 0, {}), Tally(1_000_000, 900_000, {}))
    said = [judge.tick(1000.0 + index, Growth(both, 1.0)) for index in range(50)][-1]
    assert said.verdict == "no_go"
    json.dumps(said.model_dump(mode="json"), allow_nan=False)


# Answers


def _session(verdict: str, at: datetime, **changes: Any) -> Session:
    row: dict[str, Any] = {
        "number": 1,
        "judge": "checkout",
        "session": "7d9",
        "stable": None,
        "begun_by": "service:rollouts",
        "begun_at": at,
        "asked_at": at,
        "ended_at": None,
        "ended_because": None,
        "trouble": None,
        "judgement": {"verdict": verdict, "summary": "words", "at_seconds": at.timestamp()},
    }
    return Session(**{**row, **changes})


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(("verdict", "status"), [("go", "success"), ("no_go", "failure"), ("not_yet", "inconclusive")])
def test_each_verdict_has_its_word(verdict: str, status: str) -> None:
    assert answer_of(_session(verdict, NOW), _declared(), NOW)["status"] == status


def test_an_old_go_is_inconclusive_and_an_old_no_go_is_not() -> None:
    later = NOW + timedelta(minutes=10)
    assert answer_of(_session("go", NOW), _declared(), later)["status"] == "inconclusive"
    assert answer_of(_session("go", NOW, ended_at=NOW, ended_because="x"), _declared(), NOW)["status"] == "inconclusive"
    assert answer_of(_session("no_go", NOW), _declared(), later)["status"] == "failure"
    assert answer_of(_session("go", NOW, judgement=None), _declared(), NOW)["status"] == "inconclusive"


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ({"state": "canary", "verdict": None}, "inconclusive"),
        ({"state": "canary", "verdict": "go"}, "success"),
        ({"state": "canary", "verdict": "no_go"}, "failure"),
        ({"state": "going_back", "verdict": "not_yet"}, "failure"),
        ({"state": "released", "verdict": None}, "success"),
        ({"state": "rolled_back", "verdict": None, "reason": "errors"}, "failure"),
        ({"state": "paused", "verdict": "not_yet"}, "inconclusive"),
    ],
)
def test_a_release_of_our_own_has_the_same_three_words(release: JsonObject, status: str) -> None:
    assert answer_of_release(release, None)["status"] == status


def test_a_place_survives_being_written_down() -> None:
    both = Both(Tally(1, 0, {0.1: 1, math.inf: 1}), Tally(2, 1, {}))
    for place in (Place(), Place(12.5, 13.5), Place(asked_seconds=1.0, before=both)):
        assert Place.restored(json.loads(json.dumps(place.state(), allow_nan=False))) == place
