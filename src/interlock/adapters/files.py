"""Turns a path into the file it really is, with every other path that is known to lead to the same file.

What is known: symbolic links on the way, bind mounts, folders with the device and inode of a guarded folder (a file
system that ignores case, say), and hard links to what lies in guarded folders. What cannot be known from here: that a
folder on the way is not replaced after the look. Therefore a plan keeps the resolved identity, and whoever performs it
resolves again and compares (equal Targets, or the effect does not happen), and opens folders one by one without
following links.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from interlock.adapters.mounts import Mount, current_mounts, is_within, mount_of, other_paths
from interlock.adapters.names import require_visible, unique
from interlock.core.errors import Invalid, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target

PATH_CHARACTERS_MAX = 4096
LINKS_MAX = 40
OTHER_PATHS_MAX = 64
MOUNTS_BENEATH_MAX = 256
GUARDED_ENTRIES_MAX = 200_000
GUARDED_SECONDS_MAX = 2.0

_PROCESS_LINKS = frozenset({"root", "cwd", "exe", "fd", "fdinfo", "map_files", "ns"})
_WILDCARDS = frozenset("*?")


class FileTargets:
    """Files and folders, by real path.

    Args:
        guarded: The patterns (`file:/srv/db/**`) whose files must be recognised under any name, asked for anew each
            time: what the project protects, what is Interlock's own, and what policies know as a class.
        mounts: The table of mounts as it stands now.
        monotonic: Seconds, for the bound on looking through guarded folders.
    """

    kinds: tuple[str, ...] = ("file", "path", "folder")

    def __init__(
        self,
        guarded: Callable[[], Iterable[str]] = tuple,
        *,
        mounts: Callable[[], Sequence[Mount]] = current_mounts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guarded = guarded
        self._mounts = mounts
        self._monotonic = monotonic

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """Exactly one target, of kind `file`; nothing needs to be there yet. A relative name needs `folder` in context.

        Raises: Invalid (no path, or one that means another file for each process), Permanent (a folder on the way may
        not be read), Transient (the table of mounts cannot be read).
        """
        require_visible(kind, name, characters_max=PATH_CHARACTERS_MAX)
        asked = _absolute(name, context)
        require_visible(kind, asked, characters_max=PATH_CHARACTERS_MAX)
        mounts = self._current_mounts()
        real = follow(asked, mounts)
        require_visible(kind, real, characters_max=PATH_CHARACTERS_MAX)
        paths = [asked, posixpath.normpath(asked), *self._other_paths(real, mounts)]
        status = _status(real)
        names = [f"file:{path}" for path in unique(paths, besides=real)]
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            names.append(f"inode:{status.st_dev}:{status.st_ino}")
            names += [f"file:{path}" for path in self._hard_links(real, status, mounts)]
        return (Target(kind="file", id=real, names=unique(names)),)

    def paths_of(self, path: str) -> tuple[str, ...]:
        """The real path first, then every other known one: for what other adapters find mounted or running."""
        (target,) = self.resolve("file", path, {})
        return (target.id, *(name.removeprefix("file:") for name in target.names if name.startswith("file:/")))

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """What is mounted beneath a folder: to remove or move the folder is to change that as well.

        Raises: Invalid when more is mounted there than a plan can show.
        """
        mounts = self._current_mounts()
        points = sorted(
            {mount.point for mount in mounts if mount.point != target.id and is_within(mount.point, target.id)}
        )
        if len(points) > MOUNTS_BENEATH_MAX:
            msg = f"{len(points)} mounts lie beneath {target.id}, more than a plan can show"
            raise Invalid(msg, code="file.too_wide", fix="name the folders one by one")
        return tuple(
            Target(
                kind="file",
                id=point,
                names=tuple(f"file:{path}" for path in unique(self._other_paths(point, mounts), besides=point)),
            )
            for point in points
        )

    def _current_mounts(self) -> Sequence[Mount]:
        try:
            return self._mounts()
        except (OSError, ValueError) as error:
            msg = f"the table of mounts cannot be read: {error}"
            raise Transient(msg, code="mounts.unreadable", effect_sent=False) from error

    def _other_paths(self, real: str, mounts: Sequence[Mount]) -> list[str]:
        found = list(unique(other_paths(real, mounts), besides=real))
        if len(found) > OTHER_PATHS_MAX:
            msg = f"{real} is mounted in {len(found)} places, more than a plan can show"
            raise Invalid(msg, code="file.too_wide", fix="name the path inside one of them")
        return found + list(self._same_folders(real))

    def _same_folders(self, real: str) -> Iterator[str]:
        """The path below a guarded folder, where a folder on the way has that folder's device and inode."""
        guarded: dict[tuple[int, int], list[str]] = {}
        for folder in guarded_folders(self._guarded()):
            identity = _guarded_identity(folder)
            if identity is not None:
                guarded.setdefault(identity, []).append(folder)
        for place in _upwards(real) if guarded else ():
            status = _status(place)
            for folder in guarded.get((status.st_dev, status.st_ino), ()) if status is not None else ():
                yield (folder + real[len(place) :]).rstrip("/")

    def _hard_links(self, real: str, status: os.stat_result, mounts: Sequence[Mount]) -> Iterator[str]:
        """Paths in guarded folders that are this very file; the folder itself where it is too large to look through."""
        deadline = self._monotonic() + GUARDED_SECONDS_MAX
        holder = mount_of(real, mounts)
        entries = 0
        for folder in guarded_folders(self._guarded()):
            if is_within(real, folder) or not _shares_device(folder, holder, mounts):
                continue
            for path, identity in _walk(folder):
                entries += 1
                if identity == (status.st_dev, status.st_ino):
                    yield path
                if identity is None or entries > GUARDED_ENTRIES_MAX or self._monotonic() > deadline:
                    yield folder
                    break


def follow(asked: str, mounts: Sequence[Mount] = ()) -> str:
    """The real path behind an absolute one, as the kernel would walk it; missing parts are taken as they are spelled.

    `/proc/self` stays as it is spelled, since it is another process for each reader.

    Raises: Invalid for links of a process (`/proc/1/root`, `/dev/fd/3`), which lead into other processes' views; for
    too many links, and for a way through what is no folder. Permanent where a folder may not be searched.
    """
    pending = deque(asked.split("/"))
    real, links, missing = "", 0, False
    while pending:
        part = pending.popleft()
        if part in {"", "."}:
            continue
        if part == "..":
            if missing:
                msg = f"{asked} leads back out of a folder that is not there"
                raise Invalid(msg, code="path.missing", fix="name the path without ..")
            real = real.rpartition("/")[0]
            continue
        step = f"{real}/{part}"
        _refuse_process_links(step, asked, mounts)
        status = None if missing else _status(step)
        missing = missing or status is None
        if status is None or not stat.S_ISLNK(status.st_mode) or _is_process_self(step, mounts):
            real = step
            continue
        links += 1
        if links > LINKS_MAX:
            msg = f"{asked} leads through more than {LINKS_MAX} links"
            raise Invalid(msg, code="path.links", fix="look at the links with: namei -l PATH")
        leads_to = _link(step)
        real = "" if leads_to.startswith("/") else real
        pending.extendleft(reversed(leads_to.split("/")))
    return real or "/"


def guarded_folders(patterns: Iterable[str]) -> tuple[str, ...]:
    """The part before the first wildcard of each pattern on a path.

    Patterns that may begin anywhere (`file:/**/.ssh`) give nothing: they are matched by name alone.
    """
    found: list[str] = []
    for pattern in patterns:
        rest = pattern.partition(":")[2]
        if not rest.startswith("/"):
            continue
        parts = rest.split("/")
        fixed = next((index for index, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
        folder = posixpath.normpath("/".join(parts[:fixed]) or "/")
        if folder not in {"/", "//"}:
            found.append(folder)
    return unique(found)


def _absolute(name: str, context: JsonObject) -> str:
    if name.startswith("/"):
        return name
    folder = context.get("folder")
    if not isinstance(folder, str) or not folder.startswith("/"):
        msg = f"{name} is relative, and it is not said to which folder"
        raise Invalid(msg, code="path.relative", fix="name the path from / on")
    return f"{folder.rstrip('/')}/{name}"


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError as error:
        msg = f"{path} was replaced while it was looked at"
        raise Transient(msg, code="path.moving", effect_sent=False, fix="ask again") from error


def _guarded_identity(folder: str) -> tuple[int, int] | None:
    """Device and inode; None where nothing is, or where this account may not look and so cannot reach it by that path
    either (by another mount it may, which the table of mounts tells)."""
    try:
        status = Path(folder).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _status(path: str) -> os.stat_result | None:
    """What is there, links not followed; None when nothing is."""
    try:
        return Path(path).lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, NotADirectoryError) or not isinstance(error, PermissionError):
            msg = f"{path} is no path: {error.strerror}"
            raise Invalid(msg, code="path.invalid", fix="check the path") from error
        msg = f"{path} lies in a folder that may not be searched"
        raise Permanent(
            msg, code="path.unreadable", fix="give Interlock's account the right to enter that folder"
        ) from error


def _process_parts(path: str, mounts: Sequence[Mount]) -> list[str]:
    """The components within a process's folder of a proc file system: `/proc/1/fd/3` gives 1, fd, 3."""
    for mount in mounts:
        if mount.file_system == "proc" and path != mount.point and is_within(path, mount.point):
            parts = path[len(mount.point.rstrip("/")) + 1 :].split("/")
            if parts[0].isdigit() or parts[0] in {"self", "thread-self"}:
                return parts
    return []


def _is_process_self(path: str, mounts: Sequence[Mount]) -> bool:
    return len(_process_parts(path, mounts)) == 1


def _refuse_process_links(path: str, asked: str, mounts: Sequence[Mount]) -> None:
    parts = _process_parts(path, mounts)
    inner = parts[3:] if parts[1:2] == ["task"] else parts[1:]
    if inner and inner[0] in _PROCESS_LINKS:
        msg = f"{asked} leads through a process ({path}), where it is another file for each who looks"
        raise Invalid(msg, code="path.process_link", fix="name the file by its own path")


def _upwards(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = posixpath.dirname(path)


def _shares_device(folder: str, holder: Mount | None, mounts: Sequence[Mount]) -> bool:
    """Whether a hard link from the file's file system may lie in a folder."""
    if holder is None:
        return True
    above = mount_of(os.path.realpath(folder), mounts)
    beneath = (mount for mount in mounts if is_within(mount.point, folder))
    return any(mount.device == holder.device for mount in (above, *beneath) if mount is not None)


def _walk(folder: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Every file at or beneath a folder with its device and inode; None where it cannot be read."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.path, _entry_identity(entry)
        except FileNotFoundError:
            continue  # removed while looking: nothing of that name can be changed any more
        except NotADirectoryError:
            yield place, _guarded_identity(place)
        except OSError:
            yield place, None


def _entry_identity(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino
