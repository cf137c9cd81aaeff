"""Under which other paths a path can be reached, as the kernel's table of mounts tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNT_INFO = Path("/proc/self/mountinfo")
MOUNT_INFO_BYTES_MAX = 16 * 1024 * 1024

_ESCAPE = re.compile(r"\\([0-7]{3})")
_FIELDS_MIN = 10  # proc_pid_mountinfo(5): six fixed fields, optional ones, a dash, and three more


@dataclass(frozen=True)
class Mount:
    """One mount: the folder `root` of the file system `device` (major:minor) can be reached at `point`.

    `source` is what was mounted, in the file system's own words: mostly the path of a device.
    """

    point: str
    root: str
    device: str
    file_system: str
    source: str = ""


def read_mounts(text: str) -> tuple[Mount, ...]:
    """Parse /proc/PID/mountinfo. Raises ValueError for a line that does not have its form.

    Mounts of things that are no folder of a file system (a namespace, `net:[4026531840]`) are left out.
    """
    found: list[Mount] = []
    for line in text.split("\n"):
        if not line:
            continue
        fields = line.split(" ")
        dash = fields.index("-", 6) if "-" in fields[6:] else 0
        if len(fields) < _FIELDS_MIN or not dash or len(fields) <= dash + 2:
            msg = f"{line!r} is not a line of mountinfo"
            raise ValueError(msg)
        root, point = _unescape(fields[3]).removesuffix("//deleted"), _unescape(fields[4])
        if root.startswith("/") and point.startswith("/"):
            source = _unescape(fields[dash + 2])
            found.append(Mount(point=point, root=root, device=fields[2], file_system=fields[dash + 1], source=source))
    return tuple(found)


def current_mounts() -> tuple[Mount, ...]:
    """The mounts of this process as they stand now. Raises OSError, ValueError."""
    with MOUNT_INFO.open("rb") as file:
        body = file.read(MOUNT_INFO_BYTES_MAX + 1)
    if len(body) > MOUNT_INFO_BYTES_MAX:
        msg = f"mountinfo has more than {MOUNT_INFO_BYTES_MAX} bytes"
        raise ValueError(msg)
    return read_mounts(body.decode("utf-8", "surrogateescape"))


def is_within(path: str, folder: str) -> bool:
    """Whether a normal absolute path is the folder, or lies beneath it."""
    return folder in {path, "/"} or path.startswith(folder + "/")


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that holds a real path: the deepest one, and of several in one place the one on top."""
    best: Mount | None = None
    for mount in mounts:
        if is_within(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def other_paths(path: str, mounts: Sequence[Mount]) -> Iterator[str]:
    """The other paths that lead to the same file or folder, and those of what lies beneath it.

    A bind mount makes `/srv/db` reachable as `/mnt/x`: to change `/mnt/x/a` is to change `/srv/db/a`, and to change
    `/srv` is to change `/mnt/x`. A mount that another one hides counts too: doubt is on the side of refusing.
    """
    holder = mount_of(path, mounts)
    if holder is None:
        return
    inside = _join(holder.root, _rest(path, holder.point))
    for mount in mounts:
        if mount.device != holder.device:
            continue
        if is_within(inside, mount.root):
            found = _join(mount.point, _rest(inside, mount.root))
        elif is_within(mount.root, inside):
            found = mount.point
        else:
            continue
        if found != path and not (found == mount.point and is_within(found, path)):
            yield found


def _rest(path: str, folder: str) -> str:
    return path if folder == "/" else path[len(folder) :]


def _join(folder: str, rest: str) -> str:
    return (folder.rstrip("/") + "/" + rest.lstrip("/")).rstrip("/") or "/"


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
