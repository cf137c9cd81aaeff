"""The judge says no-go, go or not yet for what it saw, says why, and is not moved by silence, clocks or a restart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from interlock.core.judgement import ExpositionMeasure, Judgement, JudgeSettings, ThresholdMeasure
from interlock.core.traffic import Sample
from interlock.releases.judge.judge import Judge
from interlock.releases.judge.readings import Reading, Readings
from interlock.releases.judge.thresholds import ThresholdReading, parse_thresholds

START = 1_800_000_000.0


class Users:
    """Makes up what a proxy sees: each request of another user unless `users` says how many there are."""

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._count = 0

    def second(
        self,
        *,
        stable: float = 450,
        candidate: float = 50,
        errors: float = 0.01,
        candidate_errors: float | None = None,
        slower: float = 1.0,
        at_seconds: float = 0.0,
    ) -> list[Sample]:
        shares = (("v1", stable, errors, 1.0), ("v2", candidate, candidate_errors or errors, slower))
        found = []
        for arm, rate, share, factor in shares:
            for _ in range(self._random.poisson(rate)):
                self._count += 1
                found.append(
                    Sample(
                        at_seconds,
                        arm,
                        500 if self._random.random() < share else 200,
                        0.06 * factor * math.exp(0.6 * self._random.standard_normal()),
                        client_left=False,
                        fell_back=False,
                        unit=f"user {self._count}",
                        request="",
                    )
                )
        return found


def _until(judge: Judge, users: Users, verdict: str, seconds_max: int, **traffic: float) -> tuple[int, Judgement]:
    for second in range(1, seconds_max + 1):
        said = judge.tick(START + second, users.second(**traffic))
        if said.verdict == verdict:
            return second, said
    pytest.fail(f"not {verdict} after {seconds_max} s: {said.summary}")


def _judge(**settings: object) -> Judge:
    return Judge(JudgeSettings.model_validate(settings), "v1", "v2")


@pytest.mark.parametrize(("candidate_errors", "seconds_max"), [(0.2, 5), (0.05, 20), (0.03, 45)])
def test_more_errors_are_sent_back_in_seconds(candidate_errors: float, seconds_max: int) -> None:
    _, said = _until(_judge(), Users(), "no_go", seconds_max, candidate_errors=candidate_errors)
    errors = said.measures[0]
    assert said.summary.startswith("NO-GO for v2: errors: ")
    assert f"{errors.candidate_bad:.0f} of {errors.candidate_seen:.0f}" in said.summary
    assert errors.evidence_against >= errors.needed_against == pytest.approx(200)
    assert errors.ratio is not None
    assert errors.ratio > (errors.ratio_low or 0.0) >= 1


def test_what_is_thirty_percent_slower_is_sent_back_in_seconds() -> None:
    _, said = _until(_judge(), Users(), "no_go", 40, slower=1.3)
    assert "took longer than" in said.summary
    assert next(each.name for each in said.measures if each.verdict == "no_go").startswith("latency p")


def test_slower_by_less_than_the_margin_is_told_and_not_sent_back() -> None:
    judge, users = _judge(latency_increase_max=0.3), Users()
    for second in range(60):
        said = judge.tick(START + second, users.second(slower=1.15))
    assert said.verdict == "not_yet"
    assert any(each.warning for each in said.measures)
    assert "not by more than is allowed" in said.summary


def _short(users: Users, seconds: float) -> list[Sample]:
    """Answers of a third of a millisecond; the candidate's take so much longer."""
    return [
        sample._replace(seconds=sample.seconds / 200 + (seconds if sample.arm == "v2" else 0.0))
        for sample in users.second(errors=0.0001)
    ]


def test_a_part_of_a_millisecond_more_sends_nothing_back() -> None:
    judge, users = _judge(), Users()
    said = [judge.tick(START + second, _short(users, 0.0003)) for second in range(1, 120)]
    assert "no_go" not in {each.verdict for each in said}, said[-1].summary


def test_some_milliseconds_more_of_less_than_one_are_sent_back() -> None:
    judge, users = _judge(), Users()
    said = [judge.tick(START + second, _short(users, 0.004)) for second in range(1, 60)]
    assert said[-1].verdict == "no_go", said[-1].summary
    assert "took longer than 2." in said[-1].summary, said[-1].summary


def test_no_go_stays_whatever_comes_after() -> None:
    judge, users = _judge(), Users()
    _, before = _until(judge, users, "no_go", 10, candidate_errors=0.3)
    for second in range(60):
        said = judge.tick(START + 100 + second, users.second())
    assert said.verdict == "no_go"
    assert said.summary == before.summary


def test_an_equal_version_is_certified_and_the_time_it_takes_is_told_before() -> None:
    judge, users = _judge(), Users(3)
    for second in range(30):
        said = judge.tick(START + second, users.second())
    assert said.verdict == "not_yet"
    assert said.seconds_to_go is not None
    told = said.seconds_to_go + 30
    took, said = _until(judge, users, "go", 700)
    assert told / 3 < took + 30 < told * 3
    assert said.seconds_to_go == 0
    assert said.summary.startswith("GO for v2: errors: ")
    certified = {each.name for each in said.measures if each.required_for_go}
    assert certified == {"errors", "latency p50", "latency p95"}


def test_a_service_without_errors_can_be_certified() -> None:
    """Not by a ratio of nothing to nothing: because fewer users than is harmless meet one."""
    judge, users = _judge(certified_quantiles=(), error_share_harmless=0.01), Users()
    took, said = _until(judge, users, "go", 60, errors=0.0)
    assert took < 30
    assert said.measures[0].ratio is None


def test_at_two_requests_a_second_go_needs_hours_and_another_way_is_named() -> None:
    judge, users = _judge(), Users()
    for second in range(400):
        said = judge.tick(START + second, users.second(stable=1, candidate=1))
    assert said.verdict == "not_yet"
    assert said.seconds_to_go is not None
    assert 2 * 3600 < said.seconds_to_go < 48 * 3600
    assert " h more for GO, because of latency p95" in said.summary
    assert "blue/green (`steps: []`)" in said.summary


def test_silence_decides_nothing() -> None:
    judge = _judge()
    for second in range(0, 7200, 60):
        said = judge.tick(START + second, [])
    assert (said.verdict, said.seconds_to_go) == ("not_yet", None)
    assert said.summary == "not yet: nobody came for 119 min, and silence decides nothing"
    assert said.silent_seconds == pytest.approx(7141)
    assert said.notes == ("v1 had no request for 119 min", "v2 had no request for 119 min")


@pytest.mark.parametrize(("stable", "candidate", "silent"), [(100, 0, "v2"), (0, 100, "v1")])
def test_one_version_alone_decides_nothing(stable: float, candidate: float, silent: str) -> None:
    judge, users = _judge(), Users()
    for second in range(60):
        said = judge.tick(START + second, users.second(stable=stable, candidate=candidate, errors=0.3))
    assert said.verdict == "not_yet"
    assert said.notes == (f"{silent} had no request for 60 s",)
    assert all(each.evidence_against == pytest.approx(1) for each in said.measures)


def test_once_all_users_have_the_candidate_it_is_held_against_the_past() -> None:
    judge, users = _judge(), Users()
    for second in range(60):
        judge.tick(START + second, users.second(candidate=0))
    for second in range(60, 90):
        said = judge.tick(START + second, users.second(stable=0, candidate=100))
    assert said.verdict == "not_yet"
    assert said.measures[-1].name == "errors alone"
    took, said = _until(judge, users, "no_go", 30, stable=0, candidate=100, candidate_errors=0.12)
    assert took < 10
    assert said.summary.startswith("NO-GO for v2: errors of v2 alone: ")


def test_thin_traffic_is_no_silence() -> None:
    """A user now and then, and mostly of the candidate: that the other is not seen for a minute means nothing."""
    judge, users = _judge(), Users()
    for second in range(20):
        judge.tick(START + second, users.second(candidate=0))
    for minute in range(300):
        one = {"stable": 0.0 if minute % 20 else 1.0, "candidate": 1.0}
        said = judge.tick(START + 60 * (minute + 1), users.second(candidate_errors=0.2, **one))
        assert all(each.name != "errors alone" for each in said.measures)


@pytest.mark.parametrize("jump", [-86_400.0, -5.0, 86_400.0, 1e12])
def test_a_clock_that_jumps_changes_no_verdict_and_is_told(jump: float) -> None:
    judge, users = _judge(), Users()
    for second in range(20):
        judge.tick(START + second, users.second())
    said = judge.tick(START + 20 + jump, users.second())
    assert said.verdict == "not_yet"
    assert "the clock jumped, or the judge did not run, 1 times" in said.notes
    assert all(math.isfinite(each.evidence_against) for each in said.measures)
    _until(judge, users, "no_go", 60, candidate_errors=0.05)


def test_a_judge_that_was_killed_goes_on_as_if_nothing_had_happened() -> None:
    settings = JudgeSettings(
        measures=(
            ExpositionMeasure(name="jobs", bad="bad", total="total"),
            ExpositionMeasure(name="took", histogram="took"),
            ThresholdMeasure(source="threshold", name="limits", url="http://localhost:1/x", file="/x"),
        )
    )
    judge, other = Judge(settings, "v1", "v2"), Judge(settings, "v1", "v2")
    users = Users()
    limits = parse_thresholds(b"queue: {max: 10}")
    for second in range(150):
        buckets = ((0.1, 90.0 * second), (0.3, 99.0 * second), (math.inf, 100.0 * second))
        both = Reading(second * 1.0, second * 100.0)
        readings = {
            "jobs": Readings(both, both),
            "took": Readings(Reading(total=1, buckets=buckets), Reading(total=1, buckets=buckets)),
            "limits": ThresholdReading(limits, {"queue": 3.0}),
        }
        samples = users.second(stable=60, candidate=20, candidate_errors=0.015)
        said = judge.tick(START + second, samples, readings)
        if second % 7 == 0:
            other = Judge(settings, "v1", "v2", json.loads(json.dumps(other.state(), allow_nan=False)))
        assert other.tick(START + second, samples, readings) == said


def test_a_state_of_other_settings_or_versions_begins_anew_and_says_so() -> None:
    judge, users = _judge(), Users()
    _until(judge, users, "no_go", 10, candidate_errors=0.3)
    for other in (
        Judge(JudgeSettings(), "v1", "v3", judge.state()),
        Judge(JudgeSettings(false_alarm=0.02), "v1", "v2", judge.state()),
        Judge(JudgeSettings(), "v1", "v2", {**judge.state(), "board": {}}),
    ):
        said = other.tick(START, [])
        assert said.verdict == "not_yet"
        assert "began anew: what was seen before was of other settings or versions" in said.notes


def test_where_users_are_not_known_it_says_so() -> None:
    users = Users()
    judge = _judge()
    for second in range(10):
        samples = [each._replace(unit="", request=f"{each.unit}") for each in users.second(candidate_errors=0.5)]
        said = judge.tick(START + second, samples)
    assert said.verdict == "no_go"
    assert any("no known user; each counts as 1/4 of one" in note for note in said.notes)


def test_where_most_users_met_an_error_before_it_says_so() -> None:
    judge = _judge()
    few = [
        Sample(
            START,
            "v1" if number % 2 else "v2",
            500,
            0.1,
            client_left=False,
            fell_back=False,
            unit=f"u{number}",
            request="",
        )
        for number in range(100)
    ]
    for second in range(10):
        said = judge.tick(START + second, few)
    assert said.verdict == "not_yet"
    assert any("of the users who come met no error before" in note for note in said.notes)


def test_a_declared_measure_sends_back_by_itself() -> None:
    judge = Judge(JudgeSettings(measures=(ExpositionMeasure(name="sales", bad="bad", total="total"),)), "v1", "v2")
    for second in range(30):
        stable, candidate = Reading(second * 4.0, second * 400.0), Reading(second * 20.0, second * 100.0)
        said = judge.tick(START + second, [], {"sales": Readings(stable, candidate)})
    assert said.verdict == "no_go"
    assert said.summary.startswith("NO-GO for v2: sales: ")


def test_a_breach_sends_back_and_values_that_nobody_tells_hold_up_go() -> None:
    measure = ThresholdMeasure(
        source="threshold", name="limits", url="http://localhost:1/x", file="/x", interval_seconds=1
    )
    limits = parse_thresholds(b"queue: {max: 10}")
    settings = JudgeSettings(measures=(measure,), certified_quantiles=(), error_share_harmless=0.1)
    judge, users = Judge(settings, "v1", "v2"), Users()
    for second in range(60):
        said = judge.tick(START + second, users.second(errors=0.001), {"limits": ThresholdReading(limits, {})})
    assert said.verdict == "not_yet"
    assert "limits: nobody told queue" in said.notes
    said = judge.tick(START + 61, users.second(errors=0.001), {"limits": ThresholdReading(limits, {"queue": 3})})
    assert said.verdict == "go"
    for second in range(62, 65):
        said = judge.tick(START + second, [], {"limits": ThresholdReading(limits, {"queue": 11})})
    assert said.verdict == "no_go"
    assert said.breaches == ("limits: queue is 11, above 10, 2 times in a row",)


@pytest.mark.parametrize(("grade", "verdict"), [("block", "no_go"), ("warn", "not_yet")])
def test_refusals_block_only_where_that_is_asked_for(grade: str, verdict: str) -> None:
    judge, users = _judge(refusals=grade), Users()
    for second in range(30):
        samples = [
            each._replace(status=403) if each.arm == "v2" and index % 3 == 0 else each
            for index, each in enumerate(users.second())
        ]
        said = judge.tick(START + second, samples)
    assert said.verdict == verdict
    (refusals,) = (each for each in said.measures if each.name == "refusals")
    assert refusals.evidence_against >= refusals.needed_against
    assert refusals.warning is (grade == "warn")


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="certified_quantiles"):
        JudgeSettings(certified_quantiles=(0.42,))
    with pytest.raises(ValueError, match="error_ratio_allowed"):
        JudgeSettings(error_ratio_allowed=2, error_ratio_max=2)
    with pytest.raises(ValueError, match="name of its own"):
        JudgeSettings(measures=(ExpositionMeasure(name="errors", bad="a", total="b"),))
    with pytest.raises(ValueError, match="`bad` and `total`, or `histogram`"):
        ExpositionMeasure(name="jobs", bad="a")
