"""Shows what a verification of the log found, and what it does not prove."""

from __future__ import annotations

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say


def show_verification(screen: Screen, found: Record, *, intact: bool) -> None:
    """The verdict first."""
    if intact and not found.number("rows"):
        screen.line(say("nothing recorded yet"))
    elif intact:
        rows = f"{found.number('rows'):,}"
        screen.line(styled("ok", say("intact")), "  ", say("{rows} rows", rows=rows))
    else:
        count = found.number("findings_count") or len(found.records("findings"))
        screen.line(styled("failed", say("tampered with: {count} findings", count=count)))
        for finding in found.records("findings"):
            run = say("Run {number}", number=finding.number("run")) + "  " if "run" in finding else ""
            screen.line(f"{run}{finding.text('message')}", indent=2)
    for sentence in [*found.texts("limits"), *found.texts("explanations")]:
        screen.quiet(f"· {sentence}", indent=2)
