"""What a judge counts: users and their first errors, requests once, and nobody else's arm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interlock.core.traffic import Sample
from interlock.releases.judge import counting
from interlock.releases.judge.counting import ArmCounts, Counter


def sample(arm: str = "v2", **changes: Any) -> Sample:
    good = Sample(
        at_seconds=0.0, arm=arm, status=200, seconds=0.1, client_left=False, fell_back=False, unit="", request=""
    )
    return good._replace(**changes)


def _counter() -> Counter:
    return Counter("v1", "v2", requests_together_max=4)


def _numbers(counts: ArmCounts) -> tuple[float, float]:
    return counts.errors, counts.seen


def test_a_user_meets_his_first_error_once() -> None:
    counter = _counter()
    failing = [sample(unit="anna", status=500), sample(unit="anna", status=500), sample(unit="ben")]
    assert _numbers(counter.count(failing).candidate) == (1.0, 2.0)
    assert _numbers(counter.count(failing).candidate) == (0.0, 1.0)


def test_who_met_an_error_before_brings_none_to_the_other_version() -> None:
    """Otherwise a ramp would carry users who always fail to the candidate, one after another."""
    counter = _counter()
    counter.count([sample("v1", unit="anna", status=500)])
    assert _numbers(counter.count([sample(unit="anna", status=500)]).candidate) == (0.0, 0.0)


def test_a_client_that_left_and_other_arms_are_not_looked_at() -> None:
    counts = _counter().count([sample(status=0, client_left=True, unit="a"), sample("v0", status=500, unit="b")])
    assert [_numbers(each) for each in counts] == [(0.0, 0.0), (0.0, 0.0)]
    assert counts.candidate.came == 0


@pytest.mark.parametrize("status", [0, 500, 503, 599])
def test_no_answer_and_server_errors_are_errors(status: int) -> None:
    assert _numbers(_counter().count([sample(unit="a", status=status)]).candidate) == (1.0, 1.0)


def test_what_the_stable_version_answered_for_the_candidate_counts_against_the_candidate() -> None:
    """Seen as one line of the stable version, or beside the candidate's own failed attempt: once."""
    rescued = sample("v1", unit="anna", request="r", fell_back=True)
    counts = _counter().count([rescued])
    assert (_numbers(counts.candidate), _numbers(counts.stable)) == ((1.0, 1.0), (0.0, 0.0))
    counts = _counter().count([sample(unit="anna", request="r", status=503), rescued])
    assert (_numbers(counts.candidate), _numbers(counts.stable)) == ((1.0, 1.0), (0.0, 0.0))
    assert counts.stable.latencies.size == counts.candidate.latencies.size == 0


def test_attempts_of_one_request_count_once_even_over_ticks() -> None:
    counter = _counter()
    attempts = [sample(request="r", status=503) for _ in range(4)]
    assert _numbers(counter.count(attempts).candidate) == (0.25, 0.25)
    assert _numbers(counter.count(attempts).candidate) == (0.0, 0.0)


def test_requests_of_nobody_known_count_as_parts() -> None:
    counts = _counter().count([sample(status=500), sample(), sample(request="r")])
    assert _numbers(counts.candidate) == (0.25, 0.75)
    assert counts.candidate.weights.tolist() == [0.25, 0.25]


def test_one_latency_of_each_user_and_only_of_good_answers() -> None:
    counts = _counter().count(
        [
            sample(unit="a", seconds=0.1),
            sample(unit="a", seconds=9.0),
            sample(unit="b", status=500, seconds=0.001),
            sample(unit="c", status=404, seconds=0.002),
        ]
    )
    assert counts.candidate.latencies.tolist() == [0.1]


def test_a_user_who_meets_both_versions_in_a_tick_counts_for_the_first() -> None:
    counts = _counter().count([sample("v1", unit="a"), sample("v2", unit="a", status=500)])
    assert (_numbers(counts.stable), _numbers(counts.candidate)) == ((0.0, 1.0), (0.0, 0.0))


def test_refusals_are_counted_apart() -> None:
    counter = _counter()
    first = counter.count([sample(unit="a", status=403), sample(unit="b", status=500)]).candidate
    assert (first.refusals, first.asked, first.errors, first.seen) == (1.0, 2.0, 1.0, 2.0)
    again = counter.count([sample(unit="a", status=500)]).candidate
    assert (again.refusals, again.asked, again.errors, again.seen) == (0.0, 0.0, 1.0, 1.0)


def test_when_more_users_failed_than_are_remembered_a_part_of_them_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "UNITS_MAX", 100)
    counter = _counter()
    for start in range(0, 1000, 50):
        counter.count([sample(unit=f"user {number}", status=500) for number in range(start, start + 50)])
    assert counter.halvings >= 3
    state = counter.state()
    assert len(state["erred"]) <= 100  # type: ignore[arg-type]
    seen = counter.count([sample(unit=f"other {number}") for number in range(8000)]).candidate.seen
    assert seen == pytest.approx(8000 / 2**counter.halvings, rel=0.25)
    again = counter.count([sample(unit=f"user {number}", status=500) for number in range(1000)]).candidate
    assert again.errors == 0, "nobody who is still counted was forgotten"


def test_requests_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "REQUESTS_MAX", 10)
    counter = _counter()
    counter.count([sample(request=f"r{number}", status=500) for number in range(50)])
    assert len(counter.state()["requests"]) == 10  # type: ignore[arg-type]


def test_a_counter_goes_on_from_its_state() -> None:
    counter, other = _counter(), _counter()
    counter.count([sample(unit="a", status=500), sample(request="r", status=500), sample(unit="b", status=404)])
    other.restore(json.loads(json.dumps(counter.state())))
    batch = [sample(unit="a", status=500), sample(request="r", status=500), sample(unit="b", status=404)]
    assert _numbers(other.count(batch).candidate) == _numbers(counter.count(batch).candidate) == (0.0, 1.0)
