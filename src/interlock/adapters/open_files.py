"""Whether a process still writes to the file that has a name, and not to one that was renamed or removed meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def has_open(pid: int, path: Path) -> bool:
    """Whether this process has the file open that is found at `path` now. True as well where it cannot be told: the
    process is gone, or another account's."""
    wanted = str(path.resolve())
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names are all that is needed of thousands
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return True
    return any(_target(pid, name) == wanted for name in names)


def _target(pid: int, name: str) -> str:
    """Where a descriptor leads. The kernel tells the name that the file has by now, or that it has none."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - as above
    except (FileNotFoundError, ProcessLookupError):
        return ""
