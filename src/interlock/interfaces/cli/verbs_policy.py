"""The verbs about policy: check, test, explain, replay, apply, reload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.arguments import read_arguments
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_action
from interlock.interfaces.cli.verb import verb, verbs
from interlock.interfaces.cli.verbs_ask import Confirm, Reason, Wait
from interlock.interfaces.errors import FAILED
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()
policy = verbs(
    app,
    "policy",
    summary=say("The rules: check, test, explain, replay, apply, reload."),
    examples=("interlock policy check", "interlock policy replay --since 7d", "interlock policy apply"),
)


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

    bring = "interlock policy apply" if data.flag("pinned") else "interlock policy reload"
    following = [] if data.flag("in_force") or "in_force" not in data else [bring]
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
        screen.line(
            say(
                "in force: configuration {configuration}, policies {policies}",
                configuration=data.text("configuration")[:12],
                policies=data.text("policy_set")[:12],
            )
        )
        changed = ", ".join(data.texts("changed"))
        screen.quiet(
            say("changed in interlock.yaml: {sections}", sections=changed)
            if changed
            else say("interlock.yaml says what it said before")
        )

    return Answer(data=dict(data.data), warnings=data.texts("warnings"), show=show)


@verb(
    policy,
    "replay",
    group="policy",
    summary=say("Decide Runs of the past by policies that are not in force, and list what would have been otherwise."),
    more=say(
        "Nothing is performed or put in force. Exit code 0: every Run would have been answered as it was; 1: some would"
        " not, or nobody can say. What interlock.yaml declares is taken as it was when each Run was asked for."
    ),
    examples=(
        "interlock policy replay",
        "interlock policy replay --since 2026-03-01 --policies ./proposed",
    ),
)
def replay(
    caller: Caller,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help=say("30d, 12h, a date or a moment"))] = "30d",
    until: Annotated[str | None, typer.Option(metavar="TIME", help=say("the same; now where it is left out"))] = None,
    policies: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help=say("its *.cedar files in place of the first folder of policies")),
    ] = None,
) -> Answer:
    """Exit code 1 when an answer differs or cannot be found out."""
    params: dict[str, object] = {"since": since, "until": until}
    if policies is not None:
        params["policies"] = _files(policies)
    data = caller.call("policy_replay", params, patience=say("reading the policies and the Runs"))
    same = data.number("different") == 0 and data.number("unreplayable") == 0

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.show_policy import show_replay

        show_replay(screen, data)

    return Answer(
        status="ok" if same else "different", data=dict(data.data), exit_code=0 if same else FAILED, show=show
    )


@verb(
    policy,
    "apply",
    group="policy",
    summary=say(
        "Put the policies on disk in force, by a Run that is planned, approved, recorded and can be taken back."
    ),
    more=say(
        "From then on they are in force whatever lies on disk, until the next apply. The plan shows every difference;"
        " the decision tables must hold. `interlock undo N` puts the policies before in force again."
    ),
    examples=(
        "interlock policy apply",
        "interlock policy apply --replay 30d --reason 'no restarts by agents'",
        "interlock policy apply --follow",
    ),
)
def apply(
    caller: Caller,
    *,
    since: Annotated[
        str | None, typer.Option("--replay", metavar="TIME", help=say("decide the Runs since then again, for the plan"))
    ] = None,
    number: Annotated[
        int | None, typer.Option("--replay-number", metavar="N", min=1, help=say("a replay that was made already"))
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help=say("from then on, whatever lies on disk at each reload and start"))
    ] = False,
    reason: Reason = None,
    confirm: Confirm = None,
    wait: Wait = True,
) -> Answer:
    """`policy.apply`."""
    if since is not None:
        replayed = caller.call("policy_replay", {"since": since}, patience=say("reading the policies and the Runs"))
        number = replayed.number("id")
    args: dict[str, object] = {"pinned": not follow, **({} if number is None else {"replay": number})}
    words = ["policy", "apply", *(["--follow"] if follow else [])]
    words += ["--replay-number", str(number)] if number is not None else []
    words += ["--reason", reason] if reason is not None else []
    params: dict[str, object] = {"ask": {"action": "policy.apply", "args": args, "reason": reason}}
    return ask(caller, Asking("submit", params, [*words, CONFIRM_HERE], confirm=confirm, wait=wait))


def _files(folder: Path) -> list[list[str]]:
    """Name and text of each policy file, read with the rights of whoever asks. Raises Invalid."""
    try:
        found = [[str(path), path.read_text(encoding="utf-8")] for path in sorted(folder.glob("*.cedar"))]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the policies of {folder} cannot be read: {error}"
        raise Invalid(msg, code="policy.folder", fix="name a folder of *.cedar files that you may read") from error
    if not found:
        msg = f"no *.cedar file lies in {folder}"
        raise Invalid(msg, code="policy.folder", fix="name a folder of *.cedar files")
    return found


def _what(caller: Caller, words: list[str], action: str | None, arg: list[str]) -> dict[str, object]:
    if action is not None:
        return {"ask": {"action": action, "args": read_arguments(caller, action, arg, None)}}
    if len(words) == 1 and words[0].isdecimal():
        return {"run": int(words[0])}
    if words:
        return {"ask": {"action": "command.exec", "args": {"argv": words, "folder": str(Path.cwd())}}}
    msg = "name a Run, a command or an action"
    raise Invalid(msg, code="explain.what", fix="interlock policy explain -- systemctl restart nginx")
