"""Another answer to the same user counts as much as it tells: everything where users are alike, nothing where not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from interlock.core.errors import Invalid
from interlock.core.judgement import Judgement, JudgeSettings
from interlock.core.traffic import Sample
from interlock.releases.judge import crowd as crowd_module
from interlock.releases.judge.crowd import Crowd, weight_of
from interlock.releases.judge.judge import Judge

NUMBERS = np.arange(1, 200)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3, 1.0])
def test_so_many_answers_tell_as_much_as_so_many_users(rho: float) -> None:
    expected = NUMBERS / (1 + (NUMBERS - 1) * rho)
    assert np.cumsum(weight_of(NUMBERS, rho)).tolist() == pytest.approx(expected.tolist())
    assert weight_of(NUMBERS, rho)[0] == 1


def _feed(crowd: Crowd, slowness: float, ticks: int, users: int = 100) -> float:
    random = np.random.default_rng(4)
    own = slowness * random.standard_normal(users)
    thresholds = np.array([0.0, 1.6]) * math.hypot(slowness, 1.0)
    keys = [7919 * number for number in range(users)]
    counted = 0.0
    for _ in range(ticks):
        latencies = own + random.standard_normal(users)
        counted += float(crowd.take(keys, np.ones(users)).sum())
        crowd.learn(keys, latencies, thresholds)
    return counted / users


def test_where_users_are_alike_nearly_all_answers_count() -> None:
    crowd = Crowd(2)
    counted = _feed(crowd, 0.0, 20)
    assert crowd.rho < 0.05
    assert counted > 10


def test_where_users_differ_further_answers_tell_little() -> None:
    crowd = Crowd(2)
    counted = _feed(crowd, 1.0, 50)
    assert 0.2 < crowd.rho < 0.6
    assert 1 < counted < 5


def test_before_anything_is_known_users_are_thought_to_differ() -> None:
    crowd = Crowd(2)
    assert crowd.take([1, 2], np.ones(2)).tolist() == [1, 1]
    assert crowd.take([1, 2], np.ones(2)).tolist() == [0, 0]


def test_whoever_is_not_known_counts_the_same_each_time() -> None:
    crowd = Crowd(2)
    for _ in range(3):
        assert crowd.take([-1, -2], np.full(2, 0.25)).tolist() == [0.25, 0.25]
    assert crowd.state()["recent"] == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "USERS_MAX", 100)
    monkeypatch.setattr(crowd_module, "PAIRED_MAX", 50)
    crowd = Crowd(1)
    for start in range(0, 5000, 50):
        keys = [*range(start, start + 50)]
        crowd.take(keys, np.ones(50))
        crowd.learn(keys, np.ones(50), np.array([0.5]))
    state = crowd.state()
    assert len(state["recent"]) + len(state["older"]) <= 2 * 2 * 150  # type: ignore[arg-type]
    assert len(state["paired"]) <= 50  # type: ignore[arg-type]
    assert crowd.take([4999], np.ones(1)).tolist() == [0], "who came just before is still known"


def test_a_crowd_goes_on_from_its_state() -> None:
    crowd, other = Crowd(2), Crowd(2)
    _feed(crowd, 0.5, 10)
    other.restore(json.loads(json.dumps(crowd.state())))
    assert other.rho == crowd.rho
    assert _feed(other, 0.5, 5) == _feed(crowd, 0.5, 5)
    with pytest.raises(Invalid):
        other.restore({**crowd.state(), "recent": [1]})


def _judged(seed: int, *, differ: float, slower: float = 1.0, ticks: int = 150) -> Judgement:
    """200 accounts that are slow or fast by themselves and come each second; a tenth of them got the candidate."""
    random = np.random.default_rng(seed)
    own = differ * random.standard_normal(200)
    judge = Judge(JudgeSettings(), "v1", "v2")
    for tick in range(ticks):
        samples = [
            Sample(
                at_seconds=0.0,
                arm="v1" if who % 10 else "v2",
                status=200,
                seconds=0.06 * math.exp(own[who] + 0.2 * random.standard_normal()) * (1 if who % 10 else slower),
                client_left=False,
                fell_back=False,
                unit=f"account {who}",
                request="",
            )
            for who in range(200)
        ]
        judgement = judge.tick(5.0 * tick, samples)
        if judgement.verdict == "no_go":
            break
    return judgement


def test_a_few_slow_accounts_are_no_slow_version(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [_judged(seed, differ=0.6) for seed in range(5)]
    assert [each.verdict for each in judged] == ["not_yet"] * 5
    assert any(note.startswith("users differ in speed (correlation 0.") for note in judged[0].notes)
    monkeypatch.setattr(crowd_module, "weight_of", lambda number, _rho: np.ones(len(number)))
    wrong = [_judged(seed, differ=0.6).verdict for seed in range(5)]
    assert wrong.count("no_go") >= 2, "counting all answers would send good versions back"


def test_a_version_that_is_slow_for_a_few_like_users_is_found() -> None:
    """Before it is known how much they differ only their first answers count: too few to know a P99 from."""
    assert [_judged(seed, differ=0.0, slower=2.0, ticks=10).verdict for seed in range(5)] == ["no_go"] * 5
