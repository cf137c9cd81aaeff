"""Turns a path into the Git repository it lies in: the working folder at its top, and where its history is kept."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

from interlock.adapters.names import unique
from interlock.core.errors import NotFound, Permanent
from interlock.core.model import JsonObject
from interlock.core.plan import Target

POINTER_BYTES_MAX = 4096


class RepositoryTargets:
    """Git repositories of this machine.

    Args:
        resolve_file: Resolves a path as kind `file` (`FileTargets.resolve`).
    """

    kinds: tuple[str, ...] = ("repository",)

    def __init__(self, resolve_file: Callable[[str, str, JsonObject], tuple[Target, ...]]) -> None:
        self._resolve_file = resolve_file

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """One target. Its id is the real path of the working folder; the Git folders are among its names.

        Raises: Invalid (no path), NotFound (no repository there), Permanent (it may not be read), Transient.
        """
        (place,) = self._resolve_file("file", name, context)
        folder = place.id
        while not self._git_folders(folder):
            if folder == "/":
                msg = f"{place.id} lies in no Git repository"
                raise NotFound(msg, code="repository.unknown", fix="name a folder of the repository")
            folder = posixpath.dirname(folder)
        (top,) = self._resolve_file("file", folder, {})
        names = (*(f"file:{path}" for path in self._git_folders(folder)), *top.names, f"file:{place.id}")
        return (Target(kind="repository", id=folder, names=unique(names)),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """Its Git folders where they lie elsewhere: worktrees and submodules share them with other folders."""
        found = (path for path in self._git_folders(target.id) if not path.startswith(target.id.rstrip("/") + "/"))
        return tuple(self._resolve_file("file", path, {})[0] for path in found)

    def _git_folders(self, folder: str) -> tuple[str, ...]:
        """`.git` or what it points to (gitrepository-layout(5)), and the folder a worktree shares; none without."""
        pointer = Path(folder, ".git")
        try:
            if pointer.is_dir():
                git = str(pointer)
            elif pointer.is_file():
                git = posixpath.join(folder, _first_line(pointer).removeprefix("gitdir:").strip())
            elif Path(folder, "HEAD").is_file() and Path(folder, "objects").is_dir():
                git = folder
            else:
                return ()
            shared = Path(git, "commondir")
            common = posixpath.join(git, _first_line(shared)) if shared.is_file() else git
        except OSError as error:
            msg = f"{folder} may not be read: {error.strerror}"
            raise Permanent(
                msg, code="repository.unreadable", fix="give Interlock's account the right to it"
            ) from error
        return unique(self._resolve_file("file", path, {})[0].id for path in (git, common))


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(POINTER_BYTES_MAX).decode("utf-8", "replace").partition("\n")[0].strip()
