"""What a file action is asked with, and which folders it may touch."""

from __future__ import annotations

import base64
import binascii
import difflib
import posixpath
from pathlib import PurePosixPath

from pydantic import Field, model_validator

from interlock.core.errors import Denied
from interlock.core.model import Frozen
from interlock.core.project import Project
from interlock.lib.redact import Redactor

PATH_CHARACTERS_MAX = 4096
CONTENT_CHARACTERS_MAX = 1024 * 1024
DIFF_LINES_MAX = 400
DIFF_LINE_CHARACTERS = 300


class WriteArgs(Frozen):
    """`content` is text, `content_base64` anything; exactly one of them. `folder` is where a relative path begins."""

    path: str = Field(min_length=1, max_length=PATH_CHARACTERS_MAX)
    content: str | None = Field(default=None, max_length=CONTENT_CHARACTERS_MAX)
    content_base64: str | None = Field(default=None, max_length=CONTENT_CHARACTERS_MAX * 2)
    folder: str | None = Field(default=None, max_length=PATH_CHARACTERS_MAX)

    @model_validator(mode="after")
    def _one_content(self) -> WriteArgs:
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
    lines = list(
        difflib.unified_diff(
            old,
            new,
            path if before is not None else "/dev/null",
            path if after is not None else "/dev/null",
            lineterm="",
        )
    )
    shown = [_cut(line) for line in lines[:DIFF_LINES_MAX]]
    if len(lines) > DIFF_LINES_MAX:
        shown.append(f"... and {len(lines) - DIFF_LINES_MAX} more lines")
    return redactor.redact("\n".join(shown))


def _cut(line: str) -> str:
    """A long line says how much of it is not shown."""
    left = len(line) - DIFF_LINE_CHARACTERS
    return line if left <= 0 else f"{line[:DIFF_LINE_CHARACTERS]} ... and {left} more characters"
