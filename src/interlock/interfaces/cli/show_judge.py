"""Shows judges of rollouts that others drive, and what one says."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say

_STYLES = {"go": "succeeded", "no_go": "failed", "not_yet": "waiting"}
_WORDS = {"go": "GO", "no_go": "NO-GO"}


def show_judges(screen: Screen, data: Record) -> None:
    """A row for each judge, then one for each rollout."""
    judges, sessions = data.records("judges"), data.records("sessions")
    if not judges:
        screen.quiet(say("no judges are declared"))
        return
    rows = [(each.text("judge"), each.text("open"), each.text("reads")) for each in judges]
    screen.rows((say("judge"), say("open"), say("reads from")), rows)
    if not sessions:
        return
    screen.blank()
    shown = [
        (
            each.text("judge"),
            each.text("session"),
            _verdict(each),
            screen.moment(each.text("begun_at")),
            screen.moment(each.text("ended_at")) if "ended_at" in each else "",
        )
        for each in sessions
    ]
    screen.rows((say("judge"), say("rollout"), say("says"), say("begun"), say("ended")), shown)


def show_judgement(screen: Screen, one: Record) -> None:
    """All of one."""
    screen.heading(say("{name} about {session}", name=one.text("judge"), session=one.text("session")))
    screen.fields(
        [
            (say("says"), _verdict(one)),
            (say("why"), one.text("summary")),
            (say("trouble"), one.text("trouble")),
            (say("begun"), screen.moment(one.text("begun_at"))),
            (say("ended"), one.text("ended_because")),
        ],
        indent=2,
    )
    for measure in one.records("measures"):
        screen.line(_verdict(measure), "  ", measure.text("sentence"), indent=2)
    for note in one.texts("notes"):
        screen.quiet(note, indent=2)


def _verdict(found: Record) -> Text:
    verdict = found.text("verdict")
    return styled(_STYLES.get(verdict, "waiting"), _WORDS.get(verdict) or say("not yet"))
