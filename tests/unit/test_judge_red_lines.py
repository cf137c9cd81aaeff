"""Red lines: errors in a row, checks in a row, a difference, a refusal; each at once, and none by chance."""

from __future__ import annotations

from typing import Any

import pytest

from interlock.core.traffic import Sample
from interlock.releases.judge.red_lines import (
    Burst,
    Crossed,
    Probes,
    after_reconciliation,
    after_security_gate,
    burst_needed,
)


def _samples(number: int, arm: str = "v2", *, status: int = 500, users: int = 3, **changes: Any) -> list[Sample]:
    return [
        Sample(
            float(each), arm, status, 0.1, client_left=False, fell_back=False, unit=f"u{each % users}", request=""
        )._replace(**changes)
        for each in range(number)
    ]


def _burst() -> Burst:
    return Burst("v1", "v2", 5)


def test_five_errors_in_a_row_of_several_users_cross_the_line() -> None:
    burst = _burst()
    assert burst.feed(_samples(4)) is None
    crossed = burst.feed(_samples(1, at_seconds=9.0))
    assert crossed == Crossed("5 requests in a row, of several users, were errors of v2", 0.0, 5)


def test_it_is_seen_even_when_a_good_answer_follows_in_the_same_batch() -> None:
    assert _burst().feed([*_samples(5), *_samples(1, status=200)]) is not None


def test_a_good_answer_in_between_breaks_the_row() -> None:
    assert _burst().feed([*_samples(4), *_samples(1, status=404), *_samples(4)]) is None


def test_one_user_alone_needs_three_times_as_many() -> None:
    assert _burst().feed(_samples(14, users=1)) is None
    crossed = _burst().feed(_samples(15, users=1))
    assert crossed is not None
    assert "of one user" in crossed.words


def test_where_users_are_not_known_five_are_enough() -> None:
    assert _burst().feed(_samples(5, unit="")) is not None


def test_attempts_of_one_request_are_one_error() -> None:
    assert _burst().feed(_samples(12, request="r")) is None


def test_a_client_that_left_and_other_arms_neither_break_nor_make_a_row() -> None:
    noise = [*_samples(20, client_left=True), *_samples(20, arm="v0")]
    burst = _burst()
    assert burst.feed([*_samples(4), *noise]) is None
    assert burst.feed(_samples(1)) is not None


def test_an_answer_by_the_stable_version_in_its_place_is_an_error_of_the_candidate() -> None:
    assert _burst().feed(_samples(5, arm="v1", status=200, fell_back=True)) is not None


def test_trouble_that_both_share_is_not_the_candidates() -> None:
    burst = _burst()
    both = [each for pair in zip(_samples(50, arm="v1"), _samples(50), strict=True) for each in pair]
    assert burst.feed(both[:10]) is None
    assert burst.feed(both) is None
    assert burst.feed([*_samples(1, arm="v1", status=200), *_samples(200)]) is not None


@pytest.mark.parametrize(
    ("errors", "seen", "needed"), [(0, 0, 5), (0, 1000, 5), (10, 1000, 5), (100, 1000, 9), (500, 1000, 30), (9, 9, 200)]
)
def test_where_the_stable_version_fails_often_a_row_must_be_longer(errors: int, seen: int, needed: int) -> None:
    """So long that its own rate makes one such row in a thousand million."""
    assert burst_needed(5, errors, seen) == needed


def test_two_failed_checks_in_a_row_cross_the_line() -> None:
    probes = Probes("v2", 2)
    assert probes.feed(1.0, "503", stable_fails=False) is None
    assert probes.feed(2.0, None, stable_fails=False) is None
    assert probes.feed(3.0, "503", stable_fails=False) is None
    assert probes.feed(4.0, "503", stable_fails=True) is None
    assert probes.feed(5.0, "no answer", stable_fails=False) is None
    assert probes.feed(6.0, "503", stable_fails=False) == Crossed("2 key checks of v2 in a row failed: 503", 5.0, 2)


def test_one_difference_and_one_refusal_are_enough() -> None:
    assert after_reconciliation(1.0, None) is None
    assert after_security_gate(1.0, None) is None
    assert after_reconciliation(1.0, "sum of amount: 10.00, not 10.01") == Crossed(
        "reconciliation failed: sum of amount: 10.00, not 10.01", 1.0, 1
    )
    assert after_security_gate(2.0, "a secret in config.py") == Crossed(
        "the security gate refused: a secret in config.py", 2.0, 1
    )
