"""The verbs about schedules: list, show, preview, pause, resume, run, once, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.arguments import read_arguments
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason, Wait
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
schedules = verbs(
    app,
    "schedules",
    summary=say("What the clock asks for: list, preview, pause, run."),
    examples=("interlock schedules list", "interlock schedules preview nightly-report"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help=say("the schedule's name"))]


@verb(
    schedules,
    "list",
    group="schedules",
    summary=say("When each schedule asks next, what became of the last time, and who paused it."),
    examples=("interlock schedules list", "interlock schedules list --output json"),
)
def list_schedules(caller: Caller) -> Answer:
    """Those of interlock.yaml, and one-offs that are not over."""
    data = caller.view("schedules")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_schedules import show_schedules

        show_schedules(screen, data.records("schedules"))

    return Answer(data=dict(data.data), show=show)


@verb(
    schedules,
    "show",
    group="schedules",
    summary=say("One schedule, and what became of its last instants."),
    examples=("interlock schedules show nightly-report",),
)
def show_one(caller: Caller, name: Name) -> Answer:
    """Raises NotFound."""
    data = caller.view("schedules", name=name)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_schedules import show_schedule

        show_schedule(screen, data)

    return Answer(data=dict(data.data), show=show)


@verb(
    schedules,
    "preview",
    group="schedules",
    summary=say("The next instants of a schedule, on its own wall clock."),
    examples=("interlock schedules preview nightly-report --count 5",),
)
def preview(
    caller: Caller,
    name: Name,
    count: Annotated[int, typer.Option(min=1, max=100, help=say("how many"))] = 5,
) -> Answer:
    """Raises NotFound."""
    data = caller.view("schedule_preview", name=name, count=count)

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_schedules import show_preview

        show_preview(screen, data)

    return Answer(data=dict(data.data), show=show)


@verb(
    schedules,
    "pause",
    group="schedules",
    summary=say("Let a schedule ask for nothing until somebody resumes it."),
    examples=('interlock schedules pause nightly-report --reason "the disk is full" --minutes 600',),
)
def pause(
    caller: Caller,
    name: Name,
    *,
    reason: Annotated[str, typer.Option(help=say("why; whoever looks at the schedule will read it"))],
    minutes: Annotated[int | None, typer.Option(min=1, help=say("resumed by itself after so long"))] = None,
    confirm: Confirm = None,
) -> Answer:
    """`schedule.pause`."""
    words = ["pause", name, "--reason", reason, *(["--minutes", str(minutes)] if minutes is not None else [])]
    args: dict[str, object] = {"name": name, "reason": reason}
    return _ask(caller, "schedule.pause", args | ({} if minutes is None else {"minutes": minutes}), words, confirm)


@verb(
    schedules,
    "resume",
    group="schedules",
    summary=say("Let a paused schedule ask again, from now on."),
    examples=("interlock schedules resume nightly-report",),
)
def resume(caller: Caller, name: Name, confirm: Confirm = None) -> Answer:
    """`schedule.resume`."""
    return _ask(caller, "schedule.resume", {"name": name}, ["resume", name], confirm)


@verb(
    schedules,
    "run",
    group="schedules",
    summary=say("Ask now, as yourself, for what a schedule asks for."),
    more=say("The schedule goes on as before; policy decides by who you are."),
    examples=("interlock schedules run nightly-report", "interlock schedules run nightly-report --confirm"),
)
def run(caller: Caller, name: Name, *, reason: Reason = None, confirm: Confirm = None, wait: Wait = True) -> Answer:
    """The ask of the schedule, as the caller's own."""
    found = caller.view("schedules", name=name).records("schedules")[0]
    args = dict(found.record("args").data)
    words = ["run", name, *(["--reason", reason] if reason is not None else [])]
    told = reason or f"schedule {name}, by hand"
    return _ask(caller, found.text("action"), args, words, confirm, reason=told, wait=wait)


@verb(
    schedules,
    "once",
    group="schedules",
    summary=say("Ask for an action once, at a moment in the future."),
    more=say("It goes through the door then, as you, with the rights that you have by then."),
    examples=(
        'interlock schedules once quiet file.restore --at "$(date -d tomorrow --iso-8601=seconds)" --arg run=12',
    ),
)
def once(
    caller: Caller,
    name: Name,
    action: Annotated[str, typer.Argument(metavar="ACTION", help=say("its name, as `actions` lists it"))],
    *,
    at: Annotated[str, typer.Option(metavar="MOMENT", help=say("with its offset: 2027-06-01T03:00:00+08:00"))],
    arg: Annotated[list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help=say("an argument"))] = None,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`schedule.once`."""
    args: dict[str, object] = {"name": name, "action": action, "at": at}
    args["args"] = read_arguments(caller, action, arg or [], None)
    args |= {} if reason is None else {"reason": reason}
    words = ["once", name, action, "--at", at, *(word for each in arg or [] for word in ("--arg", each))]
    words += ["--reason", reason] if reason is not None else []
    return _ask(caller, "schedule.once", args, words, confirm, reason=reason)


@verb(
    schedules,
    "cancel",
    group="schedules",
    summary=say("Take back a one-off that was not asked for yet."),
    examples=("interlock schedules cancel quiet",),
)
def cancel(caller: Caller, name: Name, confirm: Confirm = None) -> Answer:
    """`schedule.cancel`."""
    return _ask(caller, "schedule.cancel", {"name": name}, ["cancel", name], confirm)


def _ask(
    caller: Caller,
    action: str,
    args: dict[str, object],
    words: list[str],
    confirm: str | None,
    *,
    reason: str | None = None,
    wait: bool = True,
) -> Answer:
    params: dict[str, object] = {"ask": {"action": action, "args": args, "reason": reason}}
    return ask(caller, Asking("submit", params, ["schedules", *words, CONFIRM_HERE], confirm=confirm, wait=wait))
