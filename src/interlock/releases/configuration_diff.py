"""What changes in a configuration, as a unified diff that shows no secret and is never long; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from interlock.core.source_layout import SourceFiles
from interlock.lib.redact import Redactor

LINES_MAX = 200
LINE_CHARACTERS_MAX = 200
"""Both bounds together: a plan holds 40 kB of it at most."""


def configuration_diff(before: SourceFiles, after: SourceFiles, redactor: Redactor) -> str:
    """The diff of all files. Secrets are blotted in whole files, so that none hides at the edge of a hunk."""
    lines = [*_lines(before, after, redactor)]
    left_out = before.left_out + after.left_out
    if left_out:
        lines.append(f"({left_out} files are too many or too large to be compared here)")
    if len(lines) > LINES_MAX:
        lines = [*lines[:LINES_MAX], f"({len(lines) - LINES_MAX} more lines)"]
    return "\n".join(line[:LINE_CHARACTERS_MAX] for line in lines)


def _lines(before: SourceFiles, after: SourceFiles, redactor: Redactor) -> Iterator[str]:
    for path in sorted(before.files.keys() | after.files.keys()):
        old, new = before.files.get(path), after.files.get(path)
        if old == new:
            continue
        shown = redactor.redact(path)
        if "\0" in (old or "") + (new or ""):
            yield f"{shown}: changed; it is no text"
            continue
        was, now = (redactor.redact(text or "").splitlines() for text in (old, new))
        if was == now:
            yield f"{shown}: changed only in what is kept secret, or in how its lines end"
            continue
        names = ("/dev/null" if old is None else f"a/{shown}", "/dev/null" if new is None else f"b/{shown}")
        yield from difflib.unified_diff(was, now, *names, lineterm="", n=2)
