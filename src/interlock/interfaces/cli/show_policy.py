"""Shows policies, the outcome of their tables, the explanation of a decision, and what a replay found."""

from __future__ import annotations

from rich.text import Text

from interlock.interfaces.cli.outcome import missing_in_words
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say
from interlock.interfaces.resident_words import text_in_words

RUNS_CHARACTERS_MAX = 200
"""Of numbers of Runs on a terminal; --output json has all."""


def show_policies(screen: Screen, data: Record) -> None:
    """By layer, each with its reason."""
    layer = ""
    for policy in data.records("policies"):
        if policy.text("layer") != layer:
            layer = policy.text("layer")
            screen.heading(layer)
        screen.line(styled(policy.text("effect"), policy.text("id")), indent=2)
        screen.quiet(text_in_words(policy.text("reason")), indent=4)
    count = len(data.records("policies"))
    text = say("{count} policies are sound: {policy_set}", count=count, policy_set=data.text("policy_set")[:12])
    screen.blank()
    screen.line(styled("ok", text))


def show_tables(screen: Screen, data: Record) -> None:
    """What is not kept, and how many lines are."""
    for failed in data.records("failed"):
        where = failed.text("file") + (f":{failed.text('line')}" if failed.text("line") else "")
        screen.line(styled("failed", failed.text("name") or failed.text("case") or say("a line")), f"  {where}")
        screen.fields(
            [
                (say("expected"), failed.text("expected")),
                (say("came out"), failed.text("actual") or failed.text("got")),
                (say("because"), failed.text("message") or failed.text("reason")),
            ],
            indent=2,
        )
    screen.line(
        styled(
            "failed" if data.records("failed") else "ok",
            say("{passed} kept, {failed} not", passed=data.number("passed"), failed=len(data.records("failed"))),
        )
    )


def show_explanation(screen: Screen, explanation: Record) -> None:
    """Outcome, policies, and the smallest changes that would lead to another one."""
    outcome = explanation.text("outcome")
    words = {"permit": say("permitted"), "forbid": say("forbidden"), "needs_approval": say("needs a yes")}
    missing = missing_in_words(explanation.records("requirements"))
    screen.line(styled(outcome, words.get(outcome, outcome)), f": {missing}" if missing else "")
    for policy in explanation.records("policies"):
        place = policy.text("file") + (f":{policy.text('line')}" if policy.number("line") else "")
        screen.line(Text(f"{policy.text('effect')}  "), text_in_words(policy.text("reason")), indent=2)
        screen.quiet(" · ".join(part for part in (policy.text("policy"), place) if part), indent=4)
    changes = explanation.records("changes")
    if changes:
        screen.blank()
        screen.heading(say("It would be otherwise if"))
        for change in changes:
            result = change.text("outcome")
            screen.line(
                " + ".join(change.texts("what")), Text(" → "), styled(result, words.get(result, result)), indent=2
            )
    if explanation.texts("instead"):
        screen.blank()
        screen.heading(say("Instead"))
        for sentence in explanation.texts("instead"):
            screen.line(text_in_words(sentence), indent=2)


def show_replay(screen: Screen, data: Record) -> None:
    """By policy: how many Runs would have been answered otherwise, which, and the first few of them."""
    policy = None
    for group in data.records("differences"):
        if group.text("policy") != policy:
            policy = group.text("policy")
            screen.heading(policy)
            screen.quiet(text_in_words(group.text("reason")), indent=2)
        screen.line(
            say("1 Run") if group.number("count") == 1 else say("{count} Runs", count=group.number("count")),
            Text("  "),
            *_turn(group),
            Text(f"  {_part(group)}"),
            indent=2,
        )
        for example in group.records("examples"):
            screen.line(_run_in_words(example), indent=4)
        if group.number("count") > len(group.records("examples")):
            screen.quiet(say("all of them: {runs}", runs=_cut(group.text("runs"))), indent=4)
    for group in data.records("unreplayable_by_cause"):
        count = group.number("count")
        screen.heading(
            say("Nobody can say for 1 Run") if count == 1 else say("Nobody can say for {count} Runs", count=count)
        )
        screen.quiet(group.text("why"), indent=2)
        screen.quiet(_cut(group.text("runs")), indent=2)
    if not data.number("decided") and not data.number("unreplayable"):
        screen.quiet(say("no Run was asked for in that time"))
        return
    if data.records("differences") or data.records("unreplayable_by_cause"):
        screen.blank()
    counts = {name: data.number(name) for name in ("decided", "different", "unreplayable")}
    text = say("{decided} Runs decided again: {different} would be answered otherwise", **counts)
    screen.line(styled("failed" if counts["different"] or counts["unreplayable"] else "ok", text))


def _turn(group: Record) -> tuple[Text, ...]:
    words = {"permit": say("permitted"), "forbid": say("forbidden"), "needs_approval": say("needs a yes")}
    old, new = group.text("from"), group.text("to")
    if old == new:
        what = say("other requirements") if group.text("what") == "requirements" else say("other reasons")
        return (styled(new, words.get(new, new)), Text(f": {what}"))
    return (styled(old, words.get(old, old)), Text(" → "), styled(new, words.get(new, new)))


def _part(group: Record) -> str:
    parts = {
        "added": say("this policy takes part now"),
        "removed": say("this policy no longer takes part"),
        "changed": say("this policy says something else"),
    }
    return parts.get(group.text("part"), "")


def _run_in_words(run: Record) -> str:
    return f"#{run.number('run')} {run.text('actor')}  {run.text('action')}  {run.text('summary')}"


def _cut(runs: str) -> str:
    return runs if len(runs) <= RUNS_CHARACTERS_MAX else f"{runs[:RUNS_CHARACTERS_MAX].rpartition(',')[0]}, ..."
