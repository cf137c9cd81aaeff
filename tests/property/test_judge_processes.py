"""Evidence is an e-value: whatever the rates, the traffic and the moment of looking, it rarely misleads."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.errors import Invalid
from interlock.releases.judge.board import Board, Counts, Rule
from interlock.releases.judge.processes import BETTER, BETTER_STAKES, WORSE, WORSE_STAKES, EProcesses, Floats, Tick

ROUNDING = 1e-9
shares = st.floats(0, 1)
counts = st.integers(0, 6)
worse = st.sampled_from([*WORSE])
better = st.sampled_from([*BETTER])


def _one_bet(psi: float, shape: tuple[int, ...]) -> EProcesses:
    bet = EProcesses(np.array([[psi]]), np.ones((1, 1)), np.ones(1), shape)
    bet.begin()
    return bet


def _tick(bad: Floats, stable_bad: Floats, seen: float, stable_seen: float, ratio: float) -> Tick:
    share = ratio * seen / (ratio * seen + stable_seen) if seen + stable_seen else 0.0
    return Tick(bad[:, None], (bad + stable_bad)[:, None], np.full((len(bad), 1), share))


def _binomial(number: int, share: float) -> list[float]:
    return [math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in range(number + 1)]


def _expected(psi: float, *, seen: int, stable_seen: int, share: float, stable_share: float, ratio: float) -> float:
    """The expectation of one bet after one tick, by going through all that can happen."""
    outcomes = list(itertools.product(range(seen + 1), range(stable_seen + 1)))
    bad, stable_bad = np.array(outcomes, dtype=float).T
    bet = _one_bet(psi, (len(outcomes),))
    bet.tick(_tick(bad, stable_bad, seen, stable_seen, ratio))
    probability = [
        one * other for one, other in itertools.product(_binomial(seen, share), _binomial(stable_seen, stable_share))
    ]
    return float(np.dot(np.exp(bet.log_evidence()[:, 0]), probability))


@given(worse, counts, counts, shares, st.floats(0, 1), st.floats(1, 5))
def test_a_bet_against_a_version_that_is_no_worse_wins_nothing_on_average(
    psi: float, seen: int, stable_seen: int, stable_share: float, less: float, ratio: float
) -> None:
    """At any level of the rates; the candidate's is at most `ratio` times the stable version's."""
    share = min(1.0, less * ratio * stable_share)
    expected = _expected(psi, seen=seen, stable_seen=stable_seen, share=share, stable_share=stable_share, ratio=ratio)
    assert expected <= 1 + ROUNDING


@given(better, counts, counts, shares, st.floats(1, 4), st.floats(1, 5))
def test_a_bet_for_a_version_that_is_worse_than_the_margin_wins_nothing_on_average(
    psi: float, seen: int, stable_seen: int, share: float, more: float, ratio: float
) -> None:
    expected = _expected(
        psi, seen=seen, stable_seen=stable_seen, share=share, stable_share=share / (ratio * more), ratio=ratio
    )
    assert expected <= 1 + ROUNDING


@given(worse, st.lists(shares, min_size=1, max_size=4), st.lists(shares, min_size=1, max_size=4))
def test_users_may_differ_from_each_other(psi: float, candidate: list[float], stable: list[float]) -> None:
    """Some always fail, some never: only the means count."""
    means = [sum(each) / len(each) for each in (candidate, stable)]
    if means[0] > means[1]:
        candidate, stable = stable, candidate
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=len(candidate) + len(stable))))
    bad, stable_bad = outcomes[:, : len(candidate)].sum(axis=1), outcomes[:, len(candidate) :].sum(axis=1)
    bet = _one_bet(psi, (len(outcomes),))
    bet.tick(_tick(bad, stable_bad, len(candidate), len(stable), 1.0))
    chance = np.array([*candidate, *stable])
    probability = np.prod(np.where(outcomes > 0, chance, 1 - chance), axis=1)
    assert float(np.dot(np.exp(bet.log_evidence()[:, 0]), probability)) <= 1 + ROUNDING


@given(worse, st.integers(1, 6), st.integers(1, 6), shares, st.integers(1, 6))
def test_requests_that_fail_together_count_as_parts_of_one(
    psi: float, seen: int, stable_seen: int, share: float, together: int
) -> None:
    """Groups of up to `together` requests that fail as one, each request counted as 1/together of a user."""
    outcomes = list(itertools.product(range(seen + 1), range(stable_seen + 1)))
    bad, stable_bad = np.array(outcomes, dtype=float).T
    sizes = np.arange(1, together + 1) / together
    probability = np.array(
        [one * other for one, other in itertools.product(_binomial(seen, share), _binomial(stable_seen, share))]
    )
    for size in sizes:  # all groups of one size: u lies between 0 and 1
        bet = _one_bet(psi, (len(outcomes),))
        bet.tick(_tick(bad * size, stable_bad * size, seen, stable_seen, 1.0))
        assert float(np.dot(np.exp(bet.log_evidence()[:, 0]), probability)) <= 1 + ROUNDING


@given(better, counts, shares, shares)
def test_a_bet_on_one_rate_wins_nothing_where_the_rate_is_not_below_the_limit(
    psi: float, seen: int, share: float, limit: float
) -> None:
    share, limit = max(share, limit), min(share, limit)
    bad = np.arange(seen + 1.0)
    bet = _one_bet(psi, (seen + 1,))
    bet.tick(Tick(bad[:, None], np.full((seen + 1, 1), float(seen)), np.full((seen + 1, 1), limit)))
    assert float(np.dot(np.exp(bet.log_evidence()[:, 0]), _binomial(seen, share))) <= 1 + ROUNDING


def _board(shape: tuple[int, ...], **rule: float) -> Board:
    return Board((Rule("errors", 1.0, **rule),), false_alarm=0.05, false_go=0.05, shape=shape)  # type: ignore[arg-type]


def _crossings(*, ratio: float, runs: int, ticks: int, weight: tuple[int, int] = (40, 200)) -> tuple[float, float]:
    """How often versions with that ratio of errors are sent back, and certified to have less than 1.5 times as many."""
    random = np.random.default_rng(20261120)
    board = _board((runs,), ratio_max=1.5)
    sent_back, certified = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for tick in range(ticks):
        level = 0.02 * (1 + 0.9 * math.sin(tick / 40))  # the same for both, and never still
        seen = float(weight[0] * (1 + tick // 100))  # and the candidate's part grows
        bad = random.binomial(round(seen), ratio * level, runs)[:, None].astype(float)
        stable = random.binomial(weight[1], level, runs)[:, None].astype(float)
        whole = np.full((runs, 1), seen)
        board.tick(Counts(stable, np.full((runs, 1), float(weight[1])), bad, bad, whole), 1.0)
        evidence = board.evidence()
        sent_back |= board.sent_back(evidence)[:, 0]
        certified |= board.certified(evidence)[:, 0]
    return float(sent_back.mean()), float(certified.mean())


def test_equal_versions_are_hardly_ever_sent_back_however_often_one_looks() -> None:
    sent_back, certified = _crossings(ratio=1.0, runs=3000, ticks=400)
    assert sent_back <= 0.05
    assert certified > 0.9


def test_a_version_at_the_margin_is_hardly_ever_certified() -> None:
    sent_back, certified = _crossings(ratio=1.5, runs=3000, ticks=400)
    assert certified <= 0.05
    assert sent_back > 0.9


@given(st.lists(st.tuples(*(st.integers(0, 50) for _ in range(4))), min_size=1, max_size=30), st.integers(0, 29))
def test_more_errors_of_the_candidate_never_speak_for_it(ticks: list[tuple[int, ...]], which: int) -> None:
    board, harsher, milder = _board((), ratio_max=1.5), _board((), ratio_max=1.5), _board((), ratio_max=1.5)
    for number, (bad, well, stable_bad, stable_well) in enumerate(ticks):
        seen, stable_seen = bad + well + 1, stable_bad + stable_well + 1
        more = 1 if number == which % len(ticks) else 0
        board.tick(_counts(bad, seen, stable_bad, stable_seen), 60.0)
        harsher.tick(_counts(bad + more, seen, stable_bad, stable_seen), 60.0)
        milder.tick(_counts(bad, seen, stable_bad + more, stable_seen), 60.0)
    plain, harsh, mild = (each.evidence() for each in (board, harsher, milder))
    assert harsh.worse_than_allowed[0] >= plain.worse_than_allowed[0] - ROUNDING
    assert harsh.good[0] <= plain.good[0] + ROUNDING
    assert mild.worse_than_allowed[0] <= plain.worse_than_allowed[0] + ROUNDING
    assert mild.good[0] >= plain.good[0] - ROUNDING


def _counts(bad: float, seen: float, stable_bad: float, stable_seen: float) -> Counts:
    found = (np.array([float(each)]) for each in (stable_bad, stable_seen, bad, bad, seen))
    return Counts(*found)


large = st.sampled_from([0.0, 1.0, 1e3, 1e9, 1e15])


@settings(max_examples=50)
@given(st.lists(st.tuples(large, large, large, large), min_size=1, max_size=40))
def test_no_count_is_too_large_or_too_small(ticks: list[tuple[float, float, float, float]]) -> None:
    board = _board((), ratio_max=1.5, harmless=0.001)
    for bad, well, stable_bad, stable_well in ticks:
        counts = _counts(bad, bad + well, stable_bad, stable_bad + stable_well)
        board.tick(counts, 1.0)
        evidence = board.evidence()
        assert np.all(np.isfinite(np.exp(np.concatenate(evidence))))
        assert not np.any(np.isnan(board.seconds_needed(evidence, counts)))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=20), st.integers(1, 19))
def test_what_is_written_down_goes_on_as_if_nothing_had_happened(ticks: list[tuple[int, int]], cut: int) -> None:
    board, other = _board((), ratio_max=1.5), _board((), ratio_max=1.5)
    for number, (bad, stable_bad) in enumerate(ticks):
        if number == cut % len(ticks):
            written = json.loads(json.dumps(other.state(), allow_nan=False))
            other = _board((), ratio_max=1.5)
            other.restore(written)
        for each in (board, other):
            each.tick(_counts(bad, 10.0, stable_bad, 90.0), 31.0)
    for one, same in zip(board.evidence(), other.evidence(), strict=True):
        assert one.tolist() == same.tolist()


@pytest.mark.parametrize(
    "damage", [{"wealth": [0.0]}, {"wealth": None}, {"kept": [9.0]}, {"begun": -1}, {"begun": True}]
)
def test_a_state_that_no_judge_wrote_is_refused(damage: dict[str, object]) -> None:
    bet = EProcesses(WORSE[None, :], WORSE_STAKES[None, :], np.ones(1))
    with pytest.raises(Invalid, match="state"):
        bet.restore({**bet.state(), **damage})  # type: ignore[dict-item]


def test_stakes_are_all_there_is() -> None:
    """What is bet in the beginning, later and never adds up to one, after any number of beginnings."""
    for stakes in (WORSE_STAKES, BETTER_STAKES):
        assert float(stakes.sum()) == pytest.approx(1.0)
    bet = EProcesses(WORSE[None, :], WORSE_STAKES[None, :], np.array([0.5]))
    for _ in range(1000):
        assert float(bet.log_evidence()[0]) == pytest.approx(0.0, abs=1e-9)
        bet.begin()
