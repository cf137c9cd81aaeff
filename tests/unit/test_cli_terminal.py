"""Text of others does not steer the reader's terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text

from interlock.interfaces.cli.screen import Screen
from interlock.interfaces.cli.terminal import TerminalText, visible

HOSTILE = "\x1b[2J\x1b]0;owned\x07harm\u202eless\u200b"


def test_what_would_command_the_terminal_is_written_out() -> None:
    assert visible(HOSTILE) == r"\x1b[2J\x1b]0;owned\x07harm\u202eless\u200b"
    assert visible("Run 7 läuft, 好\n\tx") == "Run 7 läuft, 好\n\tx"


@pytest.mark.parametrize("part", [HOSTILE, Text(HOSTILE)])
def test_no_shape_of_the_screen_lets_it_through(part: str | Text) -> None:
    stream = io.StringIO()
    screen = Screen(stream, colour=False, width=100)
    screen.line(part)
    screen.fields([("name", part)])
    screen.rows(("", ""), [("1", part)])
    screen.block(str(part))
    screen.raw(str(part))
    assert not {"\x1b", "\x07", "\u202e", "\u200b"} & set(stream.getvalue())


def test_a_programs_colours_pass_and_its_other_commands_do_not() -> None:
    text = TerminalText()
    assert text.feed("\x1b[31mred\x1b[0m \x1b[2J 5%\r10%") == "\x1b[31mred\x1b[0m \\x1b[2J 5%\r10%"


def test_a_colour_that_comes_in_pieces_stays_whole() -> None:
    text = TerminalText()
    shown = [text.feed(piece) for piece in ("a\x1b", "[3", "1mb", "\x1b[")]
    assert [*shown, text.finish()] == ["a", "", "\x1b[31mb", "", "\\x1b["]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    stream = io.StringIO()
    screen = Screen(stream, colour=False, width=width)
    words = "restart nginx.service and whatever a restart of it pulls along on this machine " * 3
    screen.line(words, indent=2)
    screen.fields([("touches", words), ("taken back by", "x" * 120)], indent=2)
    screen.rows(("", "state", "by", "what"), [("12", "succeeded", "agent:claude", words)])
    assert max(len(line) for line in stream.getvalue().splitlines()) <= width


def test_without_a_terminal_lines_are_not_folded() -> None:
    stream = io.StringIO()
    Screen(stream, colour=False).line("word " * 40)
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s ago"), (-65, "in 65 s"), (600, "10 min ago"), (7200, "2 h ago")]
)
def test_a_time_is_told_as_people_say_it(seconds: int, words: str) -> None:
    screen = Screen(io.StringIO(), colour=False, width=80)
    at = datetime.now(UTC) - timedelta(seconds=seconds + (0.5 if seconds > 0 else -0.5))
    assert screen.moment(at.isoformat()) == words
    assert screen.moment("not a time") == "not a time"
