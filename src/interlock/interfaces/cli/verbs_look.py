"""The verbs that look: status, pending, log, show, output, why, actions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_action, complete_run
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.stream import RunStream
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import NOTHING_DONE_YET, STATE_CODES
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()

RunNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, autocompletion=complete_run, help=say("the Run's number"))
]


@verb(
    app,
    "status",
    summary=say("What needs you, what is broken and why, what runs, what happened last."),
    examples=("interlock", "interlock status", "interlock status --output json"),
)
def status(caller: Caller) -> Answer:
    """One screen."""
    from interlock.interfaces.cli.standing import NEEDS_SOMEBODY, standings_where_allowed

    data, hello = caller.view("status"), caller.resident.hello
    found = standings_where_allowed(caller)
    attention = data.records("attention")
    waits = [f"interlock show {run.number('number')}" for run in attention if run.text("state") == "waiting"]
    broken = [f"interlock why {run.number('number')}" for run in attention if run.text("state") == "unresolved"]

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_status import show_status

        show_status(screen, hello, data, found)

    stopped = [each.text("workload") for each in found.active if each.text("state") in NEEDS_SOMEBODY]
    following = [*broken[:1], *waits[:1], *[f"interlock release status {name}" for name in stopped[:1]]]
    told = {
        "workloads": [each.to_json() for each in found.workloads],
        "releases": [dict(each.data) for each in found.active],
    }
    return Answer(data={"resident": dict(hello.data), **data.data, **told}, next=following, show=show)


@verb(
    app,
    "pending",
    summary=say("What waits for a person."),
    examples=("interlock pending", "interlock pending --output json"),
)
def pending(caller: Caller) -> Answer:
    """Oldest first."""
    data = caller.view("pending")
    runs = data.records("runs")
    first = [run.number("number") for run in runs if run.text("state") == "waiting"]

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_run import show_pending

        show_pending(screen, runs)

    following = [f"interlock show {first[0]}", f"interlock approve {first[0]}"] if first else []
    return Answer(data=dict(data.data), next=following, show=show)


@verb(
    app,
    "log",
    summary=say("What was asked, by whom, and what became of it; newest first."),
    examples=(
        "interlock log",
        "interlock log --state failed --limit 10",
        "interlock log --actor agent:claude --action command.exec",
    ),
)
def log(
    caller: Caller,
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help=say("only this state, or `open`"))] = None,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", autocompletion=complete_action, help=say("only this action"))
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="KIND:NAME", help=say("only asked by this actor"))] = None,
    before: Annotated[int | None, typer.Option(metavar="N", min=1, help=say("older than this Run"))] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help=say("at most so many"))] = 20,
) -> Answer:
    """A page of the log."""
    if state is not None and state not in {*STATE_CODES, "open"}:
        msg = f"{state!r} is no state of a Run"
        raise Invalid(msg, code="log.state", fix=f"one of: open, {', '.join(STATE_CODES)}")
    data = caller.view("runs", state=state, action=action, actor=actor, before=before, limit=limit)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_run import show_log

        show_log(screen, data.records("runs"))

    further = data.number("next_before")
    return Answer(data=dict(data.data), next=[f"interlock log --before {further}"] if further else [], show=show)


@verb(
    app,
    "show",
    summary=say("Everything about one Run."),
    examples=("interlock show 12", "interlock show 12 --output yaml"),
)
def show(caller: Caller, run: RunNumber) -> Answer:
    """The Run, its plan, decision, verdicts and evidence."""
    found, evidence = caller.view("run", run=run), caller.view("evidence", run=run)
    release = _release_of(caller, found)

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_run import show_run

        show_run(screen, found, evidence, release)

    told = {"run": dict(found.data), "evidence": evidence.data.get("rows")}
    told |= {"release": dict(release.data)} if release else {}
    return Answer(status=found.text("state"), data=told, show=draw)


def _release_of(caller: Caller, run: Record) -> Record:
    """The release that a Run began, as it stands now; empty where it began none."""
    from interlock.interfaces.cli.standing import standings_where_allowed

    return standings_where_allowed(caller).of_run(run) if run.text("action") == "release.start" else Record({})


@verb(
    app,
    "output",
    summary=say("What a Run printed."),
    examples=("interlock output 12", "interlock output 12 --follow", "interlock output 12 --tail-bytes 2000"),
)
def output(
    caller: Caller,
    run: RunNumber,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=say("go on until it has ended"))] = False,
    tail_bytes: Annotated[int | None, typer.Option(metavar="K", min=1, help=say("only the last K bytes"))] = None,
) -> Answer:
    """As it was printed."""
    stream = RunStream(caller)
    result = stream.follow(run, tail_bytes=tail_bytes, follow=follow)
    sys.stdout.flush()
    code = NOTHING_DONE_YET if follow and result.text("state") in {"queued", "running"} else 0
    data = {"run": run, "output": stream.output, "bytes": result.number("bytes"), "state": result.text("state")}
    return Answer(status=result.text("state"), data=data, exit_code=code)


@verb(
    app,
    "why",
    summary=say("Why a Run waits, was denied, went stale or is unresolved, and what to do next."),
    examples=("interlock why 12",),
)
def why(caller: Caller, run: RunNumber) -> Answer:
    """One screen."""
    data = caller.view("why", run=run)
    following = [step.text("command") for step in data.records("next")]
    release = _release_of(caller, data.record("run"))

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_run import show_why

        show_why(screen, data, release)

    told = {**data.data, **({"release": dict(release.data)} if release else {})}
    return Answer(status=data.text("state"), data=told, next=[] if caller.table else following, show=draw)


@verb(
    app,
    "actions",
    summary=say("What can be asked for: actions with their arguments and an example."),
    examples=("interlock actions", "interlock actions file.write", "interlock actions --output json"),
)
def actions(
    caller: Caller,
    name: Annotated[str | None, typer.Argument(autocompletion=complete_action, help=say("only this one"))] = None,
) -> Answer:
    """The catalogue."""
    data = caller.view("actions", name=name)
    found = data.records("actions")

    def draw(screen: Screen) -> None:
        from interlock.interfaces.cli.show_actions import show_action, show_actions

        if name is not None and found:
            show_action(screen, found[0])
        else:
            show_actions(screen, found)

    return Answer(data=dict(data.data), show=draw)
