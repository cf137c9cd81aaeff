"""All verbs: which module has which, so that a verb imports only what it needs."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from interlock.core.errors import InterlockError, Invalid
from interlock.core.trace import TRACE, parse_traceparent
from interlock.interfaces.cli.answer import answer_of_error, write_answer, write_note
from interlock.interfaces.cli.leaving import OutputLost
from interlock.interfaces.cli.verb import BARE_CONFIRM
from interlock.interfaces.errors import FAILED, INTERRUPTED, NOT_READ
from interlock.interfaces.messages import say, set_language
from interlock.settings import read_settings

MODULES: dict[str, tuple[str, ...]] = {
    "verbs_look": ("status", "pending", "log", "show", "output", "why", "actions"),
    "verbs_ask": ("exec", "do", "retry", "undo", "freeze", "unfreeze", "pause-agents", "resume-agents", "adopt"),
    "verbs_decide": ("approve", "deny", "cancel", "resolve"),
    "verbs_hold": ("hold",),
    "verbs_release": ("deploy", "rollback", "release"),
    "verbs_traffic": ("traffic",),
    "verbs_judge": ("judge",),
    "verbs_services": ("service",),
    "verbs_policy": ("policy",),
    "verbs_schedules": ("schedules",),
    "verbs_audit": ("audit", "backup", "restore"),
    "verbs_mcp": ("mcp", "connect", "tools"),
    "verbs_tokens": ("tokens", "actors"),
    "verbs_hosts": ("host", "door"),
    "verbs_config": ("config",),
    "verbs_doctor": ("doctor",),
    "verbs_setup": ("init", "serve", "stop", "check", "demo"),
}
"""Module -> the first words of its verbs."""

GROUPS: tuple[tuple[str, ...], ...] = (
    ("status", "exec", "do", "pending", "approve", "deny", "log", "show", "output", "why", "undo", "retry", "actions"),
    ("deploy", "rollback", "release", "service", "traffic", "judge"),
    ("cancel", "resolve", "hold", "freeze", "unfreeze", "pause-agents", "resume-agents"),
    ("init", "serve", "stop", "check", "doctor", "config", "backup", "restore", "demo"),
    ("policy", "schedules", "adopt", "audit"),
    ("connect", "mcp", "tools", "tokens", "actors", "host", "door"),
)
"""How `interlock --help` lists them."""

_FORMATS = ("json", "yaml", "table")
_SHARED = frozenset({"-o", "--output", "--project", "--as"})
_GROUPS_OF_VERBS = frozenset(
    {"audit", "config", "host", "judge", "policy", "release", "schedules", "service", "tokens"}
)


class Verbs(TyperGroup):
    """The list of verbs in the order and the groups in which people need them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - overrides
        """One section for each group; a verb that is in none would be forgotten, so it comes last."""
        titles = (
            say("Every day"),
            say("New versions"),
            say("When something is wrong"),
            say("Set-up and upkeep"),
            say("Rules, schedules and evidence"),
            say("Ways in, and who may use them"),
        )
        grouped = [[name for name in names if name in self.commands] for names in GROUPS]
        rest = [name for name in self.commands if not any(name in names for names in GROUPS)]
        for title, names in zip((*titles, "…"), (*grouped, rest), strict=True):
            rows = [(name, self.commands[name].get_short_help_str(limit=200)) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def build(verb: str | None = None) -> typer.Typer:
    """The command line; with the name of a verb only the part that has it."""
    app = typer.Typer(
        name="interlock",
        cls=Verbs,
        help=say("One door between whoever wants to change production and production. Without a verb: status."),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def root(version: bool = typer.Option(False, "--version", help=say("show the version"))) -> None:
        """`--version` was answered before anything was imported, unless other words surround it."""
        if version:
            from interlock import __version__

            sys.stdout.write(f"interlock {__version__}\n")
            raise typer.Exit

    chosen = [module for module, verbs in MODULES.items() if verb in verbs] or list(MODULES)
    for module in chosen:
        app.add_typer(import_module(f"interlock.interfaces.cli.{module}").app)
    return app


def run(argv: list[str]) -> int:
    """Parse the words, perform the verb, and return the exit code."""
    settings = read_settings()
    set_language(settings.language)
    TRACE.set(parse_traceparent(settings.traceparent))
    if not _has_output():
        return FAILED
    words = argv if settings.completing else _with_verb(_with_bare_confirm(argv))
    first = next((word for word in words if not word.startswith("-")), None)
    command = typer.main.get_command(build(first))
    try:
        code = command.main(words, prog_name="interlock", standalone_mode=False)
    except typer.TyperException as error:
        return _misused(error, words)
    except typer.Exit as ending:
        return ending.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as ending:
        # The parser ends this way when the reader of a help text has gone; nothing else here does.
        if not isinstance(ending.__context__, BrokenPipeError):
            raise
        return _unheard(ending.__context__)
    except OutputLost as lost:
        return _unheard(lost.error)
    except OSError as error:
        # What a verb itself meets became an answer before: this is about a help text.
        return _unheard(error)
    return code if isinstance(code, int) else 0


def _has_output() -> bool:
    """Whether somebody can hear us; Python has no file at all for a descriptor that was closed."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as we live
    if sys.stdout is None:
        write_note(say("standard output cannot be written: {why}", why=os.strerror(errno.EBADF)))
        return False
    return True


def _unheard(error: OSError) -> int:
    """The end where standard output cannot be written. Whoever closed a pipe has seen enough and is told nothing."""
    _forget_output()
    if isinstance(error, BrokenPipeError):
        return NOT_READ
    write_note(say("standard output cannot be written: {why}", why=error.strerror or error))
    return FAILED


def _forget_output() -> None:
    """Let what is left of the output go nowhere, so that Python does not complain again when it flushes at exit."""
    sys.stdout = sys.__stdout__ or sys.stdout
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_verb(words: list[str]) -> list[str]:
    """`status` where no verb was given, unless something about the command itself is asked.

    The options that all verbs share may stand before the verb as well: they are put behind it, where they are read.
    """
    if words[:1] == ["help"] or (len(words) > 1 and words[0] in {"-h", "--help"}):
        words = [*words[1:], "--help"]  # `help exec`, `--help exec` and `exec --help` are one question
    end = 0
    while end < len(words) and words[end].partition("=")[0] in _SHARED:
        end += 1 if "=" in words[end] else 2
    shared, rest = words[:end], words[end:]
    if not words or (shared and (not rest or rest[0].startswith("-"))):
        return ["status", *words]
    if not shared:
        return words
    place = 2 if rest[0] in _GROUPS_OF_VERBS else 1
    return [*rest[:place], *shared, *rest[place:]]


def _with_bare_confirm(argv: list[str]) -> list[str]:
    """`--confirm` takes its digest behind `=` only; alone it stands for the plan as it is now."""
    end = argv.index("--") if "--" in argv else len(argv)
    words = [f"--confirm={BARE_CONFIRM}" if word == "--confirm" else word for word in argv[:end]]
    return words + argv[end:]


def _misused(error: typer.TyperException, words: list[str]) -> int:
    """Wrong words are answered like every other error, in the format that was asked for."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "interlock"
    message = error.format_message().replace("Value error, ", "")
    invalid: InterlockError = Invalid(message, code="usage", fix=f"{path} --help")
    output = next((form for form in _FORMATS if _asked_for(form, words)), "table")
    answer = answer_of_error(invalid)
    write_answer(answer, "json" if output == "json" else "yaml" if output == "yaml" else "table", colour=False)
    return answer.exit_code


def _asked_for(form: str, words: list[str]) -> bool:
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(
        (word in {"-o", "--output"} and following == form) or word in {f"--output={form}", f"-o{form}"}
        for word, following in pairs
    )
