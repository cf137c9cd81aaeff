"""The verbs about judges: list and show those of rollouts that others drive, and hold values against thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.errors import FAILED, NOTHING_DONE_YET
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
judge = verbs(
    app,
    "judge",
    summary=say("What judges say of rollouts that Argo Rollouts, Flagger or others drive, and of thresholds."),
    examples=("interlock judge list", "interlock judge show checkout --session 7d9f6c4b58"),
)


@verb(
    judge,
    "list",
    group="judge",
    summary=say("The judges of interlock.yaml, and the rollouts that they are asked about."),
    examples=("interlock judge list", "interlock judge list --output json"),
)
def list_judges(caller: Caller) -> Answer:
    """All of them."""
    data = caller.view("judges")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_judge import show_judges

        show_judges(screen, data)

    return Answer(data=dict(data.data), show=show)


@verb(
    judge,
    "show",
    group="judge",
    summary=say("What a judge says of a rollout, with its evidence; of the newest one where none is named."),
    more=say("Whoever only looks begins nothing, and does not keep a session open."),
    examples=("interlock judge show checkout", "interlock judge show checkout --session 7d9f6c4b58 --output json"),
)
def show_one(
    caller: Caller,
    name: Annotated[str, typer.Argument(metavar="NAME", help=say("the judge's name"))],
    session: Annotated[
        str | None, typer.Option(metavar="SESSION", help=say("the rollout: its pod template hash, or its checksum"))
    ] = None,
) -> Answer:
    """Raises NotFound."""
    if session is not None:
        found = caller.view("judge", judge=name, session=session, purpose="look")
    else:
        sessions = caller.view("judges", judge=name, limit=1).records("sessions")
        if not sessions:
            words = say("nobody has asked {name} about a rollout yet", name=name)
            return Answer(data={"sessions": []}, show=lambda screen: screen.quiet(words))
        found = sessions[0]

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_judge import show_judgement

        show_judgement(screen, found)

    return Answer(data=dict(found.data), show=show)


@verb(
    judge,
    "threshold",
    group="judge",
    summary=say("Hold the values of an endpoint against a file of thresholds, again and again, until one is beyond."),
    more=say(
        "The file has a line for each value, as `p95_seconds: {max: 0.5}`; the endpoint answers JSON or Prometheus "
        "text. Exit code 0: all were inside when last looked; 1: one was beyond; 8: not all were told."
    ),
    examples=(
        "interlock judge threshold thresholds.yaml --url http://127.0.0.1:8080/metrics --every 5 --for 300",
        "interlock judge threshold thresholds.yaml --url http://127.0.0.1:8080/health --for 0 --breaches 1 -o json",
    ),
)
def threshold(
    caller: Caller,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=say("the thresholds, as YAML"))],
    *,
    url: Annotated[str, typer.Option(metavar="URL", help=say("the endpoint that tells the values"))],
    every: Annotated[float, typer.Option(min=0.5, max=3600, help=say("seconds between two looks"))] = 10.0,
    breaches: Annotated[int, typer.Option(min=1, max=100, help=say("how often in a row a value must be beyond"))] = 2,
    for_seconds: Annotated[
        float, typer.Option("--for", min=0, max=7 * 86_400, help=say("how long to watch, in seconds; 0 looks once"))
    ] = 300.0,
) -> Answer:
    """Exit code 1 for a value that was beyond its threshold, 8 where it could not be told."""
    from interlock.interfaces.cli.watch_thresholds import Watching, watch_thresholds

    asked = Watching(str(file), url, every, breaches, for_seconds)
    found = watch_thresholds(asked, notes=caller.table)
    data: dict[str, object] = {
        "breach": found.breach,
        "looks": found.looks,
        "values": dict(found.values),
        "missing": list(found.missing),
    }
    warnings = [found.trouble] if found.trouble is not None else []
    if found.breach is not None:
        words = say("beyond its threshold: {breach}", breach=found.breach)
        return Answer("breach", data, FAILED, warnings=warnings, show=lambda screen: screen.line(words))
    if not found.clear:
        words = say("it cannot be told: {missing}", missing=", ".join(found.missing) or say("not long enough"))
        return Answer("inconclusive", data, NOTHING_DONE_YET, warnings=warnings, show=lambda screen: screen.line(words))
    words = say("all values were inside their thresholds when last looked")
    return Answer("ok", data, warnings=warnings, show=lambda screen: screen.line(words))
