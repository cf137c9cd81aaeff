"""Errors in a row are seen at once, unless all versions fail; clients who leave are nobody's fault."""

from __future__ import annotations

from interlock.core.traffic import Sample
from interlock.releases.red_lines import Burst, Probes
from interlock.releases.tally import Tally, quantile


def sample(arm: str, status: int = 200, at: float = 1.0, seconds: float = 0.01, *, client_left: bool = False) -> Sample:
    return Sample(at, arm, status, seconds, client_left, False, "", "")


def test_errors_in_a_row_cross_the_line_and_say_since_when() -> None:
    burst = Burst("v1", "v2", 3)
    assert burst.feed([sample("v2", 503, 1.0), sample("v1"), sample("v2", 0, 2.0)]) is None
    crossed = burst.feed([sample("v2", 500, 3.0)])
    assert crossed is not None
    assert (crossed.first_seconds, crossed.count) == (1.0, 3)


def test_one_good_answer_between_them_begins_a_new_row() -> None:
    burst = Burst("v1", "v2", 3)
    assert (
        burst.feed([sample("v2", 503), sample("v2", 503), sample("v2"), sample("v2", 503), sample("v2", 503)]) is None
    )
    assert burst.feed([sample("v2", 404)]) is None, "the client's own fault"


def test_a_client_who_left_neither_begins_nor_ends_a_row() -> None:
    burst = Burst("v1", "v2", 2)
    assert burst.feed([sample("v2", 0, client_left=True), sample("v2", 503)]) is None
    assert burst.feed([sample("v2", 0, client_left=True), sample("v2", 503)]) is not None


def test_where_all_fail_nothing_is_said_until_one_of_them_answers() -> None:
    burst = Burst("v1", "v2", 2)
    assert burst.feed([sample(arm, 503) for arm in ("v1", "v2") * 5]) is None
    assert burst.feed([sample("v1")]) is not None


def test_probes_in_a_row_cross_the_line_unless_the_stable_version_fails_too() -> None:
    probes = Probes("v2", 2)
    assert probes.feed(1.0, "no answer", stable_fails=False) is None
    assert probes.feed(2.0, "no answer", stable_fails=True) is None
    assert probes.feed(3.0, "no answer", stable_fails=False) is None
    crossed = probes.feed(4.0, "no answer", stable_fails=False)
    assert crossed is not None
    assert crossed.first_seconds == 3.0


def test_a_tally_counts_each_version_and_orders_its_latencies() -> None:
    tally = Tally(("v1", "v2"))
    tally.add([sample("v2", seconds=each / 100) for each in range(1, 101)])
    tally.add([sample("v1", 503), sample("other"), sample("v1", 0, client_left=True)])
    row = tally.row(7.0, weight=5.0)
    assert row["arms"]["v1"]["n"] == row["arms"]["v1"]["errors"] == 1  # type: ignore[index, call-overload]
    assert row["arms"]["v2"] == {"n": 100, "errors": 0, "p50": 0.5, "p95": 0.95, "p99": 0.99}  # type: ignore[index, call-overload]
    assert tally.total == 101


def test_a_quantile_is_a_value_that_was_seen() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], level) for level in (0.0, 0.25, 0.5, 0.51, 1.0)] == [1, 1, 2, 3, 4]
