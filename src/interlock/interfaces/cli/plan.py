"""Shows a plan as an approver has to read it: steps, targets, difference, decision, digest."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.outcome import DIGEST_SHOWN, missing_in_words
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say

PREVIEW_LINES_MAX = 400
TARGETS_SHOWN = 40


def show_plan(screen: Screen, subject: Record) -> None:
    """`subject` is a Run or a Proposal: both hold plan, risk, decision and digest."""
    plan = subject.record("plan")
    screen.heading(subject.text("summary") or plan.text("summary"))
    steps = plan.records("steps")
    for number, step in enumerate(steps, start=1):
        _show_step(screen, step, number if len(steps) > 1 else None)
    if plan.text("preview"):
        screen.blank()
        lines = plan.text("preview").splitlines()
        screen.block("\n".join(lines[:PREVIEW_LINES_MAX]))
        if len(lines) > PREVIEW_LINES_MAX:
            screen.quiet(say("... and {count} more lines", count=len(lines) - PREVIEW_LINES_MAX), indent=2)
    screen.blank()
    show_decision(screen, subject.record("decision"), subject.records("missing"))
    screen.fields([(say("digest"), subject.text("digest")[:DIGEST_SHOWN])], indent=2)


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
    for reason in told or decision.records("reasons")[:1]:
        screen.line(reason.text("reason"), Text(f"  {reason.text('policy')}", style="dim"), indent=4)


def _show_step(screen: Screen, step: Record, number: int | None) -> None:
    if number is not None:
        screen.line(f"{number}. ", step.text("summary"), indent=2)
    indent = 2 if number is None else 5
    targets = step.texts("targets")
    touched = ", ".join(targets[:TARGETS_SHOWN])
    if len(targets) > TARGETS_SHOWN:
        touched += say(" and {count} more", count=len(targets) - TARGETS_SHOWN)
    changes = step.flag("changes")
    back = step.text("undo") or (say("nothing: {why}", why=step.text("irreversible") or say("none is known")))
    disclosed = step.text("discloses")
    screen.fields(
        [
            (say("touches"), touched),
            (say("risk"), styled(step.text("risk")) if changes else ""),
            (say("effect"), say("unknown: nobody described this program") if step.flag("opaque") else ""),
            (say("discloses"), styled("high", disclosed) if disclosed == "secret" else ""),
            (say("taken back by"), back if changes else ""),
        ],
        indent=indent,
    )
