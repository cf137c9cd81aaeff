"""Shows what `init` found and what `check` finds."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from interlock.interfaces.cli.detect import Found
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say


def show_found(screen: Screen, found: Found, file: Path) -> None:
    """What is there, and where it will be written."""
    yes = say("yes")
    rows = [
        (say("Compose"), ", ".join(found.compose_files)),
        ("systemd", yes if found.systemd else ""),
        ("nginx", yes if found.nginx else ""),
        (say("databases"), ", ".join(database.name for database in found.databases)),
        ("cron", yes if found.cron else ""),
        (say("agents"), ", ".join(found.agents)),
    ]
    screen.heading(say("Found"))
    screen.fields([(name, value or Text(say("nothing"), style="dim")) for name, value in rows], indent=2)
    screen.blank()
    screen.line(say("project: {file}", file=file))


def show_findings(screen: Screen, findings: list[Record]) -> None:
    """Errors first, each with its fix."""
    order = {"error": 0, "warning": 1, "ok": 2}
    words = {"error": say("error"), "warning": say("warning"), "ok": say("ok")}
    for finding in sorted(findings, key=lambda each: order.get(each.text("level"), 0)):
        level = finding.text("level")
        screen.line(
            styled(level, words.get(level, level)),
            Text(f"  {finding.text('area')}  ", style="dim"),
            finding.text("message"),
        )
        if finding.text("fix"):
            screen.quiet(f"→ {finding.text('fix')}", indent=4)
