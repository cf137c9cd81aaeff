"""The verbs about other machines: host add, list, check and remove, and the small door on such a machine itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
host = verbs(
    app,
    "host",
    summary=say("Other machines: add, list, check, remove."),
    examples=("interlock host add web1 interlock@web1.example.com", "interlock exec --host web1 -- uptime"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help=say("what the machine is called here"))]


@verb(
    host,
    "add",
    group="host",
    summary=say("Make another machine known, by its host key."),
    more=say("Compare the fingerprints on its own console. What belongs on it is shown afterwards."),
    examples=("interlock host add web1 interlock@web1.example.com", "interlock host add web2 ops@10.0.0.7 --port 2222"),
)
def add(
    caller: Caller,
    name: Name,
    place: Annotated[str, typer.Argument(metavar="USER@ADDRESS", help=say("the account there, and where it is"))],
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help=say("the port of its sshd"))] = 22,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`host.add`. Raises Invalid for what is no USER@ADDRESS."""
    user, at, address = place.partition("@")
    if not (user and at and address):
        msg = f"{place!r} is not USER@ADDRESS"
        raise Invalid(msg, code="usage", fix=f"interlock host add {name} interlock@web1.example.com")
    args: dict[str, object] = {"name": name, "user": user, "address": address, "port": port}
    return _ask(caller, "host.add", args, ["add", name, place, "--port", str(port)], confirm, reason)


@verb(
    host,
    "list",
    group="host",
    summary=say("The machines that are known, and their host keys."),
    examples=("interlock host list", "interlock host list --output json"),
)
def list_hosts(caller: Caller) -> Answer:
    """By name."""
    data = caller.view("hosts")

    def show(screen: Screen) -> None:
        rows = [
            (
                each.text("name"),
                f"{each.text('user')}@{each.text('address')}",
                each.text("port"),
                each.texts("host_keys")[0],
            )
            for each in data.records("hosts")
        ]
        if not rows:
            screen.quiet(say("nothing"))
            return
        screen.rows((say("name"), say("where"), say("port"), say("host key")), rows)

    return Answer(data=dict(data.data), show=show)


@verb(
    host,
    "check",
    group="host",
    summary=say("Ask the door of another machine for something harmless."),
    examples=("interlock host check web1",),
)
def check(caller: Caller, name: Name) -> Answer:
    """`uptime`, over there."""
    params: dict[str, object] = {"ask": {"action": "command.exec", "args": {"argv": ["uptime"], "host": name}}}
    return ask(caller, Asking("submit", params, ["host", "check", name, CONFIRM_HERE], confirm=None, wait=True))


@verb(
    host,
    "remove",
    group="host",
    summary=say("Forget a machine, and destroy the key that opened its door."),
    examples=("interlock host remove web1",),
)
def remove(caller: Caller, name: Name, reason: Reason = None, confirm: Confirm = None) -> Answer:
    """`host.remove`."""
    return _ask(caller, "host.remove", {"name": name}, ["remove", name], confirm, reason)


@verb(
    app,
    "door",
    summary=say("Answer one request of another machine's Interlock: the forced command of its key."),
    more=say("It stands in authorized_keys, and nobody types it."),
    examples=("interlock door --stdio", "interlock door --stdio --policy /etc/interlock/door.yaml"),
)
def door(
    caller: Caller,  # noqa: ARG001 - the shape of every verb
    *,
    stdio: Annotated[bool, typer.Option("--stdio", help=say("on standard input and output"))] = False,
    policy: Annotated[Path | None, typer.Option(metavar="PATH", help=say("what this machine allows"))] = None,
) -> Answer:
    """Raises Invalid without `--stdio`, as somebody would who tries it out."""
    if not stdio:
        msg = "this verb is for sshd"
        raise Invalid(msg, code="usage", fix="interlock door --stdio")
    from interlock.bootstrap.remote_door import POLICY_FILE
    from interlock.interfaces.remote_door import serve

    return Answer(data=None, exit_code=serve(policy or POLICY_FILE))


def _ask(
    caller: Caller, action: str, args: dict[str, object], words: list[str], confirm: str | None, reason: str | None
) -> Answer:
    words = ["host", *words, *(["--reason", reason] if reason is not None else []), CONFIRM_HERE]
    params: dict[str, object] = {"ask": {"action": action, "args": args, "reason": reason}}
    return ask(caller, Asking("submit", params, words, confirm=confirm, wait=True))
