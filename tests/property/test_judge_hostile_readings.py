"""What a candidate tells of itself never stops its judge: whatever its metrics say, state and judgement are finite."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.judgement import ExpositionMeasure, JudgeSettings
from interlock.releases.judge.judge import Judge, _ratio
from interlock.releases.judge.readings import Brought, CounterPair, Reading, Readings

JUDGED = JudgeSettings(
    measures=(
        ExpositionMeasure(name="jobs", bad="jobs_failed", total="jobs_total"),
        ExpositionMeasure(name="took", histogram="took_seconds", quantile=0.9),
    )
)
HOSTILE = (0.0, -0.0, 5e-324, 1e-320, 1e-300, 1.0, 7.0, 2.0**53, 2.0**53 + 2, 1e300, 1.7e308, -1.0)
"""What no counter is, beside what some are."""
values = st.sampled_from((*HOSTILE, math.nan, math.inf, -math.inf)) | st.floats(min_value=0, max_value=1e6)
buckets = st.lists(st.tuples(values, values), max_size=5).map(lambda told: (*told, (math.inf, 2.0**53)))
readings = st.none() | st.builds(Reading, values, values, buckets.map(tuple) | st.just(()))
ticks = st.lists(st.tuples(readings, readings, readings, readings), min_size=1, max_size=8)


@given(ticks)
@settings(max_examples=150, deadline=None)
def test_state_and_judgement_are_finite_json_whatever_metrics_say(told: list[tuple[Reading | None, ...]]) -> None:
    judge = Judge(JUDGED, "v1", "v2")
    for second, (stable, candidate, other, another) in enumerate(told):
        judgement = judge.tick(
            float(second), (), {"jobs": Readings(stable, candidate), "took": Readings(other, another)}
        )
        state = json.loads(json.dumps(judge.state(), allow_nan=False))
        json.dumps(judgement.model_dump(), allow_nan=False)
        judge = Judge(JUDGED, "v1", "v2", state)
        assert not any("began anew" in note for note in judge.tick(float(second), ()).notes)


@pytest.mark.parametrize("large", [1.7e308, 1e300, 2.0**53, 1e-320, 5e-324, math.inf])
@pytest.mark.parametrize("small", [0.0, 1e-320, 1.0])
def test_a_counter_that_jumps_forth_and_back_leaves_finite_numbers(large: float, small: float) -> None:
    judge = Judge(JUDGED, "v1", "v2")
    for second in range(8):
        told = (large if second % 2 else small) * 1.0
        arm, bad = Reading(bad=min(told, 1.0), total=told), Reading(bad=told, total=told)
        took = Reading(buckets=((0.1, small), (0.2, small), (math.inf, told)))
        judgement = judge.tick(float(second), (), {"jobs": Readings(arm, bad), "took": Readings(took, took)})
        json.dumps(judge.state(), allow_nan=False)
        json.dumps(judgement.model_dump(), allow_nan=False)


@pytest.mark.parametrize("stable_bad", [5e-324, 1e-320, 0.0])
def test_a_ratio_that_no_number_can_hold_is_not_told(stable_bad: float) -> None:
    assert _ratio(5.0, 10.0, stable_bad, 2.0**53) is None


def test_a_counter_that_no_counter_can_be_is_not_read() -> None:
    pair = CounterPair()
    good = Reading(bad=1.0, total=10.0)
    pair.take(Readings(good, good), 1.0)
    for wrong in (math.nan, math.inf, -1.0, 2.0**53 + 2, 1.7e308):
        assert pair.take(Readings(good, Reading(bad=0.0, total=wrong)), 1.0) == Brought()
        assert pair.take(Readings(Reading(bad=wrong, total=10.0), good), 1.0) == Brought()
    more = Reading(bad=2.0, total=20.0)
    assert pair.take(Readings(more, more), 1.0).candidate_seen == 10.0
