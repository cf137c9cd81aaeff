"""Wrong words are answered with what is wrong and what to type instead, in plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interlock.core.errors import Permanent
from interlock.interfaces.cli.answer import answer_of_error, write_answer
from interlock.interfaces.cli.app import run


def _told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run(list(words))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("exec --output xml -- ls", "'xml' is not one of"),
        ("exec --timeout -5 -- ls", "greater than or equal to 0.1"),
        ("resolve 1 foo", "'foo' is not one of"),
        ("approve abc", "valid integer"),
        ("exce -- ls", "Did you mean 'exec'?"),
        ("adopt x --name nightly", "--name script.nightly"),
        ("adopt x --name Nightly!", "no name for a script"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = _told(capsys, *line.split())
    assert (code, told in said) == (2, True), said
    assert "Value error" not in said
    assert "^[a-z]" not in said


def test_a_file_without_a_terminal_has_no_blanks_at_the_ends_of_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "agents" in shown
    assert not [line for line in shown.splitlines() if line != line.rstrip()]


def test_what_is_no_export_could_not_be_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And is neither intact nor tampered with."""
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    assert run(["audit", "verify", str(tmp_path / "a.tar.gz")]) == 2
    assert "COULD NOT CHECK" in capsys.readouterr().out
    assert run(["audit", "verify", str(tmp_path / "absent.tar.gz")]) == 3


def test_wrong_words_are_answered_in_the_format_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nosuch", "--output", "json"]) == 2
    assert json.loads(capsys.readouterr().out)["data"]["error"]["code"] == "usage"


def test_the_end_of_a_log_is_shown_in_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    error = Permanent("it did not start: no room", code="resident.failed", details={"log": ["one", "\x1b[2Jtwo"]})
    write_answer(answer_of_error(error), "table", colour=False)
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["failed: it did not start: no room", "  one"]
    assert "two" in told[2]
    assert "\x1b" not in told[2]
