"""What a version said last: the end of its own log, redacted and bounded, and the command that shows more."""

from __future__ import annotations

from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.service_runtime import ServiceRuntime, VersionSpec
from interlock.lib.redact import Redactor

LINES = 10
"""So many stand beside a failure; the command shows more."""
LINES_MAX = 1000
"""So many are read, so that a secret of several lines is known by its first; and no more are shown."""
LINE_CHARACTERS_MAX = 200
SENTENCE_CHARACTERS = 200


def log_command(spec: VersionSpec) -> str:
    """What shows more of it."""
    return f"interlock service log {spec.workload} {spec.version}"


def last_lines(text: str, redactor: Redactor, count: int = LINES) -> list[str]:
    """The end of what was said, line by line, without secrets and without what a terminal would obey."""
    lines = [line.rstrip() for line in redactor.redact(text).splitlines()]
    lines = ["".join(each for each in line if each.isprintable() or each == "\t") for line in lines if line]
    return [f"{line[:LINE_CHARACTERS_MAX]}{'…' * (len(line) > LINE_CHARACTERS_MAX)}" for line in lines[-count:]]


def last_words(runtime: ServiceRuntime, spec: VersionSpec, redactor: Redactor) -> list[str]:
    """The last lines of a version's log; where it cannot be read, one line that says why."""
    try:
        return last_lines(runtime.said(spec, LINES_MAX), redactor)
    except InterlockError as error:
        return [f"(its log cannot be read: {error.message})"]


def told(lines: list[str], more: str) -> JsonObject:
    """As the release that asked for it reads it: `said` and the command that shows `more`."""
    return {"said": [*lines], "more": more}


def sentence(lines: list[str]) -> str:
    """The last line, for the reason of a Run; empty where nothing was said."""
    return f"; it said last: {lines[-1][-SENTENCE_CHARACTERS:]}" if lines else ""
