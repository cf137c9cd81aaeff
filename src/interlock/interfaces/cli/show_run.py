"""Shows Runs: in lists, one with everything, and why one stands where it stands."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.outcome import missing_in_words, risk_in_words, sentence_of_run, state_in_words
from interlock.interfaces.cli.plan import executed_fields, show_arguments, show_plan
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.cli.show_release import sentence_of_release
from interlock.interfaces.messages import say
from interlock.interfaces.resident_words import text_in_words


def show_log(screen: Screen, runs: list[Record]) -> None:
    """A row each."""
    if not runs:
        screen.quiet(say("nothing"))
        return
    rows = [
        (
            Text(run.text("number"), style="bold"),
            styled(run.text("state")),
            Text(screen.moment(run.text("created_at")), style="dim"),
            run.text("actor_id") or run.who("actor"),
            run.text("summary"),
        )
        for run in runs
    ]
    screen.rows(("", say("state"), say("asked"), say("by"), say("what")), rows)


def show_pending(screen: Screen, runs: list[Record]) -> None:
    """Each with what it wants, what is missing, and until when."""
    if not runs:
        screen.quiet(say("nothing waits for a person"))
    for index, run in enumerate(runs):
        if index:
            screen.blank()
        state = run.text("state")
        screen.line(
            Text(f"{run.number('number')}  ", style="bold"),
            styled(state, state_in_words(state)),
            f"  {run.text('summary')}",
        )
        expires = run.text("expires_at")
        plan = run.record("plan")
        screen.fields(
            [
                *(field for step in plan.records("steps") for field in executed_fields(step)),
                (say("asked by"), _asker(run)),
                (say("because"), run.text("reason")),
                (say("touches"), ", ".join(run.texts("targets"))),
                (say("risk"), styled(run.text("risk"), risk_in_words(run.text("risk")))),
                (say("missing"), missing_in_words(run.records("missing")) or text_in_words(run.text("state_reason"))),
                (say("expires"), screen.moment(expires) if expires else ""),
            ],
            indent=4,
        )
        show_arguments(screen, plan, indent=4)


def show_run(screen: Screen, run: Record, evidence: Record, release: Record | None = None) -> None:
    """One Run: who, what, plan, decision, verdicts, evidence; and what became of the release that it began."""
    state = run.text("state")
    screen.line(Text(f"Run {run.number('number')}  ", style="bold"), styled(state, state_in_words(state)))
    exit_code = run.text("exit_code")
    screen.fields(
        [
            (say("because"), text_in_words(run.text("state_reason"))),
            (say("release"), sentence_of_release(release) if release else ""),
            (say("asked by"), _asker(run)),
            (say("reason"), run.text("reason")),
            (say("asked"), screen.moment(run.text("created_at"))),
            (say("ended"), screen.moment(run.text("closed_at")) if run.text("closed_at") else ""),
            (say("expires"), screen.moment(run.text("expires_at")) if run.text("expires_at") else ""),
            (say("exit code"), exit_code),
            (say("key"), run.text("key")),
            (say("takes back"), f"Run {run.text('undo_of')}" if run.text("undo_of") else ""),
            (say("repeats"), f"Run {run.text('retry_of')}" if run.text("retry_of") else ""),
            (say("trace"), run.text("trace_id")),
            (say("in force"), _in_force(run, evidence.records("rows"))),
        ],
        indent=2,
    )
    screen.blank()
    show_plan(screen, run)
    verdicts = run.records("approvals")
    if verdicts:
        screen.blank()
        screen.heading(say("Verdicts"))
        for verdict in verdicts:
            word = styled("ok", say("yes")) if verdict.flag("verdict") else styled("denied", say("no"))
            by = f"  {verdict.text('approver')} · {screen.moment(verdict.text('at'))}"
            screen.line(word, by, f"  {verdict.text('reason')}" if verdict.text("reason") else "", indent=2)
    show_evidence(screen, evidence.records("rows"))


def show_evidence(screen: Screen, rows: list[Record]) -> None:
    """The chain as a time line."""
    if not rows:
        return
    screen.blank()
    screen.heading(say("Evidence"))
    shown = []
    for row in rows:
        line = row.record("line")
        clock = line.text("at")[11:23]
        shown.append((Text(clock, style="dim"), line.text("kind"), _gist(line.text("kind"), line.record("data"))))
    screen.rows(("", "", ""), shown, indent=2)


def show_why(screen: Screen, told: Record, release: Record | None = None) -> None:
    """Sentences, then what to choose from; and what became of the release that it began."""
    run = told.record("run")
    screen.line(styled(told.text("state"), sentence_of_run(run)))
    screen.quiet(run.text("summary"), indent=2)
    screen.blank()
    for sentence in dict.fromkeys(told.texts("why")):
        screen.line("· ", text_in_words(sentence), indent=2)
    if release:
        screen.line("· ", sentence_of_release(release), indent=2)
    following = told.records("next")
    if following:
        screen.blank()
        screen.heading(say("Next"))
        screen.rows(
            ("", ""),
            [
                (text_in_words(step.text("command")), Text(text_in_words(step.text("meaning")), style="dim"))
                for step in following
            ],
            indent=2,
        )


def _in_force(run: Record, rows: list[Record]) -> str:
    """By which configuration and policies it was answered, as the evidence has it."""
    asked = next(
        (row.record("line").record("data") for row in rows if row.record("line").text("kind") == "asked"), None
    )
    if asked is None or not asked.text("configuration"):
        return ""
    policies = run.record("decision").text("policy_set")
    told = say(
        "configuration {configuration}, policies {policies}",
        configuration=asked.text("configuration")[:12],
        policies=policies[:12],
    )
    return f"{told} · {asked.text('environment')}" if asked.text("environment") else told


def _asker(run: Record) -> str:
    owner = run.text("on_behalf_of")
    actor = run.text("actor_id") or run.who("actor")
    return say("{actor} for {owner}", actor=actor, owner=owner) if owner else actor


def _gist(kind: str, data: Record) -> str:
    """The few words of an evidence row that people look for."""
    if kind == "asked":
        return f"{data.text('actor')}: {data.text('summary')}"
    if kind == "decided":
        return f"{data.text('outcome')} ({', '.join(data.texts('policies'))})"
    if kind == "approved":
        return f"{data.text('approver')}: {say('yes') if data.flag('verdict') else say('no')}"
    if kind == "noted":
        return data.text("note") + (f" ({data.text('by')})" if data.text("by") else "")
    parts = [data.text("state"), data.text("summary"), data.text("reason")]
    step = [say("step {number}", number=data.number("step") + 1)] if "step" in data else []
    return " · ".join(part for part in [*step, *parts] if part)
