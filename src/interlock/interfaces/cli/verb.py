"""Makes a function into a verb: the options all verbs share, one envelope, one exit code, errors in one place."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from interlock.core.errors import InterlockError
from interlock.interfaces.cli.answer import Answer, OutputFormat, answer_of_error, write_answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.leaving import OutputLost, answer_of_interruption, note_of_lost_output
from interlock.interfaces.errors import FAILED
from interlock.interfaces.messages import say
from interlock.settings import read_settings

BARE_CONFIRM = "current"
"""What `--confirm` without a digest stands for."""


class Verb(NamedTuple):
    """A verb as the reference shows it."""

    name: str
    summary: str
    examples: tuple[str, ...]


VERBS: dict[str, Verb] = {}
"""Every verb of the modules that were imported so far, `policy check` among them."""


def _shared_options() -> dict[str, tuple[Any, Any]]:
    output = typer.Option("--output", "-o", metavar="FORMAT", help=say("table, json or yaml"))
    project = typer.Option(metavar="PATH", help=say("the project: its folder, or its interlock.yaml"))
    asked_as = typer.Option("--as", metavar="AGENT", help=say("act as an agent of yours, who may do less than you"))
    return {
        "output": (Annotated[OutputFormat, output], "table"),
        "project": (Annotated[Path | None, project], None),
        "asked_as": (Annotated[str | None, asked_as], None),
    }


def verb(
    app: typer.Typer,
    name: str,
    *,
    summary: str,
    examples: Sequence[str],
    more: str = "",
    takes_command: bool = False,
    hidden: bool = False,
    group: str = "",
    takes_parameters: bool = False,
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a function of a Caller and its own options as a verb.

    `takes_command`: everything behind the first word that is no option belongs to a command of its own.
    `takes_parameters`: options that this verb does not know are words of its last argument.
    """
    full_name = f"{group} {name}".strip()
    VERBS[full_name] = Verb(full_name, summary, tuple(examples))
    parts = [summary, more, "\b\n" + say("Examples:") + "".join(f"\n  {example}" for example in examples)]
    settings = {"allow_interspersed_args": not takes_command, "max_content_width": 100}
    settings |= {"ignore_unknown_options": True} if takes_parameters else {}

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        own = inspect.signature(function, eval_str=True).parameters
        shared = _shared_options()

        def run(**values: Any) -> int:
            chosen = {key: values.pop(key) for key in shared}
            return perform(Caller(read_settings(), **chosen), lambda caller: function(caller, **values))

        mine = [parameter for key, parameter in own.items() if key != "caller"]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in shared.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*mine, *common)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(
            name,
            help="\n\n".join(part for part in parts if part),
            short_help=summary,
            context_settings=settings,
            hidden=hidden,
        )(run)
        return function

    return register


def verbs(app: typer.Typer, name: str, *, summary: str, examples: Sequence[str]) -> typer.Typer:
    """Verbs that belong together, under one first word."""
    shown = "\b\n" + say("Examples:") + "".join(f"\n  {example}" for example in examples)
    group = typer.Typer(help=f"{summary}\n\n{shown}", short_help=summary, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


def perform(caller: Caller, function: Callable[[Caller], Answer]) -> int:
    """Call a verb, write what it answers, and return the exit code. Raises OutputLost when nobody can be told."""
    try:
        answer = function(caller)
    except InterlockError as error:
        answer = answer_of_error(error)
    except KeyboardInterrupt:
        answer = answer_of_interruption(caller)
    except OutputLost:
        note = note_of_lost_output(caller)
        if note is not None:
            write_note(note)
        raise
    except Exception:  # noqa: BLE001 - a bug of ours is said loudly, in one place
        for line in traceback.format_exc().splitlines():
            write_note(line)
        write_note(say("this is a bug in Interlock; the lines above say where"))
        answer = Answer(status="bug", exit_code=FAILED, data={"error": {"kind": "permanent", "code": "bug"}})
        answer.data = None if caller.table else answer.data
    finally:
        caller.close()
    try:
        write_answer(answer, caller.output, colour=caller.colour)
        sys.stdout.flush()
    except OSError as error:
        raise OutputLost(error) from error
    return answer.exit_code
