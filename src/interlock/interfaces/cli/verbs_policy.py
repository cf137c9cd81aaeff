"""The verbs about policy: check, test, explain, reload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.arguments import read_arguments
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_action
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import FAILED
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
policy = typer.Typer(help=say("The rules: check, test, explain, reload."), rich_markup_mode=None)
app.add_typer(policy, name="policy")


@verb(
    policy,
    "check",
    group="policy",
    summary=say("Read the policies on disk, without putting them in force, and list them."),
    examples=("interlock policy check",),
)
def check(caller: Caller) -> Answer:
    """Raises what is wrong with them, with file and line."""
    data = caller.call("policy_check")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_policy import show_policies

        show_policies(screen, data)

    following = [] if data.flag("in_force") or "in_force" not in data else ["interlock policy reload"]
    return Answer(data=dict(data.data), warnings=data.texts("problems"), next=following, show=show)


@verb(
    policy,
    "test",
    group="policy",
    summary=say("Run the decision tables that lie beside the policies."),
    more=say("A table is a YAML file in policies/tests: who asks for what, and what has to come out."),
    examples=("interlock policy test",),
)
def test(caller: Caller) -> Answer:
    """Exit code 1 when a line of a table is not kept."""
    data = caller.call("policy_test", patience=say("running the decision tables"))
    failed = data.records("failed")

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_policy import show_tables

        show_tables(screen, data)

    return Answer(
        status="failed" if failed else "ok", data=dict(data.data), exit_code=FAILED if failed else 0, show=show
    )


@verb(
    policy,
    "explain",
    group="policy",
    summary=say("Which policies decide an ask or decided a Run, and what would change the answer."),
    more=say("Nothing is performed."),
    examples=(
        "interlock policy explain 12",
        "interlock policy explain --as claude -- systemctl restart postgresql@15-main",
        "interlock policy explain --action file.write --arg path=/etc/motd --arg content=hi",
    ),
)
def explain(
    caller: Caller,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="N|ARGV", help=say("a Run's number, or a command"))
    ] = None,
    *,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", autocompletion=complete_action, help=say("any action"))
    ] = None,
    arg: Annotated[list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help=say("an argument"))] = None,
) -> Answer:
    """Of a Run or of an ask."""
    data = caller.call("policy_explain", _what(caller, words or [], action, arg or []))
    explanation = data.record("explanation") or data

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_policy import show_explanation

        show_explanation(screen, explanation)

    return Answer(status=explanation.text("outcome") or "ok", data=dict(explanation.data), show=show)


@verb(
    policy,
    "reload",
    group="policy",
    summary=say("Put what is on disk in force; what is not sound leaves everything as it was."),
    examples=("interlock policy reload",),
)
def reload(caller: Caller) -> Answer:
    """interlock.yaml and the policies."""
    data = caller.call("reload")

    def show(screen: Screen) -> None:
        screen.line(say("in force: {policy_set}", policy_set=data.text("policy_set")[:12]))

    return Answer(data=dict(data.data), warnings=data.texts("warnings"), show=show)


def _what(caller: Caller, words: list[str], action: str | None, arg: list[str]) -> dict[str, object]:
    if action is not None:
        return {"ask": {"action": action, "args": read_arguments(caller, action, arg, None)}}
    if len(words) == 1 and words[0].isdecimal():
        return {"run": int(words[0])}
    if words:
        return {"ask": {"action": "command.exec", "args": {"argv": words, "folder": str(Path.cwd())}}}
    msg = "name a Run, a command or an action"
    raise Invalid(msg, code="explain.what", fix="interlock policy explain -- systemctl restart nginx")
