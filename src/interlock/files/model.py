"""What a file action is asked with, and which folders it may touch."""

from __future__ import annotations

import base64
import binascii
import difflib
import posixpath
import re
from pathlib import PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from interlock.core.errors import Denied
from interlock.core.model import Frozen
from interlock.core.project import Project
from interlock.core.remote_host import HostName
from interlock.lib.redact import Redactor

ABSENT = "absent"
"""Stands where a digest would, for a file that is not there."""

PATH_CHARACTERS_MAX = 4096
CONTENT_CHARACTERS_MAX = 1024 * 1024
DIFF_LINES_MAX = 400
CONTEXT_LINES = 3
HUNK_BEGINNING = re.compile(r"([-+])([0-9]+)")
COMPARED_LINES_MAX = 2000
"""Of either side, but for what is the same at both ends: the time to compare grows faster than their square."""

DIFF_LINE_CHARACTERS = 300


class _PathArgs(Frozen):
    """Which file, and on which machine."""

    path: str = Field(min_length=1, max_length=PATH_CHARACTERS_MAX)
    folder: str | None = Field(default=None, max_length=PATH_CHARACTERS_MAX)
    host: HostName | None = None

    @model_validator(mode="after")
    def _whole_path_there(self) -> Self:
        if self.host is not None and not (self.path.startswith("/") and self.folder is None):
            msg = "on another machine name the whole path, from the root"
            raise ValueError(msg)
        return self


class RemoveArgs(_PathArgs):
    """`folder` is where a relative path begins. `host` is another machine."""


class WriteArgs(_PathArgs):
    """`content` is text, `content_base64` anything; exactly one of them. `folder` is where a relative path begins.
    `host` is another machine."""

    content: str | None = Field(default=None, max_length=CONTENT_CHARACTERS_MAX)
    content_base64: str | None = Field(default=None, max_length=CONTENT_CHARACTERS_MAX * 2)

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.content is None) == (self.content_base64 is None):
            msg = "give either content or content_base64"
            raise ValueError(msg)
        if self.content_base64 is not None:
            try:
                base64.b64decode(self.content_base64, validate=True)
            except binascii.Error as error:
                msg = f"content_base64 is not base64: {error}"
                raise ValueError(msg) from error
        return self

    @property
    def body(self) -> bytes:
        """The bytes to write."""
        if self.content is not None:
            return self.content.encode()
        return base64.b64decode(self.content_base64 or "")


class RestoreArgs(Frozen):
    """Put back what file `path` held before Run `run` wrote to it."""

    run: int = Field(ge=1)


def absolute(path: str, folder: str | None, project: Project) -> str:
    """The path from the root, still with its links."""
    return posixpath.normpath(posixpath.join(project.folder, folder or ".", path))


def require_root(real_path: str, roots: tuple[str, ...]) -> None:
    """Refuse what lies in none of the folders. Both sides are real paths.

    Raises: Denied.
    """
    if not any(PurePosixPath(real_path).is_relative_to(root) for root in roots):
        listed = ", ".join(roots) or "none is declared"
        msg = f"{real_path} lies outside the folders that may be written ({listed})"
        raise Denied(msg, code="file.outside_roots", fix="declare the folder under roots.write in interlock.yaml")


def preview(path: str, before: bytes | None, after: bytes | None, redactor: Redactor) -> str:
    """A unified diff for people, bounded, without secrets; a sentence where the content is not text."""
    try:
        old = (before or b"").decode().splitlines()
        new = (after or b"").decode().splitlines()
    except UnicodeDecodeError:
        return f"{path}: {len(before or b''):,} bytes of binary content become {len(after or b''):,}"
    lines = _difference(
        old, new, path if before is not None else "/dev/null", path if after is not None else "/dev/null"
    )
    if lines is None:
        return redactor.redact("\n".join(_both(path, old, new)))
    shown = [_cut(line) for line in lines[:DIFF_LINES_MAX]]
    if len(lines) > DIFF_LINES_MAX:
        shown.append(f"... and {len(lines) - DIFF_LINES_MAX} more lines")
    return redactor.redact("\n".join(shown))


def _difference(old: list[str], new: list[str], old_name: str, new_name: str) -> list[str] | None:
    """A unified diff, made of what lies between the same lines at both ends; None where that is too much."""
    head, tail = _same_at_both_ends(old, new)
    if max(len(old), len(new)) - head - tail > COMPARED_LINES_MAX:
        return None
    begin, left = max(0, head - CONTEXT_LINES), max(0, tail - CONTEXT_LINES)
    between = (old[begin : len(old) - left], new[begin : len(new) - left])
    found = difflib.unified_diff(*between, old_name, new_name, lineterm="", n=CONTEXT_LINES)
    return [_moved(line, begin) if line.startswith("@@ ") else line for line in found]


def _moved(hunk: str, lines: int) -> str:
    """The head of a hunk (`@@ -1,4 +1,5 @@`) that begins so many lines further down."""
    return HUNK_BEGINNING.sub(lambda found: f"{found[1]}{int(found[2]) + lines}", hunk)


def _same_at_both_ends(old: list[str], new: list[str]) -> tuple[int, int]:
    """How many lines at the beginning and at the end are the same."""
    shorter = min(len(old), len(new))
    head = next((index for index in range(shorter) if old[index] != new[index]), shorter)
    left = shorter - head
    return head, next((index for index in range(left) if old[-1 - index] != new[-1 - index]), left)


def _both(path: str, old: list[str], new: list[str]) -> list[str]:
    """The beginnings of what goes and what comes, where to tell them apart line by line could take for ever."""
    half = DIFF_LINES_MAX // 2
    shown = [f"{path}: {len(old):,} lines become {len(new):,}, too many to be compared"]
    for mark, lines in (("-", old), ("+", new)):
        shown += [_cut(mark + line) for line in lines[:half]]
        shown += [f"... and {len(lines) - half} more lines"] if len(lines) > half else []
    return shown


def _cut(line: str) -> str:
    """A long line says how much of it is not shown."""
    left = len(line) - DIFF_LINE_CHARACTERS
    return line if left <= 0 else f"{line[:DIFF_LINE_CHARACTERS]} ... and {left} more characters"
