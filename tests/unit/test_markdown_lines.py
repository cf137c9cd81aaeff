"""What somebody else wrote stays text in a report: one line, in its cell, leading nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.lib.markdown import plain_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("all is well & so on", "all is well & so on"),
        ("a | b", "a \\| b"),
        ("a \\| b", "a \\\\\\| b"),
        ("one\n\n## Go or no go\r\n| a |", "one ## Go or no go \\| a \\|"),
        ("# heading", "\\# heading"),
        ("- [x] done", "\\- \\[x\\] done"),
        ("-", "-"),
        ("**NO-GO** -1.5 %", "**NO-GO** -1.5 %"),
        ("1. done", "&#49;. done"),
        ("<img src=x> &lt;", "&lt;img src=x> &amp;lt;"),
        ("![seen](https://example.com/a.png)", "!\\[seen\\](https://example.com/a.png)"),
        ("`code`", "\\`code\\`"),
        ("a\u2028b\x0bc", "a b c"),
    ],
)
def test_nothing_in_it_is_structure(text: str, line: str) -> None:
    assert plain_line(text) == line


@given(st.text(alphabet="a#|`[]<!\\\n\u2028 ->1."))
def test_no_edge_and_no_bracket_stands_without_its_escape(text: str) -> None:
    line = plain_line(text)
    assert len(line.splitlines()) <= 1
    assert not line.startswith(("#", ">", "- ", "--", "1. "))
    rest = line.replace("\\\\", "")
    for mark in "|`[]":
        assert rest.count(mark) == rest.count(f"\\{mark}")
    assert "<" not in line
