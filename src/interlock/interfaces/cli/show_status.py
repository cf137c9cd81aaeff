"""The first screen: what needs you, what is broken, what runs, what happened last."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.outcome import risk_in_words, state_in_words
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.cli.show_release import sentence_of_release
from interlock.interfaces.cli.standing import NEEDS_SOMEBODY, Standings
from interlock.interfaces.messages import say
from interlock.interfaces.release_words import release_in_words
from interlock.interfaces.resident_words import text_in_words

NO_WORKLOADS = Standings((), ())


def show_status(screen: Screen, hello: Record, data: Record, found: Standings = NO_WORKLOADS) -> None:
    """`hello` is the resident process about itself, `data` the view `status`, `found` how the workloads stand."""
    _show_head(screen, hello)
    attention = data.records("attention")
    waiting = [run for run in attention if run.text("state") == "waiting"]
    unresolved = [run for run in attention if run.text("state") == "unresolved"]
    stopped = [each for each in found.active if each.text("state") in NEEDS_SOMEBODY]
    if waiting or stopped:
        screen.blank()
        screen.heading(say("Needs you"))
        for run in waiting:
            _show_run(screen, run, run.text("created_at"))
        for release in stopped:
            _show_release(screen, release)
    _show_broken(screen, unresolved, data.records("troubles"))
    _show_freezes(screen, data.records("freezes"))
    running = data.records("running")
    if running:
        screen.blank()
        screen.heading(say("Running"))
        for run in running:
            _show_run(screen, run, run.text("created_at"))
    _show_workloads(screen, found)
    recent = data.records("recent")
    screen.blank()
    screen.heading(say("Last"))
    for run in recent:
        _show_run(screen, run, run.text("closed_at"))
        if release := found.of_run(run):
            screen.line(sentence_of_release(release), indent=4)
    if not recent:
        screen.quiet(say("nothing yet; try: interlock exec -- uptime"), indent=2)
    _show_log(screen, data.record("log"))


def _show_head(screen: Screen, hello: Record) -> None:
    project, mode = hello.record("project"), hello.text("mode")
    actor = hello.record("actor")
    name = f"{actor.text('kind')}:{actor.text('name')}"
    words = (project.text("name"), project.text("environment"), project.text("preset"), name)
    screen.line(styled(mode), Text(f"  {' · '.join(word for word in words if word)}"))
    if mode == "advisory":
        screen.quiet(say("You and Interlock share an account: this covers mistakes, not malice."))
    for warning in hello.texts("warnings"):
        screen.line(styled("warning", say("note: {text}", text=warning)))


def _show_broken(screen: Screen, unresolved: list[Record], troubles: list[Record]) -> None:
    if not unresolved and not troubles:
        return
    screen.blank()
    screen.heading(say("Broken"))
    for run in unresolved:
        _show_run(screen, run, run.text("created_at"))
    for trouble in troubles:
        screen.line(styled("error", trouble.text("message")), indent=2)
        if trouble.text("fix"):
            screen.quiet(f"→ {trouble.text('fix')}", indent=4)


def _show_freezes(screen: Screen, freezes: list[Record]) -> None:
    if not freezes:
        return
    screen.blank()
    screen.heading(say("Frozen"))
    for freeze in freezes:
        agents = freeze.text("scope") == "agents"
        pattern = freeze.text("pattern")
        everything = say("all agents") if agents else say("everything")
        what = everything if pattern == "*" else f"agent:{pattern}" if agents else pattern
        until = freeze.text("until")
        when = say("ends {when}", when=screen.moment(until)) if until else say("until it is lifted")
        screen.line(styled("warning", what), Text(f"  {freeze.text('reason')}"), indent=2)
        screen.quiet(f"{freeze.text('set_by')} · {when}", indent=4)


def _show_workloads(screen: Screen, found: Standings) -> None:
    moving = [each for each in found.active if each.text("state") not in NEEDS_SOMEBODY]
    if moving:
        screen.blank()
        screen.heading(say("On their way"))
        for release in moving:
            _show_release(screen, release)
    if found.workloads:
        screen.blank()
        screen.heading(say("In force"))
        rows = [(each.workload, each.in_force or say("no version yet")) for each in found.workloads]
        screen.rows(("", ""), rows, indent=2)


def _show_release(screen: Screen, release: Record) -> None:
    """As `_show_run`: two short lines."""
    change = f"{release.text('stable') or '-'} → {release.text('candidate')}"
    screen.line(Text(release.text("workload"), style="bold"), f"  {change}  ", sentence_of_release(release), indent=2)
    told = [release_in_words(release.text(key)) for key in ("step_words", "judge_words", "reason")]
    screen.quiet(" · ".join(word for word in told if word), indent=4)


def _show_run(screen: Screen, run: Record, at: str) -> None:
    """Two short lines, which fit anywhere."""
    state = run.text("state")
    screen.line(
        Text(f"{run.number('number')}  ", style="bold"),
        styled(state, state_in_words(state)),
        f"  {run.text('summary')}",
        indent=2,
    )
    parts = [run.text("actor_id") or run.who("actor"), screen.moment(at) if at else ""]
    if run.text("risk") in {"medium", "high"} and state != "succeeded":
        parts.append(say("risk {risk}", risk=risk_in_words(run.text("risk"))))
    screen.quiet(" · ".join(part for part in parts if part), indent=4)
    reason = text_in_words(run.text("state_reason"))
    if reason and state in {"waiting", "unresolved", "failed", "undone", "denied", "stale", "expired", "queued"}:
        screen.quiet(reason, indent=4)


def _show_log(screen: Screen, log: Record) -> None:
    if log.number("sealed"):
        screen.blank()
        text = say("evidence: {rows} rows sealed, last {when}")
        screen.quiet(text.format(rows=f"{log.number('sealed'):,}", when=screen.moment(log.text("sealed_at"))))
