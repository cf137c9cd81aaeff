"""The verbs about versions of services by hand: service list, start, stop and restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.record import Record
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
service = verbs(
    app,
    "service",
    summary=say("Versions of services by hand: list, start, stop, restart."),
    examples=("interlock service list", "interlock service start web v1.4", "interlock service restart web"),
)

Workload = Annotated[str, typer.Argument(metavar="WORKLOAD", help=say("a service that interlock.yaml declares"))]
Version = Annotated[str, typer.Argument(metavar="VERSION", help=say("a git ref, a folder's name, a tag or a digest"))]


@verb(
    service,
    "list",
    group="service",
    summary=say("Which versions run, where they listen and how they fare."),
    examples=("interlock service list", "interlock service list web --all --output json"),
)
def list_versions(
    caller: Caller,
    workload: Annotated[str | None, typer.Argument(metavar="WORKLOAD", help=say("one service only"))] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help=say("those that were stopped too"))] = False,
) -> Answer:
    """By service, newest first."""
    data = caller.view("services", workload=workload, state="all" if every else "standing")

    def show(screen: Screen) -> None:
        found = data.records("services")
        if not found:
            screen.quiet(say("nothing"))
            return
        columns = (say("service"), say("version"), say("state"), say("where"), say("restarts"), say("files"))
        screen.rows(columns, [_row(each) for each in found])

    return Answer(data=dict(data.data), show=show)


def _row(each: Record) -> tuple[str, ...]:
    how = each.text("phase") if each.text("stage") == "running" and "phase" in each else each.text("stage")
    parts = [part.partition(":") for part in each.text("identity").split("+")]  # code, and configuration if any
    return (
        each.text("workload"),
        each.text("version"),
        _word(how),
        each.text("address"),
        each.text("restarts"),
        " + ".join(f"{kind} {value.removeprefix('sha256:')[:12]}" for kind, _, value in parts),
    )


def _word(how: str) -> str:
    words = {
        "starting": say("is being started"),
        "running": say("is up"),
        "waiting": say("ended, is started again soon"),
        "stopping": say("is being stopped"),
        "stopped": say("is stopped"),
        "failed": say("never became healthy"),
        "given_up": say("ended too often, was given up"),
    }
    return words.get(how, how)


@verb(
    service,
    "log",
    group="service",
    summary=say("The end of what a version wrote to its log, without secrets."),
    examples=("interlock service log web v1.4", "interlock service log web v1.4 --lines 500"),
)
def log(
    caller: Caller,
    workload: Workload,
    version: Version,
    *,
    lines: Annotated[int, typer.Option("--lines", min=1, max=1000, help=say("at most so many"))] = 100,
) -> Answer:
    """The newest last; a version that was stopped has one as long as its files are kept."""
    data = caller.view("service_log", workload=workload, version=version, lines=lines)

    def show(screen: Screen) -> None:
        said = data.texts("lines")
        if said:
            screen.raw("\n".join(said))
        else:
            screen.quiet(say("it wrote nothing, or nothing of it is left"))

    return Answer(data=dict(data.data), show=show)


@verb(
    service,
    "start",
    group="service",
    summary=say("Start a version beside those that run, and wait until it is healthy; no user gets it yet."),
    more=say("To give it to users: interlock deploy."),
    examples=("interlock service start web v1.4",),
)
def start(
    caller: Caller, workload: Workload, version: Version, reason: Reason = None, confirm: Confirm = None
) -> Answer:
    """`service.start`."""
    args: dict[str, object] = {"workload": workload, "version": version}
    return _ask(caller, "service.start", args, ["start", workload, version], confirm, reason)


@verb(
    service,
    "stop",
    group="service",
    summary=say("Stop a version that no user has."),
    examples=("interlock service stop web v1.3",),
)
def stop(
    caller: Caller,
    workload: Workload,
    version: Version,
    *,
    even_if_used: Annotated[bool, typer.Option("--even-if-used", help=say("users who have it get errors"))] = False,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`service.stop`."""
    args: dict[str, object] = {"workload": workload, "version": version, "even_if_used": even_if_used}
    words = ["stop", workload, version, *(["--even-if-used"] if even_if_used else [])]
    return _ask(caller, "service.stop", args, words, confirm, reason)


@verb(
    service,
    "restart",
    group="service",
    summary=say("Restart all processes of a service, version after version, each until it is healthy."),
    more=say("Users of a version wait or are refused while it restarts. Where that matters, deploy it anew."),
    examples=("interlock service restart web", "interlock service restart web v1.4"),
)
def restart(
    caller: Caller,
    workload: Workload,
    version: Annotated[str | None, typer.Argument(metavar="VERSION", help=say("one version only"))] = None,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`service.restart`."""
    args: dict[str, object] = {"workload": workload, "version": version}
    words = ["restart", workload, *([version] if version is not None else [])]
    return _ask(caller, "service.restart", args, words, confirm, reason)


def _ask(
    caller: Caller, action: str, args: dict[str, object], words: list[str], confirm: str | None, reason: str | None
) -> Answer:
    words = ["service", *words, *(["--reason", reason] if reason is not None else []), CONFIRM_HERE]
    params: dict[str, object] = {"ask": {"action": action, "args": args, "reason": reason}}
    return ask(caller, Asking("submit", params, words, confirm=confirm, wait=True))
