"""What a verb has to say, in the one envelope that all verbs share: {ok, status, data, warnings, next}."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from interlock.core.errors import InterlockError
from interlock.interfaces.cli.terminal import visible, visible_json, visible_line
from interlock.interfaces.errors import SUCCEEDED, exit_code_of_error
from interlock.interfaces.messages import say
from interlock.interfaces.resident_words import error_in_words, text_in_words

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

OutputFormat = Literal["table", "json", "yaml"]

SHORT_CHARACTERS = 20
"""A note of so many fits on every terminal, even where each takes two columns."""


@dataclass
class Answer:
    """The answer of a verb.

    Args:
        status: One word for programs: a Run's state, the kind of an error, `proposed`, otherwise `ok`.
        data: JSON-ready; what `--output json` is for.
        exit_code: One of `interfaces.errors.EXIT_CODES`.
        next: Commands or sentences: what to do now.
        warnings: Sentences.
        show: Draws `data` for people; None where it was shown already, or there is nothing to draw.
    """

    status: str = "ok"
    data: object = None
    exit_code: int = SUCCEEDED
    next: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    show: Callable[[Screen], None] | None = None

    def envelope(self) -> dict[str, object]:
        """The shape that programs read; `ok` alone says whether all went well."""
        return {
            "ok": self.exit_code == SUCCEEDED,
            "status": self.status,
            "data": self.data,
            "warnings": self.warnings,
            "next": self.next,
        }


def answer_of_error(error: InterlockError) -> Answer:
    """An error as an answer."""
    return Answer(
        status=error.kind,
        data={"error": error.to_json()},
        exit_code=exit_code_of_error(error.kind),
        next=[error.fix] if error.fix else [],
    )


def write_answer(answer: Answer, output: OutputFormat, *, colour: bool) -> None:
    """Data goes to standard output, prose to standard error."""
    if output == "json":
        sys.stdout.write(json_text(answer.envelope()) + "\n")
        return
    if output == "yaml":
        sys.stdout.write(_yaml_text(answer.envelope()))
        return
    for warning in answer.warnings:
        write_note(warning)
    if answer.show is not None:
        from interlock.interfaces.cli.screen import Screen

        answer.show(Screen(sys.stdout, colour=colour))
    data = answer.data
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, dict):
        said = error_in_words(str(error.get("code")), str(error["message"]))
        write_note(say("{kind}: {said}", kind=_kind_in_words(answer.status), said=said))
        _write_faults(error)
    if answer.next:
        sys.stdout.flush()
        for index, step in enumerate(answer.next):
            write_note(("→ " if index == 0 else "  ") + text_in_words(step), folded=False)


def _kind_in_words(kind: str) -> str:
    words = {
        "invalid": say("invalid"),
        "not_found": say("not found"),
        "denied": say("denied"),
        "conflict": say("conflict"),
        "stale": say("stale"),
        "transient": say("not now"),
        "permanent": say("failed"),
    }
    return words.get(kind, kind)


def _write_faults(error: dict[str, object]) -> None:
    """The further faults of a file that has more than one, or the end of a log."""
    details = error.get("details")
    log = details.get("log") if isinstance(details, dict) else None
    for line in log if isinstance(log, list) else []:
        write_note(f"  {line}", folded=False)
    faults = details.get("faults") if isinstance(details, dict) else None
    for fault in faults[1:] if isinstance(faults, list) else []:
        if isinstance(fault, dict):
            write_note(
                f"  {fault.get('line') or ''}: {fault.get('path') or ''} {fault.get('message')} → {fault.get('fix')}"
            )


def json_text(data: object) -> str:
    """JSON for programs that is safe on a terminal too: what is unseen is escaped, all other text is as it is."""
    return visible_json(json.dumps(data, ensure_ascii=False, indent=2))


def _yaml_text(data: object) -> str:
    """YAML. Its writer knows control characters but no bidirectional marks: with these in it, all is ASCII."""
    import yaml

    text = json.dumps(data, ensure_ascii=False)
    return yaml.safe_dump(data, allow_unicode=visible(text) == text, sort_keys=False, width=100)


def write_note(text: str, *, folded: bool = True) -> None:
    """A line of prose; whatever in it would command the terminal or begin another line is made visible.

    On a terminal a long one is folded as on a `Screen`: the terminal would let it go on at the first column. A command
    to copy is not `folded`.
    """
    if folded and len(text) > SHORT_CHARACTERS and sys.stderr.isatty():
        from interlock.interfaces.cli.screen import Screen

        Screen(sys.stderr, colour=False).line(text)
    else:
        sys.stderr.write(visible_line(text) + "\n")
    sys.stderr.flush()
