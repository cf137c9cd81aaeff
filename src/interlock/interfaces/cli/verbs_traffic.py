"""The verb about traffic: which version answers which users now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.record import Record
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()


@verb(
    app,
    "traffic",
    summary=say("Which part of the users each version of a service has, and how many requests it answers now."),
    more=say("To change it: interlock deploy, or by hand interlock do traffic.route."),
    examples=("interlock traffic", "interlock traffic web --output json"),
)
def traffic(
    caller: Caller,
    workload: Annotated[str | None, typer.Argument(metavar="WORKLOAD", help=say("one service only"))] = None,
) -> Answer:
    """All services, or one."""
    data = caller.view("traffic", workload=workload)

    def show(screen: Screen) -> None:
        found = data.records("traffic")
        if not found:
            screen.quiet(say("no services are declared"))
        for each in found:
            _show_one(screen, each)

    return Answer(data=dict(data.data), show=show)


def _show_one(screen: Screen, service: Record) -> None:
    screen.heading(service.text("workload"))
    screen.quiet(" · ".join((service.text("listen"), service.text("proxy"))), indent=2)
    arms = service.records("arms")
    if not arms:
        screen.quiet(say("nobody is answered: no version is routed"), indent=2)
        return
    rows = [
        (
            arm.text("version"),
            f"{arm.text('share_percent').removesuffix('.0')} %",
            arm.text("in_flight") or "?",
            arm.text("address"),
        )
        for arm in arms
    ]
    screen.rows((say("version"), say("users"), say("being answered"), say("where")), rows, indent=2)
    if mirror := service.record("mirror"):
        percent = f"{mirror.number('share') / 100:g}"
        screen.quiet(
            say(
                "{percent} % of safe requests are copied to {address}", percent=percent, address=mirror.text("address")
            ),
            indent=2,
        )
