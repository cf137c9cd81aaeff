"""Who has which version: the shares are kept, nobody drifts, and one release says nothing about the next."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.assignment import arm_of, unit_hash, upper_bounds
from interlock.core.traffic import WHOLE, Arm, Routing
from interlock.lib.murmur2 import HASH_MAX, murmur2

shares = st.integers(0, WHOLE)
units = st.text(min_size=1, max_size=40)
salts = st.text("abcXYZ019_-", min_size=1, max_size=40)


def routing(*parts: int, salt: str = "s") -> Routing:
    """The candidates get these shares, the last one last; the stable version has the rest."""
    arms = [Arm(name="v0", address="127.0.0.1:1", share=WHOLE - sum(parts))]
    arms += [Arm(name=f"v{n}", address=f"127.0.0.1:{n + 1}", share=part) for n, part in enumerate(parts, 1)]
    return Routing(workload="web", listen="127.0.0.1:80", salt=salt, arms=tuple(arms))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("a", 0x92685F5E), ("ab", 0x1AA14063), ("abc", 0x13577C9B), ("abcd", 0x26873021), ("abcde", 0x5F09A8DE)],
)
def test_the_hash_is_murmur2(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected


@given(units, salts, shares, shares)
def test_a_growing_share_takes_users_and_gives_none_back(unit: str, salt: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    if arm_of(routing(small, salt=salt), unit) == "v1":
        assert arm_of(routing(large, salt=salt), unit) == "v1"


@given(units, salts)
def test_up_a_ramp_and_back_down_everybody_changes_once_each_way(unit: str, salt: str) -> None:
    ramp = [0, 500, 2500, 5000, WHOLE, 5000, 2500, 500, 0]
    seen = [arm_of(routing(share, salt=salt), unit) for share in ramp]
    assert sum(one != other for one, other in pairwise(seen)) == 2
    assert seen == seen[::-1]


@given(units, salts)
def test_nothing_and_everything_are_exact(unit: str, salt: str) -> None:
    assert arm_of(routing(0, salt=salt), unit) == "v0"
    assert arm_of(routing(WHOLE, salt=salt), unit) == "v1"


@given(st.lists(st.integers(0, 3333), min_size=1, max_size=3))
def test_the_arms_share_the_whole_line_without_gaps(parts: list[int]) -> None:
    found = upper_bounds(routing(*parts))
    bounds = [0, *(bound for _, bound in found)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == HASH_MAX + 1
    for (_, bound), before, part in zip(found, bounds, reversed(parts), strict=False):
        assert abs((bound - before) - part * 2**32 / WHOLE) < 2


@pytest.mark.parametrize("share", [100, 500, 2500, 5000])
def test_the_share_is_unbiased_for_ids_of_every_shape(share: int) -> None:
    count = 20_000
    for shape in ("{}", "user-{:08d}", "{:x}@example.org", "{0:032x}"):
        found = Counter(arm_of(routing(share, salt="r42"), shape.format(n)) for n in range(count))
        expected, deviation = count * share / WHOLE, (count * share / WHOLE * (1 - share / WHOLE)) ** 0.5
        assert abs(found["v1"] - expected) < 4 * deviation, shape


def test_who_has_the_candidate_of_one_release_says_nothing_about_the_next() -> None:
    count = 20_000
    one, other = routing(5000, salt="1"), routing(5000, salt="2")
    both = sum(arm_of(one, f"u{n}") == arm_of(other, f"u{n}") for n in range(count))
    assert abs(both - count / 2) < 4 * (count / 4) ** 0.5
    assert unit_hash("1", "u") != unit_hash("2", "u")
