"""Shows schedules: where each stands, what became of its instants, and which come."""

from __future__ import annotations

import json

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say


def show_schedules(screen: Screen, found: list[Record]) -> None:
    """Two lines each."""
    if not found:
        screen.quiet(say("no schedules; declare them under `schedules` in interlock.yaml"))
    for schedule in found:
        last = schedule.record("last")
        screen.line(
            Text(schedule.text("name"), style="bold"), f"  {schedule.text('action')}  ", _next(screen, schedule)
        )
        parts = [_when(schedule), schedule.text("timezone"), schedule.text("actor")]
        screen.quiet(" · ".join(part for part in parts if part), indent=4)
        if last:
            screen.line(_became(screen, last), indent=4)


def show_schedule(screen: Screen, data: Record) -> None:
    """All of one."""
    schedule = data.records("schedules")[0]
    paused = schedule.record("paused")
    screen.heading(schedule.text("name"))
    screen.fields(
        [
            (say("asks for"), f"{schedule.text('action')} {_arguments(schedule)}"),
            (say("when"), _when(schedule)),
            (say("time zone"), schedule.text("timezone")),
            (say("as"), schedule.text("actor")),
            (say("next"), _next(screen, schedule)),
            (say("paused by"), f"{paused.text('by')}: {paused.text('reason')}" if paused else ""),
            (say("missed so far"), schedule.text("missed")),
            (say("policies"), f"catch_up {schedule.text('catch_up')} · overlap {schedule.text('overlap')}"),
        ],
        indent=2,
    )
    instants = data.records("instants")
    if instants:
        screen.blank()
        screen.heading(say("Last"))
    for instant in instants:
        screen.line(_became(screen, instant), indent=2)


def show_preview(screen: Screen, data: Record) -> None:
    """A row each."""
    rows = [(instant.text("local"), screen.moment(instant.text("due_at"))) for instant in data.records("instants")]
    if not rows:
        screen.quiet(say("nothing of it lies ahead"))
    screen.rows((data.text("timezone"), say("asked for")), rows)


def _next(screen: Screen, schedule: Record) -> Text:
    paused = schedule.record("paused")
    if paused:
        until = paused.text("until")
        when = say("ends {when}", when=screen.moment(until)) if until else say("until it is resumed")
        return styled("warning", say("paused by {who}, {when}", who=paused.text("by"), when=when))
    following = schedule.text("next_at")
    return Text(screen.moment(following) if following else say("nothing of it lies ahead"))


def _became(screen: Screen, instant: Record) -> Text:
    """`missed  20 Nov 05:00  5 instants ...`."""
    state = instant.text("state")
    run = f"Run {instant.number('run')}" if instant.number("run") else ""
    parts = [screen.moment(instant.text("instant")), run, instant.text("reason")]
    return Text.assemble(styled(_style(state), state), "  " + " · ".join(part for part in parts if part))


def _style(state: str) -> str:
    return {"missed": "warning", "skipped": "warning"}.get(state, state)


def _arguments(schedule: Record) -> str:
    return json.dumps(schedule.record("args").data, ensure_ascii=False)


def _when(schedule: Record) -> str:
    """The line of its clock, or its one moment to the second."""
    return schedule.text("cron") or schedule.text("at").replace(".000000Z", "Z")
