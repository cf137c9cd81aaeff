"""What is read out of scraped counters is never negative, never counted twice, and never lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.judges.scraped import Series, increase

STEPS = st.lists(st.tuples(st.floats(0.5, 30), st.integers(0, 1000), st.booleans()), min_size=1, max_size=20)
CUTS = st.lists(st.floats(-50, 700), max_size=10)


def _series(steps: list[tuple[float, int, bool]]) -> tuple[Series, float]:
    """A counter that grows, and at times begins anew; and what was counted since its first sample."""
    moment, value, counted = 0.0, 17.0, 0.0
    samples = [(moment, value)]
    for seconds, more, anew in steps:
        moment += seconds
        value = more if anew else value + more
        counted += more if not anew or value < samples[-1][1] else value - samples[-1][1]
        samples.append((moment, value))
    return Series({}, samples), counted


@given(STEPS, CUTS)
def test_parts_add_up_to_the_whole(steps: list[tuple[float, int, bool]], cuts: list[float]) -> None:
    series, counted = _series(steps)
    end = series.samples[-1][0]
    moments = sorted({0.0, end, *(cut for cut in cuts if 0 <= cut <= end)})
    parts = [increase([series], *pair) for pair in itertools.pairwise(moments)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(increase([series], 0.0, end)) == pytest.approx(counted)


@given(STEPS, CUTS)
def test_a_series_that_begins_is_counted_once_from_zero(
    steps: list[tuple[float, int, bool]], cuts: list[float]
) -> None:
    series, counted = _series(steps)
    moments = sorted({-60.0, 800.0, *cuts})
    parts = [increase([series], *pair) for pair in itertools.pairwise(moments)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(counted + series.samples[0][1])
