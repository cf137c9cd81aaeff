"""Shows a plan as an approver has to read it: steps, targets, difference, decision, digest."""

from __future__ import annotations

import json

from rich.text import Text

from interlock.interfaces.cli.outcome import DIGEST_SHOWN, missing_in_words, risk_in_words
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.cli.terminal import visible_command, visible_line
from interlock.interfaces.messages import say
from interlock.interfaces.release_words import plan_in_words
from interlock.interfaces.resident_words import text_in_words

PREVIEW_LINES_MAX = 400
TARGETS_SHOWN = 40
ARGUMENTS_CHARACTERS_MAX = 2_000
BESIDE_PREVIEW_CHARACTERS = 120
"""How much of an argument is shown where the preview shows what comes of it."""
SHA256_SHOWN = 12


def show_plan(screen: Screen, subject: Record) -> None:
    """`subject` is a Run or a Proposal: both hold plan, risk, decision and digest."""
    plan = subject.record("plan")
    screen.line(Text(visible_line(subject.text("summary") or plan.text("summary")), style="bold"), indent=2)
    steps = plan.records("steps")
    for number, step in enumerate(steps, start=1):
        _show_step(screen, step, number if len(steps) > 1 else None)
    show_arguments(screen, plan, indent=2)
    _show_preview(screen, plan)
    screen.blank()
    show_decision(screen, subject.record("decision"), subject.records("missing"))
    screen.fields([(say("digest"), subject.text("digest")[:DIGEST_SHOWN])], indent=2)


def _show_preview(screen: Screen, plan: Record) -> None:
    if not plan.text("preview"):
        return
    screen.blank()
    preview = plan.text("preview")
    lines = (plan_in_words(preview) if plan.text("action") == "release.start" else preview).split("\n")
    screen.block("\n".join(lines[:PREVIEW_LINES_MAX]))
    if len(lines) > PREVIEW_LINES_MAX:
        _warn(screen, say("cut: {count} more lines are not shown", count=len(lines) - PREVIEW_LINES_MAX), indent=2)
    missing = plan.number("preview_characters") - len(preview)
    if missing > 0:
        _warn(screen, say("cut: {count} more characters are not shown", count=missing), indent=2)


def show_decision(screen: Screen, decision: Record, missing: list[Record]) -> None:
    """What policy says, and because of which policies."""
    outcome = decision.text("outcome")
    words = {
        "permit": say("permitted"),
        "forbid": say("forbidden"),
        "needs_approval": missing_in_words(missing) or say("needs a yes"),
    }
    screen.fields([(say("policy"), styled(outcome, words.get(outcome, outcome)))], indent=2)
    told = [reason for reason in decision.records("reasons") if reason.text("effect") != "permit"]
    # Of several that permit it, the one that asks for least: a read is not permitted because secrets may be read too.
    for reason in told or decision.records("reasons")[-1:]:
        screen.line(text_in_words(reason.text("reason")), Text(f"  {reason.text('policy')}", style="dim"), indent=4)


def _show_step(screen: Screen, step: Record, number: int | None) -> None:
    if number is not None:
        screen.line(f"{number}. ", step.text("summary"), indent=2)
    indent = 2 if number is None else 6
    targets = step.texts("targets")
    touched = ", ".join(targets[:TARGETS_SHOWN])
    if len(targets) > TARGETS_SHOWN:
        touched += say(" and {count} more", count=len(targets) - TARGETS_SHOWN)
    changes = step.flag("changes")
    back = step.text("undo") or (say("nothing: {why}", why=step.text("irreversible") or say("none is known")))
    disclosed = step.text("discloses")
    screen.fields(
        [
            *executed_fields(step),
            (say("touches"), touched),
            (say("risk"), styled(step.text("risk"), risk_in_words(step.text("risk"))) if changes else ""),
            (say("effect"), say("unknown: nobody described this program") if step.flag("opaque") else ""),
            (say("discloses"), styled("high", disclosed) if disclosed == "secret" else ""),
            (say("taken back by"), back if changes else ""),
            *(executed_fields(step.record("undo_executes"), say("by running")) if changes else []),
        ],
        indent=indent,
    )


def executed_fields(executed: Record, runs: str | None = None) -> list[tuple[str, Text | str]]:
    """What is set going, word for word: the whole argument vector, where, and which program by its hash."""
    argv = executed.texts("argv")
    missing = executed.number("argv_characters") - sum(len(word) for word in argv)
    program = executed.text("binary")
    if program and executed.text("sha256"):
        program += f" ({executed.text('sha256')[:SHA256_SHOWN]})"
    cut = say("cut: {count} more characters are not shown", count=missing)
    return [
        (runs or say("runs"), visible_command(argv)),
        ("", styled("high", cut)) if missing > 0 else ("", ""),
        (say("program"), program if argv else ""),
        (say("in folder"), executed.text("folder")),
        (say("path"), executed.text("path")),
    ]


def show_arguments(screen: Screen, plan: Record, *, indent: int) -> None:
    """What was asked for, where no argument vector says it already; every cut is said."""
    if any("argv" in step for step in plan.records("steps")) and "run" not in plan.record("args"):
        return
    cut = set(plan.texts("args_cut"))
    left, pairs = ARGUMENTS_CHARACTERS_MAX, list[tuple[str, Text | str]]()
    for name, value in plan.record("args").data.items():
        if value is None or value in ([], {}):
            continue
        whole = _argument_in_words(value)
        room = min(left, BESIDE_PREVIEW_CHARACTERS) if plan.text("preview") else left
        left -= len(whole[:room])
        pairs.append((name, whole[:room]))
        if name in cut or len(whole) > room:
            pairs.append((" ", styled("high", say("cut: the argument {name} is longer", name=visible_line(name)))))
    if pairs:
        screen.quiet(say("asked for"), indent=indent)
        screen.fields(pairs, indent=indent + 2)


def _argument_in_words(value: object) -> str:
    if isinstance(value, str):
        return visible_line(value)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return visible_command([str(word) for word in value])
    return visible_line(json.dumps(value, ensure_ascii=False))


def _warn(screen: Screen, text: str, *, indent: int) -> None:
    screen.line(styled("high", text), indent=indent)
