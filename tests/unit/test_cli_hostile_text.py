"""What an agent writes cannot paint the screen of whoever approves it, and hides nothing of what is performed."""

from __future__ import annotations

import io
import json
import re
import shlex
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from interlock.core.plan import Plan, Step, Target
from interlock.engine.shapes import plan_json
from interlock.interfaces.cli.answer import Answer, write_answer, write_note
from interlock.interfaces.cli.outcome import missing_in_words, sentence_of_run
from interlock.interfaces.cli.plan import show_plan
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen
from interlock.interfaces.cli.show_run import show_log, show_pending, show_run, show_why
from interlock.interfaces.cli.show_status import show_status
from interlock.interfaces.cli.terminal import visible_command, visible_json, visible_line

PAINT = "\x1b[2J\x1b[H\x1b]0;pwn\x07\x9b2J\x7f\u202e\u2066\u200b\U000e0041\r\b\v\f\x85\u2028\ud800"
HOSTILE = f"x{PAINT}\n\nEVIL Run 99  succeeded\n\tEVIL " + "EVIL succeeded " * 40
"""Commands to the terminal, lines of its own, and so many words that they are folded."""

SGR = re.compile(r"\x1b\[[0-9;]*m")
OURS = {"state", "created_at", "expires_at", "closed_at", "at", "outcome", "risk", "kind", "number"}


def _step() -> dict[str, Any]:
    does = {"argv": [HOSTILE, "--delete-everything", "/"], "argv_characters": 10_000_000, "binary": HOSTILE}
    does |= {"sha256": HOSTILE, "folder": HOSTILE, "path": HOSTILE}
    step = {"verb": HOSTILE, "summary": HOSTILE, "risk": "high", "changes": True, "opaque": True, "undo": HOSTILE}
    return {**step, **does, "discloses": "secret", "targets": [HOSTILE, HOSTILE], "undo_executes": does}


def _subject(state: str, risk: str = "high") -> Record:
    """A Run and a Proposal at once, with the hostile text in every field that somebody else may write."""
    decision = {"outcome": "needs_approval", "reasons": [{"reason": HOSTILE, "policy": HOSTILE, "effect": "forbid"}]}
    args = {HOSTILE: HOSTILE, "list": [HOSTILE], "object": {"name": HOSTILE}, "long": "y" * 5000}
    plan = {"summary": HOSTILE, "steps": [_step(), {**_step(), "argv": None}], "preview": HOSTILE, "args": args}
    plan |= {"args_cut": ["long"], "preview_characters": 100_000}
    return Record(
        {
            "number": 7, "state": state, "state_reason": HOSTILE, "action": HOSTILE, "summary": HOSTILE,
            "actor": HOSTILE, "actor_id": HOSTILE, "on_behalf_of": HOSTILE, "reason": HOSTILE, "key": HOSTILE,
            "risk": risk, "changes": True, "digest": HOSTILE, "targets": [HOSTILE, HOSTILE], "plan": plan,
            "created_at": HOSTILE, "expires_at": HOSTILE, "closed_at": HOSTILE, "exit_code": HOSTILE,
            "decision": {**decision, "instead": [HOSTILE]}, "missing": [{"approvals": 1, "roles": [HOSTILE]}],
            "approvals": [{"verdict": True, "approver": HOSTILE, "at": HOSTILE, "reason": HOSTILE}],
            "undo_of": HOSTILE, "retry_of": HOSTILE,
        }
    )  # fmt: skip


def _evidence() -> Record:
    data = dict.fromkeys(("actor", "summary", "outcome", "approver", "note", "by", "state", "reason"), HOSTILE)
    kinds = ("asked", "decided", "approved", "noted", "closed", HOSTILE)
    rows = [{"line": {"at": HOSTILE, "kind": kind, "data": {**data, "policies": [HOSTILE]}}} for kind in kinds]
    return Record({"rows": rows})


def _status(screen: Screen, run: Record) -> None:
    hello = {"project": {"name": HOSTILE, "preset": HOSTILE}, "mode": "advisory", "warnings": [HOSTILE]}
    hello["actor"] = {"kind": HOSTILE, "name": HOSTILE}
    freeze = {"scope": HOSTILE, "pattern": HOSTILE, "until": HOSTILE, "reason": HOSTILE, "set_by": HOSTILE}
    data = {"attention": [run.data, _subject("unresolved").data], "running": [run.data], "recent": [run.data]}
    data |= {"freezes": [freeze], "troubles": [{"message": HOSTILE, "fix": HOSTILE}]}
    show_status(screen, Record(hello), Record(data))


def _why(screen: Screen, run: Record) -> None:
    following = [{"command": HOSTILE, "meaning": HOSTILE}]
    show_why(screen, Record({"run": run.data, "state": "waiting", "why": [HOSTILE], "next": following}))


SCREENS: dict[str, Callable[[Screen, Record], None]] = {
    "approve, exec, do": show_plan,
    "show": lambda screen, run: show_run(screen, run, _evidence()),
    "pending": lambda screen, run: show_pending(screen, [run, run]),
    "log": lambda screen, run: show_log(screen, [run]),
    "status": _status,
    "why": _why,
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _require_unpainted(text: str) -> None:
    left = SGR.sub("", text)
    seen = {character for character in left if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"}}
    assert seen <= {"\n"}, seen
    for line in left.split("\n"):
        assert not line.startswith(("x\\", "EVIL", "Run 99", "succeeded")), line


@pytest.mark.parametrize("verb", SCREENS)
@pytest.mark.parametrize("width", [40, 80, 200, None])
@pytest.mark.parametrize("stream", [io.StringIO, _Terminal])
def test_no_text_of_others_paints_a_screen_or_begins_a_line_of_its_own(
    verb: str, width: int | None, stream: type[io.StringIO]
) -> None:
    shown = stream()
    SCREENS[verb](Screen(shown, colour=shown.isatty(), width=width), _subject("waiting"))
    assert "EVIL" in shown.getvalue()
    _require_unpainted(shown.getvalue())


@pytest.mark.parametrize("output", ["json", "yaml", "table"])
def test_no_answer_in_any_format_commands_the_terminal(output: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"run": dict(_subject("waiting").data)}
    write_answer(Answer(data=data, warnings=[f"note: {HOSTILE}"], next=[HOSTILE]), output, colour=False)
    write_note(sentence_of_run(_subject("failed")) + missing_in_words([Record({"approvals": 1, "roles": [HOSTILE]})]))
    said = capsys.readouterr()
    _require_unpainted(said.out)
    _require_unpainted(said.err)
    if output != "table":
        read = json.loads(said.out) if output == "json" else yaml.safe_load(said.out.replace("\\uD800", ""))
        assert read["data"]["run"]["number"] == 7
    if output == "json":
        assert read["data"]["run"]["summary"] == HOSTILE


def test_a_long_note_on_a_terminal_does_not_go_on_at_the_first_column(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _Terminal()
    monkeypatch.setattr("sys.stderr", said)
    write_note(sentence_of_run(_subject("failed")))
    first, *rest = said.getvalue().removesuffix("\n").split("\n")
    assert first.startswith("Run 7 failed")
    assert len(rest) > 5
    assert all(line.startswith("   ") for line in rest)


def test_what_goes_on_stands_where_nothing_begins() -> None:
    shown = io.StringIO()
    show_status(Screen(shown, colour=False, width=60), Record({}), Record({"running": [_subject("running").data]}))
    indents = {len(line) - len(line.lstrip()) for line in shown.getvalue().splitlines() if "EVIL" in line}
    assert indents
    assert all(indent % 2 for indent in indents)


def test_every_control_and_format_character_is_written_out() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"}:
            assert visible_line(character).isascii(), hex(code)
            assert json.loads(visible_json(json.dumps(character, ensure_ascii=False))) == character
    assert visible_line("läuft, 好 ü") == "läuft, 好 ü"


def test_a_command_is_shown_so_that_no_two_look_alike() -> None:
    assert visible_command(["./ok.sh", "a b", "--x='"]) == shlex.join(["./ok.sh", "a b", "--x='"])
    vectors = [["a", "b"], ["a b"], ["a\nb"], [r"a\nb"], ["a\tb"], ["a\x9bb"], [r"a\x9bb"], ["$'a\\nb'"], ["a\\\n'b"]]
    shown = [visible_command(vector) for vector in vectors]
    assert len(set(shown)) == len(vectors)
    assert visible_command(["a\n'\x1b"]) == r"$'a\n\'\x1b'"


def _plan(argv: list[str], **fields: Any) -> Plan:
    params = {"argv": argv, "binary": "/usr/bin/find", "folder": "/srv/shop", "sha256": "ab" * 32}
    undo = Step(verb="execute", summary="put it back", params={**params, "argv": ["find", "--put-back"]})
    target = Target(kind="program", id="/usr/bin/find")
    step = Step(verb="execute", summary="run it"[:300], params=params, targets=(target,), undo=undo, **fields)
    return Plan(action="command.exec", args={"argv": argv}, summary="run it", steps=(step,))


def _screen_of(plan: Plan, width: int = 80) -> str:
    stream = io.StringIO()
    show_plan(Screen(stream, colour=False, width=width), Record({"plan": plan_json(plan)}))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_approver_reads_the_whole_command_however_long_it_is(width: int) -> None:
    argv = ["find", *(f"harmless-{number:04}" for number in range(200)), "--delete-everything", "/", "two words"]
    shown = _screen_of(_plan(argv), width)
    words = "".join(shown.split())
    assert "".join(shlex.join(argv).split()) in words
    assert "/srv/shop" in words
    assert "abababababab" in words
    assert "--put-back" in words
    assert "cut:" not in shown


def test_a_command_that_is_too_long_to_show_is_said_to_be_cut() -> None:
    argv = ["find", "y" * 70_000, "--delete-everything"]
    shown = _screen_of(_plan(argv))
    assert "--delete-everything" not in shown
    cut = sum(map(len, argv)) - 64 * 1024
    assert f"cut: {cut} more characters are not shown" in shown


def test_other_actions_show_what_was_asked_for_and_say_what_is_cut() -> None:
    step = Step(verb="hold", summary="hold it", risk="medium")
    args = {"target": "database:shop", "command": ["./migrate.sh", "two words"], "note": "z" * 5000, "minutes": 5}
    shown = _screen_of(Plan(action="target.hold", args=args, summary="hold it", steps=(step,)))
    assert "./migrate.sh 'two words'" in shown
    assert "database:shop" in shown
    assert "cut: the argument note is longer" in shown


def test_taking_back_shows_what_the_inner_steps_perform() -> None:
    inner = Step(verb="execute", summary="back", params={"argv": ["systemctl", "start", "nginx"], "folder": "/"})
    other = Step(verb="put_back", summary="back", params={"path": "/etc/motd", "digest": "absent"})
    steps = tuple(
        Step(verb="undo", summary="back", params={"action": "x", "step": step.model_dump(mode="json")})
        for step in (inner, other)
    )
    shown = _screen_of(Plan(action="interlock.undo", args={"run": 5}, summary="undo Run 5", steps=steps))
    assert "systemctl start nginx" in shown
    assert "/etc/motd" in shown


def test_a_preview_that_is_too_long_is_said_to_be_cut() -> None:
    step = Step(verb="write", summary="write")
    plan = Plan(action="file.write", args={}, summary="write", steps=(step,), preview="+line\n" * 30_000)
    shown = _screen_of(plan)
    assert "more lines are not shown" in shown
    assert "more characters are not shown" in shown
