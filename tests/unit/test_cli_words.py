"""What is typed: where verbs, options and the words of another command begin and end."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.app import GROUPS, MODULES, build, run
from interlock.interfaces.cli.arguments import read_value
from interlock.interfaces.cli.asking import digest_of
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.verb import BARE_CONFIRM, VERBS

DAILY = "status exec do pending approve deny log show output why undo retry cancel resolve hold freeze unfreeze"
DAILY += " pause-agents"
SET_UP = "init serve stop check policy audit actions adopt backup restore demo"


def test_every_promised_verb_is_there() -> None:
    command = typer.main.get_command(build())
    assert set(f"{DAILY} {SET_UP}".split()) <= set(command.commands)  # type: ignore[attr-defined]
    assert set(command.commands) == {verb for verbs in MODULES.values() for verb in verbs}  # type: ignore[attr-defined]


def test_every_verb_is_listed_in_one_group() -> None:
    listed = [verb for names in GROUPS for verb in names]
    assert sorted(listed) == sorted(verb for verbs in MODULES.values() for verb in verbs)


def test_every_verb_has_examples_that_begin_with_the_program() -> None:
    build()
    assert all(verb.examples for verb in VERBS.values())
    examples = [example for verb in VERBS.values() for example in verb.examples]
    assert all(example.startswith("interlock") for example in examples)


def test_every_example_names_only_options_that_exist() -> None:
    root = typer.main.get_command(build())
    for verb in VERBS.values():
        command = root
        for word in verb.name.split():
            command = command.commands[word]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for example in verb.examples:
            words = shlex.split(example)
            own = words[: words.index("--")] if "--" in words else words
            given = {word.partition("=")[0] for word in own if word.startswith("-")}
            if f"interlock {verb.name}" in example and not command.context_settings.get("ignore_unknown_options"):
                assert given <= known, example


@pytest.mark.parametrize("verb", [verb for verbs in MODULES.values() for verb in verbs])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert "Usage: interlock " + verb in capsys.readouterr().out


@pytest.mark.parametrize("words", [["exce"], ["show"], ["show", "x"], ["exec", "--nope"], ["log", "--limit", "0"]])
def test_wrong_words_are_invalid_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert run([*words, "--output", "json"]) == 2
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["ok"] is False
    assert envelope["status"] == "invalid"
    assert envelope.keys() == {"ok", "status", "data", "warnings", "next"}


def test_a_digest_has_at_least_six_characters_and_nothing_else_confirms() -> None:
    assert digest_of(None) is None
    assert digest_of(BARE_CONFIRM) is None
    assert digest_of("3F9A51") == "3f9a51"
    for wrong in ("", "3f9a5", "yes", "3f9a5g", "true"):
        with pytest.raises(Invalid):
            digest_of(wrong)


def test_an_empty_digest_confirms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with `--confirm=$DIGEST` where the variable is not set."""
    assert run(["exec", "--project", str(tmp_path / "no"), "--confirm=", "--", "touch", "x"]) == 2
    assert "no digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "schema", "read"),
    [
        ("5", {"type": "integer"}, 5),
        ("5", {"type": "string"}, "5"),
        ("true", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "true"),
        ("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ('["a"]', {"type": "array"}, ["a"]),
        ("plain words", {"type": "array"}, "plain words"),
        ("5", {}, 5),
    ],
)
def test_a_value_is_what_the_action_wants(value: str, schema: dict[str, object], read: object) -> None:
    assert read_value(value, Record(schema)) == read


def test_a_value_may_be_a_files_content(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("open on Sunday\n")
    assert read_value(f"@{tmp_path / 'motd'}", Record({"type": "string"})) == "open on Sunday\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("interlock au", "audit"), ("interlock audit ver", "verify"), ("interlock resolve 1 s", "skip")],
)
def test_the_shell_is_told_what_could_be_typed_next(typed: str, offered: str) -> None:
    environment = {"_INTERLOCK_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    told = subprocess.run(
        [sys.executable, "-m", "interlock"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert offered in told.stdout.split(), told.stderr


def test_a_reader_that_goes_away_is_not_complained_about() -> None:
    script = f"{sys.executable} -m interlock --help | true; {sys.executable} -m interlock log --help | head -c 1"
    told = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert told.stderr == ""
