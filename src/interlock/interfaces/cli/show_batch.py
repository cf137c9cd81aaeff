"""Shows batch jobs: which version is in force, what a comparison found, how invocations ended, golden samples."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say

_VERDICTS = {"go": ("succeeded", "GO"), "no_go": ("failed", "NO-GO"), "not_yet": ("warning", "NOT YET")}
LISTED = 10


def _verdict(word: str) -> Text:
    return styled(*_VERDICTS.get(word, ("warning", "?")))


def show_batch(screen: Screen, found: Record) -> None:
    """All of one."""
    routing = found.record("routing")
    screen.heading(found.text("workload"))
    share = say(
        "{name}, {percent} % of the invocations", name=routing.text("candidate"), percent=routing.text("percent")
    )
    screen.fields(
        [
            (say("in force"), routing.text("stable") or say("no version yet")),
            (say("on its way"), share if routing.text("candidate") else ""),
            (say("way back"), routing.text("previous")),
            (say("failures"), f"{routing.number('failures')} / {routing.number('failures_max')}" if routing else ""),
            (say("why"), routing.text("reason")),
            (say("files"), found.text("folder")),
        ],
        indent=2,
    )
    criteria = found.records("criteria")
    if criteria:
        screen.blank()
        screen.rows(
            ("", found.text("candidate"), ""),
            [(_verdict(each.text("verdict")), each.text("name"), each.text("words")) for each in criteria],
        )
    invocations = found.records("invocations")[:LISTED]
    if invocations:
        screen.blank()
        rows = [
            (
                each.text("run"),
                screen.moment(each.text("at")),
                each.text("version"),
                _ended(each),
                each.text("words"),
            )
            for each in invocations
        ]
        screen.rows(("Run", say("when"), say("version"), "", ""), rows)


def _ended(each: Record) -> Text:
    good = each.flag("ok") and not each.flag("fell_back")
    return styled("succeeded", "ok") if good else styled("failed", say("failed"))


def show_comparison(screen: Screen, newest: Record) -> None:
    """One comparison."""
    agree = newest.number("pairs") - newest.number("disagreeing")
    screen.line(
        _verdict(newest.text("verdict")),
        "  ",
        say("{agree} of {pairs} agree", agree=f"{agree:,}", pairs=f"{newest.number('pairs'):,}"),
    )
    for sentence in newest.texts("blocks"):
        screen.line(styled("failed", "✗"), " ", sentence, indent=2)
    for sentence in newest.texts("warns"):
        screen.line(styled("warning", "!"), " ", sentence, indent=2)


def show_golden(screen: Screen, found: Record) -> None:
    """A row each."""
    samples = found.records("golden")
    if not samples:
        screen.quiet(say("there is no golden sample yet"))
        return
    rows = [(each.text("name"), each.text("accepted_by"), screen.moment(each.text("accepted_at"))) for each in samples]
    screen.rows((say("name"), say("accepted by"), say("when")), rows)
