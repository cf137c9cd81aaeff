"""Finds the binary of a program in operator-owned folders only, and refuses one that somebody could have planted."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from interlock.core.errors import Denied, NotFound

LINKS_MAX = 8


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What `lstat` says of a path: `mode` with its type bits, owner, and where it points when it is a link."""

    mode: int
    owner: int
    link: str | None = None


Stat = Callable[[str], FileStatus | None]
"""The port: the status of a path without following links; None when there is nothing."""


def read_status(path: str) -> FileStatus | None:
    """The port as the real file system answers it."""
    try:
        found = Path(path).lstat()
        link = str(Path(path).readlink()) if stat.S_ISLNK(found.st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileStatus(found.st_mode, found.st_uid, link)


def resolve_binary(
    program: str,
    candidates: Iterable[str],
    *,
    owners: frozenset[int] = frozenset({0}),
    status: Stat = read_status,
) -> Path:
    """The real path of the first candidate that exists, proven to be out of everybody else's reach.

    The file, each folder above it, and each link on the way must belong to one of `owners` (root and the operator);
    folders and the file must not be writable by group or others. An unsafe candidate is an answer, not skipped: a
    planted file never makes another one run silently.

    Raises:
        NotFound: No candidate exists.
        Denied: The one that exists could have been planted.
    """
    tried = tuple(candidates)
    for candidate in tried:
        real = _follow(candidate, owners, status)
        if real is not None:
            return Path(real)
    msg = f"{program} is not installed in any folder the operator owns"
    raise NotFound(
        msg,
        code="program.absent",
        fix=f"install {program}, or look for it at {', '.join(tried[:3])}",
        details={"candidates": list(tried)},
    )


def _follow(candidate: str, owners: frozenset[int], status: Stat) -> str | None:
    """Walk a path part by part as the kernel does, checking each; None when it does not exist."""
    parts = list(PurePosixPath(candidate).parts[1:])
    here, links = "/", 0
    _require_safe("/", status("/"), owners)
    while parts:
        part = parts.pop(0)
        if part == "..":
            here = str(PurePosixPath(here).parent)
            continue
        path = f"{here.rstrip('/')}/{part}"
        found = status(path)
        if found is None:
            return None
        _require_safe(path, found, owners)
        if found.link is None:
            here = path
            continue
        links += 1
        if links > LINKS_MAX:
            msg = f"{candidate} leads through more than {LINKS_MAX} links"
            raise Denied(msg, code="program.unsafe", fix="let it point to the binary directly")
        target = PurePosixPath(found.link)
        here = "/" if target.is_absolute() else here
        parts = list(target.parts[1:] if target.is_absolute() else target.parts) + parts
    found = status(here)
    return here if found is not None and stat.S_ISREG(found.mode) and found.mode & 0o111 else None


def _require_safe(path: str, found: FileStatus | None, owners: frozenset[int]) -> None:
    if found is None:
        return
    # In a folder with the sticky bit (/tmp) nobody replaces what another user owns, and each part is checked for that.
    sticky = stat.S_ISDIR(found.mode) and found.mode & stat.S_ISVTX
    loose = found.link is None and found.mode & 0o022 and not sticky
    if found.owner in owners and not loose:
        return
    why = f"it belongs to user {found.owner}" if found.owner not in owners else "group or others may write it"
    msg = f"{path} could have been planted: {why}"
    raise Denied(
        msg,
        code="program.unsafe",
        fix=f"chown root {path}; chmod go-w {path}",
        details={"path": path, "owner": found.owner, "mode": oct(found.mode & 0o7777)},
    )
