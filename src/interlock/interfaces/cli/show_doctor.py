"""Shows what the doctor found: the worst first, each with its reason and its command; what is sound in a few lines."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say

_ORDER = {"error": 0, "warning": 1, "ok": 2}


def show_examination(screen: Screen, findings: list[Record]) -> None:
    """Errors, warnings, then what is sound."""
    words = {"error": say("error"), "warning": say("warning"), "ok": say("ok")}
    for finding in sorted(findings, key=lambda each: _ORDER.get(each.text("level"), 0)):
        level = finding.text("level")
        area = Text(f"  {finding.text('area')}  ", style="dim")
        screen.line(styled(level, words.get(level, level)), area, finding.text("message"))
        if finding.text("why"):
            screen.quiet(finding.text("why"), indent=4)
        if finding.text("command"):
            screen.line(f"→ {finding.text('command')}", indent=4)
    bad = sum(finding.text("level") == "error" for finding in findings)
    doubtful = sum(finding.text("level") == "warning" for finding in findings)
    screen.blank()
    screen.line(
        say("{errors} errors, {warnings} warnings, {n} looked at", errors=bad, warnings=doubtful, n=len(findings))
    )
