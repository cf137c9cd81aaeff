"""What was seen in a tick is counted for each version; clients who leave are nobody's fault."""

from __future__ import annotations

from interlock.core.traffic import Sample
from interlock.releases.tally import Tally, by_chance_of, quantile


def sample(arm: str, status: int = 200, at: float = 1.0, seconds: float = 0.01, *, client_left: bool = False) -> Sample:
    return Sample(at, arm, status, seconds, client_left, False, "", "")


def attempt(request: str, arm: str, status: int, *, fell_back: bool = False) -> Sample:
    return Sample(1.0, arm, status, 0.5, False, fell_back, "", request)


def test_a_tally_counts_each_version_and_orders_its_latencies() -> None:
    tally = Tally(("v1", "v2"))
    tally.add([sample("v2", seconds=each / 100) for each in range(1, 101)])
    tally.add([sample("v1", 503), sample("other"), sample("v1", 0, client_left=True)])
    row = tally.row(7.0, weight=5.0)
    assert row["arms"]["v1"]["n"] == row["arms"]["v1"]["errors"] == 1  # type: ignore[index, call-overload]
    assert row["arms"]["v2"] == {"n": 100, "errors": 0, "rescued": 0, "p50": 0.5, "p95": 0.95, "p99": 0.99}  # type: ignore[index, call-overload]
    assert tally.total == 101


def test_a_quantile_is_a_value_that_was_seen() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], level) for level in (0.0, 0.25, 0.5, 0.51, 1.0)] == [1, 1, 2, 3, 4]


def test_what_the_stable_version_answers_for_the_candidate_is_the_candidates_failure_alone() -> None:
    tally = Tally(("v1", "v2"))
    tally.add([sample("v1"), attempt("a", "v2", 503), attempt("a", "v1", 200, fell_back=True)])
    arms = tally.row(7.0)["arms"]
    assert arms["v1"] == {"n": 1, "errors": 0, "rescued": 0, "p50": 0.01, "p95": 0.01, "p99": 0.01}  # type: ignore[index, call-overload]
    assert [arms["v2"][name] for name in ("n", "errors", "rescued")] == [1, 1, 1]  # type: ignore[index, call-overload]


def test_a_candidate_that_is_not_even_asked_any_more_fails_all_the_same() -> None:
    tally = Tally(("v1", "v2"))
    tally.add([attempt("a", "v1", 200, fell_back=True), attempt("b", "v1", 500, fell_back=True)])
    arms = tally.row(7.0)["arms"]
    assert arms["v1"] == {"n": 0, "errors": 0, "rescued": 0}  # type: ignore[index, call-overload]
    assert arms["v2"] == {"n": 2, "errors": 2, "rescued": 1}  # type: ignore[index, call-overload]
    assert tally.total == 2


def test_attempts_of_one_request_are_one_also_in_the_tick_after() -> None:
    tally = Tally(("v1", "v2"))
    tally.add([attempt("a", "v2", 0), attempt("a", "v2", 503)])
    assert tally.row(7.0)["arms"]["v2"]["errors"] == 1  # type: ignore[index, call-overload]
    tally = tally.following()
    tally.add([attempt("a", "v1", 200, fell_back=True)])
    assert tally.row(8.0)["arms"]["v2"] == {"n": 0, "errors": 0, "rescued": 1}  # type: ignore[index, call-overload]
    assert tally.total == 1


def test_who_chose_a_version_is_no_evidence_of_it() -> None:
    by_chance = Sample(1.0, "v2", 500, 0.1, False, False, "1", "a")
    of_others, by_choice = by_chance._replace(arm="v0"), by_chance._replace(chosen=True)
    assert by_chance_of([by_choice, by_chance, of_others, by_choice], ("v1", "v2")) == [by_chance]
