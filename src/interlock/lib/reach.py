"""Says who could put something else where a path leads, by walking from / down, part by part, as the kernel does.

The guard runs this too, before each pinned program: so it imports nothing that takes long to load.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Stat = Callable[[str], "FileStatus | None"]
    """The port: the status of a path without following links; None when there is nothing."""

LINKS_MAX = 8
TYPE_MASK, FOLDER, LINK = 0o170000, 0o040000, 0o120000  # inode(7)
STICKY, GROUP_MAY_WRITE, OTHERS_MAY_WRITE = 0o1000, 0o020, 0o002


class FileStatus:
    """What `lstat` says of a path: `mode` with its type bits, owner, group, and where it points when it is a link."""

    __slots__ = ("group", "link", "mode", "owner")

    def __init__(self, mode: int, owner: int, link: str | None = None, group: int = 0) -> None:
        self.mode = mode
        self.owner = owner
        self.link = link
        self.group = group

    @property
    def is_folder(self) -> bool:
        """A directory, not a link to one."""
        return self.mode & TYPE_MASK == FOLDER

    @property
    def is_sticky(self) -> bool:
        """A folder in which nobody replaces what another user owns (/tmp)."""
        return self.is_folder and bool(self.mode & STICKY)


class TooManyLinks(Exception):
    """A path that leads through more links than any operator would lay."""


def read_status(path: str) -> FileStatus | None:
    """The port as the real file system answers it. Raises OSError when it does not."""
    try:
        found = os.lstat(path)
        link = os.readlink(path) if found.st_mode & TYPE_MASK == LINK else None  # noqa: PTH115  pathlib loads slowly
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    return FileStatus(found.st_mode, found.st_uid, link, found.st_gid)


def walk(path: str, status: Stat = read_status) -> Iterator[tuple[str, FileStatus | None]]:
    """Every part that a path leads through, links and what they point to included; the last one is where it ends.

    A part that is not there ends the walk. Raises TooManyLinks.
    """
    here, links = "/", 0
    yield here, status(here)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    while parts:
        part = parts.pop(0)
        if part == "..":
            here = here.rpartition("/")[0] or "/"
            yield here, status(here)
            continue
        there = f"{here.rstrip('/')}/{part}"
        found = status(there)
        yield there, found
        if found is None:
            return
        if found.link is None:
            here = there
            continue
        links += 1
        if links > LINKS_MAX:
            raise TooManyLinks(path)
        here = "/" if found.link.startswith("/") else here
        parts = [name for name in found.link.split("/") if name not in ("", ".")] + parts


def why_loose(found: FileStatus, owners: frozenset[int], groups: frozenset[int] = frozenset()) -> str | None:
    """Why somebody besides `owners` and `groups` could change this file, or what lies in this folder; None: nobody."""
    if found.owner not in owners:
        return f"it belongs to user {found.owner}"
    if found.link is not None:
        return None
    if found.mode & OTHERS_MAY_WRITE:
        return "every user may write it"
    if found.mode & GROUP_MAY_WRITE and found.group not in groups:
        return f"group {found.group} may write it"
    return None


def why_replaceable(path: str, owners: frozenset[int], status: Stat = read_status) -> str | None:
    """Why somebody besides `owners` could put another file where `path` leads, or change it in place; None: nobody."""
    try:
        for part, found in walk(path, status):
            if found is None:
                return f"there is no {part}"
            why = why_loose(found, owners)
            # In a sticky folder each further part is held to its owner anyway.
            if why is not None and not (found.owner in owners and found.is_sticky):
                return f"{part}: {why}"
    except TooManyLinks:
        return f"{path} leads through more than {LINKS_MAX} links"
    return None


def why_swappable(
    real: str, owners: frozenset[int], groups: frozenset[int] = frozenset(), status: Stat = read_status
) -> str | None:
    """Why somebody besides `owners` and `groups` could let a path without links lead elsewhere; None: nobody could.

    Each folder down to the path counts, and the path itself when it is one, because what lies in it is meant too. Who
    owns the file itself does not: its owner can change what it holds, not what lies there. In a sticky folder a part is
    safe when it is there and belongs to an owner.
    """
    sticky: str | None = None
    try:
        for part, found in walk(real, status):
            if sticky is not None and (found is None or found.owner not in owners):
                return sticky
            if found is None:
                return None
            if found.link is not None:
                return f"{part} is a link"
            why = why_loose(found, owners, groups) if found.is_folder else None
            if why is not None and (found.owner not in owners or not found.is_sticky or part == real):
                return f"{part}: {why}"
            sticky = None if why is None else f"{part}: {why}"
    except OSError as error:
        return f"{real} cannot be looked at: {error.strerror}"
    return None
