"""Finds the binary of a program in operator-owned folders only, and refuses one that somebody could have planted."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from interlock.core.errors import Denied, NotFound
from interlock.lib.reach import FileStatus, TooManyLinks, read_status, walk, why_loose

if TYPE_CHECKING:
    from interlock.lib.reach import Stat


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
    """Walk a path part by part as the kernel does, checking each; None when it does not exist or cannot be executed."""
    here, last = "/", None
    try:
        for part, found in walk(candidate, status):
            if found is None:
                return None
            _require_safe(part, found, owners)
            here, last = part, found
    except TooManyLinks as error:
        msg = f"{candidate} leads through too many links"
        raise Denied(msg, code="program.unsafe", fix="let it point to the binary directly") from error
    return here if last is not None and stat.S_ISREG(last.mode) and last.mode & 0o111 else None


def _require_safe(path: str, found: FileStatus, owners: frozenset[int]) -> None:
    why = why_loose(found, owners)
    # In a folder with the sticky bit (/tmp) nobody replaces what another user owns, and each part is checked for that.
    if why is None or (found.is_sticky and found.owner in owners):
        return
    msg = f"{path} could have been planted: {why}"
    raise Denied(
        msg,
        code="program.unsafe",
        fix=f"chown root {path}; chmod go-w {path}",
        details={"path": path, "owner": found.owner, "mode": oct(found.mode & 0o7777)},
    )
