"""The verbs that ask for something: exec, do, retry, undo, freeze and its kin, adopt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.arguments import read_arguments
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_action, complete_run
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.messages import say

app = typer.Typer()

ADOPTED_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+")
"""What the action interlock.adopt takes as a name."""

Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help=say("why, for those who approve and those who read the log"))
]
Key = Annotated[
    str | None, typer.Option(metavar="KEY", help=say("ask only once: the same key and ask is the same Run"))
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0.1, help=say("end it after so many seconds"))
]
Confirm = Annotated[
    str | None,
    typer.Option(metavar="[=DIGEST]", help=say("do it; with a digest only if the plan is still that one")),
]
Wait = Annotated[bool, typer.Option(help=say("stay until it has ended"))]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=say("also say how it ended when all went well"))]
RunNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, autocompletion=complete_run, help=say("the Run's number"))
]


def _words(**options: object) -> list[str]:
    """The options that were given, as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name}"
        if isinstance(value, list):
            words += [word for item in value for word in (option, str(item))]
        elif value is True:
            words.append(option)
        elif value not in {None, False}:
            words += [option, str(value)]
    return words


@verb(
    app,
    "exec",
    summary=say("Run a program through the door."),
    more=say(
        "One program and its arguments; there is no shell. What is known to change nothing and to disclose no secret"
        " runs at once. Anything else shows its plan and asks; without a terminal nothing happens until --confirm."
    ),
    examples=(
        "interlock exec -- df -h",
        'interlock exec --reason "new certificate" -- systemctl reload nginx',
        "interlock exec --confirm=3f9a51c0d2e7 -- systemctl reload nginx",
        "interlock exec --as claude --output json -- docker ps",
    ),
    takes_command=True,
)
def execute(
    caller: Caller,
    argv: Annotated[list[str], typer.Argument(metavar="ARGV", help=say("the program and its arguments"))],
    *,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help=say("on another machine, under its own rules"))
    ] = None,
    reason: Reason = None,
    key: Key = None,
    timeout: Timeout = None,
    confirm: Confirm = None,
    wait: Wait = True,
    verbose: Verbose = False,
) -> Answer:
    """A program by its argument vector; relative paths begin where the caller stands, on another machine at /."""
    args: dict[str, object] = {"argv": argv, "timeout_seconds": timeout}
    args |= {"folder": str(Path.cwd())} if host is None else {"host": host}
    params = _submit("command.exec", args, reason=reason, key=key, timeout=timeout)
    words = ["exec", *_words(host=host, reason=reason, key=key, timeout=timeout), CONFIRM_HERE, "--", *argv]
    return ask(caller, Asking("submit", params, words, confirm=confirm, wait=wait, verbose=verbose))


@verb(
    app,
    "do",
    summary=say("Ask for any action by its name."),
    more=say("A value that reads as JSON is JSON, unless the action wants text there; @FILE takes a file's content."),
    examples=(
        "interlock actions",
        "interlock do file.write --arg path=/srv/site/motd --arg content=@motd.txt",
        "interlock do command.exec --args-file ask.json --confirm",
    ),
)
def do(
    caller: Caller,
    action: Annotated[str, typer.Argument(metavar="ACTION", autocompletion=complete_action)],
    *,
    arg: Annotated[list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help=say("an argument"))] = None,
    args_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=say("all arguments as a JSON or YAML file; - is standard input"))
    ] = None,
    reason: Reason = None,
    key: Key = None,
    timeout: Timeout = None,
    confirm: Confirm = None,
    wait: Wait = True,
    verbose: Verbose = False,
) -> Answer:
    """Any action of the catalogue."""
    args = read_arguments(caller, action, arg or [], args_file)
    words = ["do", action, *_words(arg=arg, reason=reason, key=key, timeout=timeout)]
    words += [*_words(**{"args-file": args_file}), CONFIRM_HERE]
    params = _submit(action, args, reason=reason, key=key, timeout=timeout)
    return ask(caller, Asking("submit", params, words, confirm=confirm, wait=wait, verbose=verbose))


@verb(
    app,
    "retry",
    summary=say("Ask the same again as a new Run, planned anew."),
    examples=("interlock retry 12", 'interlock retry 12 --reason "disk is free again" --confirm'),
)
def retry(
    caller: Caller,
    run: RunNumber,
    *,
    reason: Reason = None,
    key: Key = None,
    confirm: Confirm = None,
    wait: Wait = True,
) -> Answer:
    """Of a Run that did not go well."""
    params: dict[str, object] = {"run": run, "reason": reason, "key": key}
    words = ["retry", str(run), *_words(reason=reason, key=key), CONFIRM_HERE]
    return ask(caller, Asking("retry", params, words, confirm=confirm, wait=wait))


@verb(
    app,
    "undo",
    summary=say("Take back what a Run did, as a Run of its own."),
    examples=("interlock undo 12", 'interlock undo 12 --reason "wrong host" --confirm'),
)
def undo(
    caller: Caller,
    run: RunNumber,
    *,
    reason: Reason = None,
    key: Key = None,
    confirm: Confirm = None,
    wait: Wait = True,
) -> Answer:
    """Of a Run that succeeded."""
    params: dict[str, object] = {"run": run, "reason": reason, "key": key}
    words = ["undo", str(run), *_words(reason=reason, key=key), CONFIRM_HERE]
    return ask(caller, Asking("undo", params, words, confirm=confirm, wait=wait))


@verb(
    app,
    "freeze",
    summary=say("Let nothing change for a while: everything, or what matches a pattern."),
    examples=(
        'interlock freeze --reason "release weekend"',
        'interlock freeze "unit:postgresql*" --minutes 120 --reason "migration"',
    ),
)
def freeze(
    caller: Caller,
    *,
    reason: Annotated[str, typer.Option(help=say("why; those who are stopped will read it"))],
    pattern: Annotated[str, typer.Argument(help=say("KIND:PATTERN, or * for everything"))] = "*",
    minutes: Annotated[int | None, typer.Option(metavar="N", min=1, help=say("lifted by itself after so long"))] = None,
    confirm: Confirm = None,
) -> Answer:
    """`interlock.freeze`."""
    words = ["freeze", pattern, *_words(reason=reason, minutes=minutes)]
    return _order(caller, "interlock.freeze", words, confirm, pattern=pattern, reason=reason, minutes=minutes)


@verb(app, "unfreeze", summary=say("Lift a freeze."), examples=("interlock unfreeze", 'interlock unfreeze "unit:*"'))
def unfreeze(
    caller: Caller,
    pattern: Annotated[str, typer.Argument(help=say("as it was frozen"))] = "*",
    confirm: Confirm = None,
) -> Answer:
    """`interlock.unfreeze`."""
    return _order(caller, "interlock.unfreeze", ["unfreeze", pattern], confirm, pattern=pattern)


@verb(
    app,
    "pause-agents",
    summary=say("Let agents look and change nothing."),
    examples=(
        'interlock pause-agents --reason "something is odd"',
        'interlock pause-agents claude --minutes 30 --reason "wrong host"',
    ),
)
def pause_agents(
    caller: Caller,
    *,
    reason: Annotated[str, typer.Option(help=say("why; those who are stopped will read it"))],
    name: Annotated[str, typer.Argument(help=say("one agent, or * for all"))] = "*",
    minutes: Annotated[int | None, typer.Option(metavar="N", min=1, help=say("lifted by itself after so long"))] = None,
    confirm: Confirm = None,
) -> Answer:
    """`interlock.pause_agents`."""
    words = ["pause-agents", name, *_words(reason=reason, minutes=minutes)]
    return _order(caller, "interlock.pause_agents", words, confirm, name=name, reason=reason, minutes=minutes)


@verb(app, "resume-agents", summary=say("Let agents ask for changes again."), examples=("interlock resume-agents",))
def resume_agents(
    caller: Caller,
    name: Annotated[str, typer.Argument(help=say("as it was paused"))] = "*",
    confirm: Confirm = None,
) -> Answer:
    """`interlock.resume_agents`."""
    return _order(caller, "interlock.resume_agents", ["resume-agents", name], confirm, name=name)


@verb(
    app,
    "adopt",
    summary=say("Make a script a known program, pinned by its content."),
    examples=(
        "interlock adopt /opt/reports/nightly.sh --name report.nightly",
        "interlock adopt ./month.sh --name report.month --argument 'month=[0-9]{6}' --example 'report.month 202602'",
    ),
)
def adopt(
    caller: Caller,
    path: Annotated[Path, typer.Argument(help=say("the script"))],
    *,
    name: Annotated[str, typer.Option(help=say("how it is called through the door: report.nightly"))],
    summary: Annotated[str | None, typer.Option(help=say("what it does, in one line"))] = None,
    argument: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATTERN", help=say("an argument it takes, in order"))
    ] = None,
    example: Annotated[
        list[str] | None, typer.Option(metavar="LINE", help=say("how it is asked for; needed when it takes arguments"))
    ] = None,
    reads_only: Annotated[bool, typer.Option(help=say("it changes nothing"))] = False,
    repeatable: Annotated[bool, typer.Option(help=say("running it twice is as good as once"))] = False,
    reason: Reason = None,
    confirm: Confirm = None,
) -> Answer:
    """`interlock.adopt`."""
    words = ["adopt", str(path), *_words(name=name, summary=summary, argument=argument, example=example)]
    words += [*_words(repeatable=repeatable, **{"reads-only": reads_only, "reason": reason}), CONFIRM_HERE]
    if not ADOPTED_NAME.fullmatch(name):
        msg = f"{name!r} is no name for a script: words of small letters and digits, two at least, parted by dots"
        raise Invalid(
            msg, code="usage", fix=f"--name script.{name}" if ADOPTED_NAME.fullmatch(f"script.{name}") else None
        )
    arguments = dict(item.partition("=")[::2] for item in argument or [])
    args: dict[str, object] = {"path": str(path.absolute()), "name": name, "summary": summary}
    args |= {"arguments": arguments, "examples": example or [], "reads_only": reads_only, "repeatable": repeatable}
    params = _submit("interlock.adopt", args, reason=reason)
    return ask(caller, Asking("submit", params, words, confirm=confirm))


def _order(caller: Caller, action: str, words: list[str], confirm: str | None, **args: object) -> Answer:
    return ask(caller, Asking("submit", _submit(action, args), [*words, CONFIRM_HERE], confirm=confirm))


def _submit(
    action: str,
    args: dict[str, object],
    *,
    reason: str | None = None,
    key: str | None = None,
    timeout: float | None = None,
) -> dict[str, object]:
    given = {name: value for name, value in args.items() if value is not None}
    return {"ask": {"action": action, "args": given, "reason": reason, "key": key, "timeout_seconds": timeout}}
