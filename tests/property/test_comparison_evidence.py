"""What pairs prove: formulas against exact arithmetic, and false alarms counted over many seeded releases."""

from __future__ import annotations

import json
import math
from datetime import date
from fractions import Fraction
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.comparison.answers import Answer, Comparison, compare_answers, keys_in
from interlock.comparison.evidence import (
    ASKED_AGAIN,
    Counts,
    agreement_lower_bound,
    log_budget_evidence,
    log_paired_evidence,
    log_repeated_evidence,
    log_threshold,
    pairs_needed,
)
from interlock.comparison.rules import ReadyRules
from interlock.comparison.tally import FALSE_ALARM, Tally
from interlock.core.comparison import ComparisonRules, FieldRule

JSON = {"content-type": "application/json"}


def _seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - chance that comes the same each time, and guards nothing


@given(st.integers(0, 400), st.data())
def test_paired_evidence_is_what_exact_arithmetic_says(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    exact = Fraction(sum(math.comb(n + 1, j) for j in range(k + 1)), (n + 1) * math.comb(n, k))
    assert log_paired_evidence(n, k) == pytest.approx(math.log(exact.numerator) - math.log(exact.denominator), abs=1e-9)


@given(st.integers(0, 60))
def test_paired_evidence_is_one_on_average_when_nobody_is_worse(n: int) -> None:
    mean = sum(math.comb(n, k) * math.exp(log_paired_evidence(n, k)) for k in range(n + 1)) / 2**n
    assert mean == pytest.approx(1.0)


@given(st.integers(1, 12), st.sampled_from([0.01, 0.1, 0.5]), st.floats(0, 0.4))
def test_budget_evidence_is_at_most_one_on_average_within_the_budget(n: int, budget: float, noise: float) -> None:
    """Triples differ in the candidate with probability `budget + noise` at most, and in the noise with `noise`."""
    worse = min(budget + noise, 1 - noise)
    mean = sum(
        math.comb(n, a) * math.comb(n - a, b) * worse**a * noise**b * max(0.0, 1 - worse - noise) ** (n - a - b)
        * math.exp(log_budget_evidence(Counts(n, a, b), budget))
        for a in range(n + 1)
        for b in range(n + 1 - a)
    )  # fmt: skip
    assert mean <= 1 + 1e-9


def test_a_difference_that_repeats_is_worth_what_dealing_says() -> None:
    mean_at_worst = 2 / math.comb(2 * ASKED_AGAIN, ASKED_AGAIN)
    repeated, unrepeated = (math.exp(log_repeated_evidence(repeated=each)) for each in (True, False))
    assert mean_at_worst * repeated + (1 - mean_at_worst) * unrepeated <= 1 + 1e-9


def test_the_thresholds_share_out_the_false_alarms() -> None:
    assert sum(math.exp(-log_threshold(rank, 0.01)) for rank in range(1, 100_000)) <= 0.01


def test_459_equal_pairs_prove_99_percent_at_99() -> None:
    assert pairs_needed(99, 99) == 459
    assert pairs_needed(95, 95) == 59
    assert agreement_lower_bound(Counts(458), 0.99) < 0.99 <= agreement_lower_bound(Counts(459), 0.99)


@given(st.integers(1, 2000), st.data())
def test_a_bound_lies_below_what_was_seen_and_more_differences_lower_it(pairs: int, data: st.DataObject) -> None:
    differing = data.draw(st.integers(0, pairs))
    bound = agreement_lower_bound(Counts(pairs, differing), 0.95)
    assert 0 <= bound <= 1 - differing / pairs
    assert agreement_lower_bound(Counts(pairs, min(pairs, differing + 1)), 0.95) <= bound + 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_bound_that_is_looked_at_all_the_time_is_wrong_as_seldom_as_it_says(noise: float) -> None:
    """True agreement 90 %; claimed at 95 %: at most 5 % of releases may ever see a bound above it."""
    random, wrong, releases = _seeded(7), 0, 300
    for _ in range(releases):
        counts = Counts()
        for pair in range(1, 401):
            draw = random.random()
            counts = counts.plus(candidate=draw < 0.1 + noise, noise=draw > 1 - noise)
            if pair % 10 == 0 and agreement_lower_bound(counts, 0.95) > 0.9:
                wrong += 1
                break
    assert wrong / releases <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / releases)


class _World(NamedTuple):
    """Fields that are noisy with these probabilities, in each answer anew."""

    noises: tuple[float, ...]

    def answer(self, random: Random, broken: float = 0.0) -> Answer:
        fields = [f'"f{i}": {random.randrange(10**9) if random.random() < p else 0}' for i, p in enumerate(self.noises)]
        fields.append(f'"key": {1 if random.random() < broken else 0}')
        return Answer(200, JSON, ("{" + ", ".join(fields) + "}").encode())


def _rules() -> ReadyRules:
    block = FieldRule(path="$.**")
    return ReadyRules(ComparisonRules(rules=(block,), key_fields=("$.key",)), date(2026, 1, 1))


def _blamed(world: _World, random: Random, rules: ReadyRules, *, pairs: int, broken: float = 0.0) -> set[str]:
    tally = Tally(rules)
    for _ in range(pairs):
        stable, again, candidate = world.answer(random), world.answer(random), world.answer(random, broken)
        for difference in tally.add(
            compare_answers(stable, candidate, rules), compare_answers(stable, again, rules), keys_in(stable, rules)
        ):
            while tally.wants_asking_again(difference):
                fresh = [compare_answers(stable, world.answer(random), rules) for _ in range(ASKED_AGAIN)]
                other = [compare_answers(stable, world.answer(random, broken), rules) for _ in range(ASKED_AGAIN)]
                tally.asked_again(difference, repeated=_repeated(difference.field, fresh, other))
    return {row.field for row in tally.state().fields if row.grade == "block" and row.is_proven}


def _repeated(name: str | None, fresh: list[Comparison], other: list[Comparison]) -> bool:
    def differs(found: Comparison) -> bool:
        return any(each.field == name for each in found.found)

    return not any(map(differs, fresh)) and all(map(differs, other))


def test_noise_blames_no_equal_candidate_more_often_than_promised() -> None:
    """Ten fields from hardly noisy to wholly noisy, a hundred and twenty releases, every difference asked again."""
    world = _World((0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0))
    random, rules, releases = _seeded(11), _rules(), 120
    alarms = sum(bool(_blamed(world, random, rules, pairs=80)) for _ in range(releases))
    assert alarms / releases <= FALSE_ALARM + 3 * math.sqrt(FALSE_ALARM * (1 - FALSE_ALARM) / releases)


def test_a_key_field_that_is_wrong_is_blamed_soon_and_noise_is_not() -> None:
    world, random, rules = _World((0.05, 0.5, 1.0)), _seeded(13), _rules()
    assert _blamed(world, random, rules, pairs=3, broken=1.0) == {"$.key"}
    assert _blamed(world, random, rules, pairs=150, broken=0.3) == {"$.key"}


def test_a_budget_is_held_against_what_is_proven() -> None:
    rules = ReadyRules(ComparisonRules(rules=(FieldRule(path="$.key", budget_percent=5),)), date(2026, 1, 1))
    assert _blamed(_World(()), _seeded(17), rules, pairs=400, broken=0.03) == set()
    assert _blamed(_World(()), _seeded(17), rules, pairs=400, broken=0.3) == {"$.key"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-2, 2).map(lambda x: round(x, 2))
    | st.text("ab 1", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
RULES = st.lists(
    st.builds(
        FieldRule,
        path=st.sampled_from(["$", "$.**", "$.a", "$.*.b", "$[*]", "$.**.c", "**"]),
        compare=st.sampled_from(
            [
                "exact",
                "absolute",
                "relative",
                "decimals",
                "set",
                "multiset",
                "keyed",
                "pattern",
                "time",
                "missing_is_null",
                "text",
            ]
        ),
        tolerance=st.sampled_from([0, 1]),
        key=st.sampled_from("ab"),
        pattern=st.just("[ab ]*"),
        grade=st.sampled_from(["block", "warn"]),
    ),
    max_size=3,
)


def _answer(value: object) -> Answer:
    return Answer(200, JSON, json.dumps(value).encode())


@given(VALUES, RULES)
def test_an_answer_compared_with_itself_has_no_differences(value: object, rules: list[FieldRule]) -> None:
    ready = ReadyRules(ComparisonRules(rules=tuple(rules)), date(2026, 1, 1))
    spaced = Answer(200, JSON, _answer(value).body + b" ")  # other bytes, so that it is really looked at
    assert compare_answers(_answer(value), spaced, ready) == Comparison()


@given(VALUES, VALUES, RULES)
def test_whether_two_answers_differ_does_not_depend_on_which_is_which(
    one: object, other: object, rules: list[FieldRule]
) -> None:
    ready = ReadyRules(ComparisonRules(rules=tuple(rules)), date(2026, 1, 1))
    there = compare_answers(_answer(one), _answer(other), ready)
    back = compare_answers(_answer(other), _answer(one), ready)
    assert {each.field for each in there.found} == {each.field for each in back.found}


@given(VALUES, VALUES)
def test_without_rules_exactly_equal_values_do_not_differ(one: object, other: object) -> None:
    ready = ReadyRules(ComparisonRules(), date(2026, 1, 1))
    assert (compare_answers(_answer(one), _answer(other), ready).found == ()) is (_exact(one) == _exact(other))


def _exact(value: object) -> object:
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return ("boolean", value) if isinstance(value, bool) else value
