"""The demo's second half: new versions of the shop's service come to real visitors, and the bad ones go back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from interlock.interfaces.cli.demo_visitors import Visitors
from interlock.interfaces.errors import NOTHING_DONE_YET
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.demo import Stage

VERSIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "v1.0": (),
    "v1.1": (("ORDERS_THAT_FAIL = 0", "ORDERS_THAT_FAIL = 5"),),
    "v1.2": (("SECONDS = 0.020", "SECONDS = 0.026"),),
    "v1.3": (('"stock": 12}', '"stock": 12, "currency": "EUR"}'),),
}
"""Each differs from the first by so much."""


def free_address() -> str:
    """Where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def make_versions(folder: Path) -> None:
    """`web/v1.0`, `web/v1.1`, ... from the one service that lies in `web`."""
    first = folder / "web" / "shop.py"
    text = first.read_text(encoding="utf-8")
    for version, changes in VERSIONS.items():
        made = text.replace("VERSION", version, 1)
        for before, after in changes:
            made = made.replace(before, after)
        place = folder / "web" / version
        place.mkdir()
        (place / "shop.py").write_text(made, encoding="utf-8")
    first.unlink()


def end_services(stage: Stage) -> None:
    """What an earlier demo left running goes on without Interlock, until it is told; to take a service from all of its
    users is confirmed twice."""
    if stage.quietly("do", "traffic.forget", "--arg", "workload=web", "--confirm").code == NOTHING_DONE_YET:
        stage.quietly("approve", str(stage.newest_run()), "--yes", "--wait")
    for version in VERSIONS:
        stage.quietly("service", "stop", "web", version, "--confirm")


def tell_what_goes_on(stage: Stage) -> None:
    """Services outlive Interlock, that of a demo too."""
    stage.tell(
        say("The shop's service and its proxy go on, also when Interlock is stopped. To end them, in this folder:")
    )
    stage.tell("$ interlock do traffic.forget --arg workload=web --confirm")
    stage.tell("$ interlock approve N --yes")
    stage.tell("$ interlock service stop web v1.0 --confirm")
    stage.tell(say("N is the number of the Run that the first one names: it is confirmed twice."))


def release_parts() -> tuple[tuple[str, Callable[[Stage], None]], ...]:
    """As the demo tells them, in this order."""
    return (
        (say("Deployed: the shop's service comes up behind a proxy"), _first),
        (say("Rolled back: a version whose orders fail, caught in seconds"), _failing),
        (say("Rolled back: a version that is 30 % slower"), _slower),
        (say("Released: a good version reaches everybody, and nobody notices"), _good),
        (say("Reported: one wrong column of a report is found before anybody reads it"), _report),
    )


def _first(stage: Stage) -> None:
    stage.tell(say("web/ holds four versions of a service. interlock.yaml says how a new one comes to its users."))
    stage.command("deploy", "web", "v1.0", "--confirm", shown=20)


def _failing(stage: Stage) -> None:
    stage.tell(say("In v1.1 every 20th order fails. A shadow sees nothing of it, because orders are never copied."))
    with Visitors(stage.address) as visitors:
        stage.command("deploy", "web", "v1.1", "--confirm", expect=1, shown=20)
    _tell_of(stage, visitors)
    stage.command("release", "report", "web", shown=30)


def _slower(stage: Stage) -> None:
    with Visitors(stage.address) as visitors:
        stage.command("deploy", "web", "v1.2", "--confirm", expect=1, shown=20)
    _tell_of(stage, visitors)


def _good(stage: Stage) -> None:
    with Visitors(stage.address) as visitors:
        stage.command("deploy", "web", "v1.3", "--confirm", shown=20)
    _tell_of(stage, visitors)
    stage.tell(say("The version before stays warm: going back takes a blink, even in a freeze."))
    stage.command("rollback", "web", "--reason", "just to see it")
    stage.command("release", "status", "web", shown=40)


def _report(stage: Stage) -> None:
    month = ("--target-month", "202602")
    stage.tell(say("reports/ holds three versions of a settlement; v1 is the one in force."))
    stage.command("release", "cutover", "settlement", "v1", "--percent", "100", "--confirm")
    stage.command("release", "run", "settlement", *month, "--confirm")
    stage.tell(say("v2 sorts its rows otherwise, which is no fault, and rounds the fees otherwise, which is one."))
    stage.command("release", "shadow", "settlement", "v2", *month, "--confirm", expect=1, shown=30)
    stage.tell(say("v3 rounds as it should. A fifth of all months get it first, always the same ones, then all."))
    stage.command("release", "shadow", "settlement", "v3", *month, "--confirm", shown=30)
    stage.command("release", "cutover", "settlement", "v3", "--percent", "20", "--confirm")
    stage.command("release", "run", "settlement", *month, "--confirm")
    stage.command("release", "cutover", "settlement", "v3", "--percent", "100", "--confirm")
    stage.command("release", "run", "settlement", *month, "--confirm")


def _tell_of(stage: Stage, visitors: Visitors) -> None:
    """What the visitors saw: nothing but what the new version itself failed."""
    failed = visitors.failed()
    by = ", ".join(f"{count} by {version}" for version, count in sorted(failed.items())) or say("none")
    stage.tell(say("Meanwhile {count} real requests came; failed: {by}.", count=f"{visitors.requests:,}", by=by))
