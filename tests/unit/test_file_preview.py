"""What a plan shows of a change to a file is right, bounded, and made in a moment whatever the files hold."""

from __future__ import annotations

import difflib
import random
import time

from interlock.files.model import DIFF_LINES_MAX, preview
from interlock.lib.redact import Redactor

NUMBERS = [f"line {number}" for number in range(5000)]


def _of(old: list[str], new: list[str]) -> str:
    return preview("/srv/a", "\n".join(old).encode(), "\n".join(new).encode(), Redactor())


def test_a_change_in_the_middle_of_a_large_file_is_shown_where_it_is() -> None:
    new = [*NUMBERS[:3000], "new", *NUMBERS[3001:4000], *NUMBERS[4002:]]
    expected = difflib.unified_diff(NUMBERS, new, "/srv/a", "/srv/a", lineterm="")
    assert _of(NUMBERS, new).splitlines() == list(expected)


def test_a_change_at_either_end_is_shown_where_it_is() -> None:
    for new in (["new", *NUMBERS], NUMBERS[1:], [*NUMBERS, "new"], NUMBERS[:-1], NUMBERS):
        expected = difflib.unified_diff(NUMBERS, new, "/srv/a", "/srv/a", lineterm="")
        assert _of(NUMBERS, new).splitlines() == list(expected)


def test_files_that_could_be_compared_for_minutes_are_shown_from_their_beginnings_at_once() -> None:
    chosen = random.Random(1)  # noqa: S311 - lines, not keys
    old, new = ([f"{chosen.randrange(150):x}" for _ in range(100_000)] for _ in range(2))
    begun = time.process_time()
    shown = _of(old, new).splitlines()
    assert time.process_time() - begun < 3
    assert shown[0] == "/srv/a: 100,000 lines become 100,000, too many to be compared"
    assert shown[1:3] == [f"-{old[0]}", f"-{old[1]}"]
    assert f"+{new[0]}" in shown
    assert len(shown) <= DIFF_LINES_MAX + 3
