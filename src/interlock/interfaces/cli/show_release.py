"""Shows releases: in lists, one with its timeline, both versions beside each other, and one on its way."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.text import Text

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, parse_time, styled
from interlock.interfaces.cli.terminal import visible_line
from interlock.interfaces.messages import say
from interlock.interfaces.release_words import release_in_words

if TYPE_CHECKING:
    from interlock.interfaces.cli.standing import Standings

BAR_COLUMNS = 20
_BAD = frozenset({"going_back", "rolled_back", "failed", "frozen", "aborted", "stuck"})
_WAITS = frozenset({"paused", "waits", "no_traffic"})


def state_words(state: str) -> str:
    """A state of a release as prose."""
    words = {
        "preparing": say("is being prepared"),
        "shadow": say("is compared in the shadow"),
        "canary": say("some users have it"),
        "watching": say("all users have it, still watched"),
        "paused": say("is paused"),
        "frozen": say("is frozen"),
        "going_back": say("goes back"),
        "released": say("is released"),
        "rolled_back": say("was rolled back"),
        "failed": say("failed before users had it"),
        "aborted": say("was aborted"),
    }
    return words.get(state, state)


def show_releases(screen: Screen, found: list[Record]) -> None:
    """A row each."""
    if not found:
        screen.quiet(say("nothing was released yet; try: interlock release plan WORKLOAD VERSION"))
        return
    rows = [
        (
            Text(each.text("number"), style="bold"),
            each.text("workload"),
            _change(each),
            _state(each),
            screen.moment(each.text("created_at")),
            release_in_words(each.text("reason")),
        )
        for each in found
    ]
    screen.rows(("", say("workload"), say("versions"), say("state"), say("asked"), say("why")), rows)


def show_workloads(screen: Screen, found: Standings) -> None:
    """A row each: what users have, what is on its way, and what happened last."""
    if not found.workloads:
        screen.quiet(say("interlock.yaml declares no workloads"))
        return
    rows = []
    for each in found.workloads:
        way = f"{each.active.text('candidate')} {share_of(each.active)} %" if each.active else each.on_its_way
        last = Text(say("release {number}", number=each.last.number("number")) + "  ") if each.last else Text("")
        rows.append(
            (
                Text(each.workload, style="bold"),
                each.in_force or say("no version yet"),
                way or "-",
                last.append_text(_state(each.last)) if each.last else "-",
            )
        )
    screen.rows((say("workload"), say("in force"), say("on its way"), say("last release")), rows)


def sentence_of_release(release: Record) -> Text:
    """What became of it: `release 3 was rolled back: v1.0 is in force`."""
    line = Text(say("release {number}", number=release.number("number")) + " ").append_text(_state(release))
    if not release.flag("over"):
        return line.append(
            say(", {percent} % of users have {name}", percent=share_of(release), name=release.text("candidate"))
        )
    now = release.text("candidate") if release.text("state") == "released" else release.text("stable")
    return line.append(say(": users were left with {name}", name=now)) if now else line


def share_of(release: Record) -> str:
    """In percent, without an empty fraction."""
    return release.text("percent").removesuffix(".0")


def show_release(screen: Screen, data: Record) -> None:
    """All of one."""
    found = data.records("releases")
    if not found:
        screen.quiet(say("nothing was released yet; try: interlock release plan WORKLOAD VERSION"))
        return
    one = found[0]
    screen.heading(say("{name}, release {number}", name=one.text("workload"), number=one.number("number")))
    screen.fields(
        [
            (say("versions"), _change(one)),
            (say("state"), _state(one)),
            (say("users"), say("{percent} % have {name}", percent=share_of(one), name=one.text("candidate"))),
            (say("step"), release_in_words(one.text("step_words"))),
            (say("watched for"), f"{one.number('watched_seconds')} s" if not one.flag("over") else ""),
            (say("judge"), one.text("judge_words")),
            (say("why"), release_in_words(one.text("reason"))),
            (say("asked by"), f"{one.text('started_by')} (Run {one.number('run')})"),
            (say("way back"), _way_back(screen, one)),
        ],
        indent=2,
    )
    lines = data.records("timeline")
    if lines:
        screen.blank()
        screen.heading(say("Timeline"))
    for line in lines:
        run = f"  Run {line.number('run')}" if line.number("run") else ""
        screen.line(_clock(line), "  ", _styled(line), Text(run, style="dim"), indent=2)


def _way_back(screen: Screen, release: Record) -> str:
    """Only of one whose version users still have: of any other the warm version is about to be stopped."""
    warm = parse_time(release.text("warm_until"))
    if warm is None or release.text("state") != "released" or not release.text("stable"):
        return ""
    return say("{name} is kept running until {when}", name=release.text("stable"), when=screen.local_time(warm))


def show_comparison(screen: Screen, data: Record) -> None:
    """A row for each measure, a column for each version."""
    arms = data.records("arms")
    names = [arm.text("name") for arm in arms]
    rows = [
        (label, *(arm.text(key) for arm in arms))
        for label, key in (
            (say("requests"), "requests"),
            (say("errors"), "errors"),
            (say("error rate"), "error_rate"),
            ("P50", "p50"),
            ("P95", "p95"),
            ("P99", "p99"),
        )
    ]
    screen.rows(("", *names), [(*row[:-1], row[-1]) for row in rows])
    screen.blank()
    words = {"go": ("succeeded", "GO"), "no_go": ("failed", "NO-GO"), "": ("", "-")}
    found: list[tuple[Text | str, ...]] = [
        (
            styled(*words.get(each.text("verdict"), ("warning", "?"))),
            release_in_words(each.text("name")),
            each.text("words"),
        )
        for each in data.records("criteria")
    ]
    screen.rows(("", "", ""), found)
    if data.texts("differences"):
        screen.blank()
        screen.raw("\n".join(data.texts("differences")))


class Progress:
    """A release on its way: a line for all that happens and, on a terminal, one below that moves."""

    def __init__(self, *, shown: bool, colour: bool) -> None:
        self._shown = shown
        self._moves = shown and sys.stderr.isatty()
        self._screen = Screen(sys.stdout, colour=colour) if shown else None
        self._standing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wipe()

    def say(self, line: Record) -> None:
        """One line of its timeline."""
        if self._screen is not None:
            self._wipe()
            self._screen.line(_clock(line), "  ", _styled(line))
            sys.stdout.flush()

    def stand(self, release: Record) -> None:
        """Where it stands now."""
        if not self._moves:
            return
        self._wipe()
        percent = release.data.get("percent")
        share = float(percent) if isinstance(percent, int | float) else 0.0
        full = round(share / 100 * BAR_COLUMNS)
        bar = "█" * full + "░" * (BAR_COLUMNS - full)
        words = [f"{bar} {share:g} %", release_in_words(release.text("step_words")), release.text("judge_words")]
        sys.stderr.write(visible_line("  ".join(word for word in words if word))[: self._columns()])
        sys.stderr.flush()
        self._standing = True

    def _columns(self) -> int:
        return max(20, (self._screen.width if self._screen is not None else 80) - 1)

    def _wipe(self) -> None:
        if self._standing:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._standing = False


def _state(release: Record) -> Text:
    state = release.text("state")
    style = (
        "failed"
        if state in _BAD
        else "succeeded"
        if state == "released"
        else "waiting"
        if state in _WAITS
        else "running"
    )
    return styled(style, state_words(state))


def _change(release: Record) -> str:
    return f"{release.text('stable') or '-'} → {release.text('candidate')}"


def _styled(line: Record) -> Text:
    word = line.text("word")
    style = "failed" if word in _BAD else "succeeded" if word == "released" else "warning" if word in _WAITS else ""
    return styled(style, release_in_words(line.text("text")))


def _clock(line: Record) -> Text:
    """To the hundredth of a second: what goes back by itself does so within a blink."""
    moment = parse_time(line.text("at"))
    text = moment.astimezone().strftime("%H:%M:%S.%f")[:-4] if moment is not None else line.text("at")
    return Text(text, style="dim")
