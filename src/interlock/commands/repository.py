"""Says who else could write the settings that a program takes from a folder: a git repository, a compose project."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interlock.lib.reach import why_swappable

_SETTINGS = (
    ".env",
    ".gitattributes",
    "compose.override.yaml",
    "compose.override.yml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
)
_OF_GIT = ("HEAD", "config", "config.worktree", "hooks", "info", "info/attributes", "objects", "packed-refs", "refs")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as git itself would find it.

    `top` is the folder that holds `.git` (or the bare repository itself), `places` everything its settings and
    attributes come from. `plain` is false where `.git` leads elsewhere (a file, a link, a shared folder), and where it
    is another account's: git then acts as if there were none, and compares any two files.
    """

    top: str
    places: tuple[str, ...]
    plain: bool


def find_repository(folder: str) -> Repository | None:
    """The repository that git finds from `folder` (a real path) upwards, or None.

    As git does, it does not cross into another file system. A `.git` that is none ends the search: git would look
    further up, where nobody expects it to.
    """
    start = Path(folder)
    if not start.is_dir():
        return None
    device = start.stat().st_dev
    passed: list[str] = []
    for place in (start, *start.parents):
        if place.stat().st_dev != device:
            return None
        passed.append(str(place))
        git = place / ".git"
        if os.path.lexists(git):
            plain = git.is_dir() and not git.is_symlink()
            return _repository(place, git, passed, plain=plain) if not plain or _is_git_folder(git) else None
        if _is_git_folder(place):
            return _repository(place, place, passed, plain=True)
    return None


def _is_git_folder(place: Path) -> bool:
    return os.path.lexists(place / "HEAD") and (place / "objects").is_dir() and (place / "refs").is_dir()


def _repository(top: Path, git: Path, passed: list[str], *, plain: bool) -> Repository:
    settings = [str(Path(place, ".gitattributes")) for place in passed]
    places = (*passed, *settings, str(git), *(str(git / name) for name in _OF_GIT))
    ours = {top.stat().st_uid, git.lstat().st_uid} == {os.geteuid()}
    return Repository(top=str(top), places=places, plain=plain and ours and not os.path.lexists(git / "commondir"))


def settings_at(real: str) -> tuple[str, ...]:
    """What a program reads that is given this folder, or this file and with it the folder it lies in."""
    place = Path(real)
    folder = place if place.is_dir() else place.parent
    return (str(place), str(folder), *(str(folder / name) for name in _SETTINGS))


def is_out_of_reach(folder: str, places: Iterable[str]) -> bool:
    """Whether only root and this account could write these settings or let `folder` (a real path) lead elsewhere.

    What is absent is in the reach of whoever can write the folder it would lie in, which is one of the places itself.
    """
    owners = frozenset({0, os.geteuid()})
    if why_swappable(folder, owners, frozenset({0, os.getegid()})) is not None:
        return False
    for place in places:
        try:
            found = Path(place).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if found.st_uid not in owners or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True
