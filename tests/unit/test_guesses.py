"""Whether the second question is asked at once is a guess that costs little when it is wrong, and decides nothing."""

from __future__ import annotations

import pytest

from interlock.engine.policy.judge import GUESSES_MAX, Guesses


def wrong(guesses: Guesses, needed: list[bool], alike: str = "restart") -> int:
    """How many of these asks, one after the other, were guessed wrongly."""
    count = 0
    for each in needed:
        count += guesses.is_likely(alike) is not each
        guesses.learn(alike, needed=each)
    return count


def test_what_was_needed_is_likely_to_be_needed_again() -> None:
    guesses = Guesses()
    assert not guesses.is_likely("restart")
    guesses.learn("restart", needed=True)
    assert guesses.is_likely("restart")


def test_sorts_of_asks_do_not_disturb_each_other() -> None:
    guesses = Guesses()
    for _ in range(5):
        guesses.learn("restart", needed=True)
        guesses.learn("firewall", needed=False)
        assert (guesses.is_likely("restart"), guesses.is_likely("firewall")) == (True, False)


def test_one_odd_ask_changes_no_guess_and_two_do() -> None:
    guesses = Guesses()
    assert wrong(guesses, [False] * 5 + [True] + [False] * 5) == 1
    assert wrong(guesses, [True] * 5) == 2


@pytest.mark.parametrize("first", [True, False])
def test_asks_that_take_turns_are_guessed_wrongly_half_the_time_at_most(*, first: bool) -> None:
    assert wrong(Guesses(), [first, not first] * 50) <= 51


def test_guesses_are_bounded() -> None:
    guesses = Guesses()
    for number in range(3 * GUESSES_MAX):
        guesses.learn(f"sort {number}", needed=True)
    assert len(guesses) <= GUESSES_MAX
