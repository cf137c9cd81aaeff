"""Finds embedded clusters of root whose project is gone, and removes one that nobody uses."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from interlock.adapters import postgres_process as process
from interlock.core.errors import Conflict, Permanent

POINTER = "postgresql-cluster"
_IDENTIFIER = re.compile(r"[0-9a-f]{16}")
_REMOVING = ".removing-"


@dataclass(frozen=True)
class OrphanedCluster:
    """A cluster that no state folder names. `origin` is the state folder it was made for, `bytes` what it takes up."""

    folder: Path
    origin: Path
    bytes: int
    running: bool


def find_orphaned_clusters(system_folder: Path) -> list[OrphanedCluster]:
    """Every orphaned cluster, by its id. A cluster without a word about its origin is left out: nobody can judge it."""
    folder = system_folder / "clusters"
    found = []
    for cluster in sorted(folder.iterdir()) if folder.is_dir() else ():
        origin = _origin_of_orphan(cluster)
        if origin is not None:
            found.append(OrphanedCluster(cluster, origin, _size(cluster), running=_is_held(cluster)))
    return found


def remove_orphaned_cluster(folder: Path) -> None:
    """Delete one, after a new look at it. Nothing else than an orphaned cluster that nobody uses is ever deleted.

    Raises:
        Conflict: It belongs to a project after all, or its server runs.
        Permanent: It cannot be deleted.
    """
    if _origin_of_orphan(folder) is None:
        msg = f"{folder} is not an orphaned cluster (any more)"
        raise Conflict(msg, code="cluster.in_use", fix="interlock doctor")
    lock = process.try_lock(folder / "server.lock")
    if lock is None:
        msg = f"a server still runs on {folder}"
        raise Conflict(msg, code="cluster.in_use", fix=f"fuser -v {folder}/server.lock   # shows it; end it first")
    gone = folder.with_name(_REMOVING + folder.name)
    try:
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        msg = f"{gone} cannot be deleted: {error.strerror}"
        raise Permanent(msg, code="cluster.remove", fix=f"rm -r -- {gone}") from error
    finally:
        os.close(lock)


def _origin_of_orphan(cluster: Path) -> Path | None:
    """The state folder that an orphaned cluster was made for; None for everything else."""
    if not _IDENTIFIER.fullmatch(cluster.name) or cluster.is_symlink() or not cluster.is_dir():
        return None
    if cluster.lstat().st_uid != os.geteuid():
        return None
    try:
        origin = Path((cluster / "origin").read_text())
        pointer = origin / POINTER
        named = pointer.read_text().strip().removeprefix("new ") if pointer.exists() else ""
    except (OSError, UnicodeDecodeError):
        return None  # what cannot be read is not judged
    return origin if origin.is_absolute() and named != cluster.name else None


def _is_held(cluster: Path) -> bool:
    lock = cluster / "server.lock"
    if not lock.exists():
        return False
    descriptor = process.try_lock(lock)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
            except FileNotFoundError:
                continue  # a server at work deletes files all the time
    return total
