"""Turns the path of a block device into the device it is, with the folders that lie on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from interlock.adapters.mounts import Mount, current_mounts
from interlock.adapters.names import unique
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target

SYSFS = Path("/sys/dev/block")
STACKED_MAX = 256


class DeviceTargets:
    """Disks, partitions and what is built on them.

    Args:
        resolve_file: Resolves a path as kind `file` (`FileTargets.resolve`).
        mounts: The table of mounts as it stands now.
        sysfs: Where the kernel shows block devices by number.
    """

    kinds: tuple[str, ...] = ("device", "filesystem")

    def __init__(
        self,
        resolve_file: Callable[[str, str, JsonObject], tuple[Target, ...]],
        *,
        mounts: Callable[[], Sequence[Mount]] = current_mounts,
        sysfs: Path = SYSFS,
    ) -> None:
        self._resolve_file = resolve_file
        self._mounts = mounts
        self._sysfs = sysfs

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """One target of kind `device`. Its names hold `mount:PATH` for every folder that lies on it, on a partition of
        it or on what is built upon it (a volume group, an array, a mapped device): to write to it is to change those.

        Raises: Invalid (no block device, a device mounted in too many places), NotFound, Transient.
        """
        (place,) = self._resolve_file("file", name, context)
        try:
            status = Path(place.id).stat()
            mounts = self._mounts()
        except FileNotFoundError:
            msg = f"there is no device {name}"
            raise NotFound(msg, code="device.unknown", fix=f"lsblk (asked for: {kind})") from None
        except (OSError, ValueError) as error:
            msg = f"{name} cannot be looked at: {error}"
            raise Transient(msg, code="device.unreadable", effect_sent=False) from error
        if not stat.S_ISBLK(status.st_mode):
            msg = f"{name} is no block device"
            raise Invalid(msg, code="device.kind", fix="lsblk")
        numbers = frozenset(self._stacked(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"))
        points = (mount.point for mount in mounts if mount.device in numbers or self._number(mount.source) in numbers)
        names = (*place.names, *(f"mount:{point}" for point in points))
        return (Target(kind="device", id=place.id, names=unique(names)),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:  # noqa: ARG002
        """The folders that lie on it, with every other path that leads there. Raises Invalid, Permanent, Transient."""
        points = (name.removeprefix("mount:") for name in target.names if name.startswith("mount:/"))
        return tuple(self._resolve_file("file", point, {})[0] for point in points)

    def _number(self, source: str) -> str:
        """`254:0` for the path of a block device; empty for anything else. A file system may hide its own number."""
        try:
            status = Path(source).stat() if source.startswith("/") else None
        except OSError:
            return ""
        if status is None or not stat.S_ISBLK(status.st_mode):
            return ""
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"

    def _stacked(self, number: str) -> Iterator[str]:
        """The device, its partitions, and what holds any of them. Raises Invalid for more than can be shown."""
        seen = {number}
        waiting = [number]
        while waiting:
            current = waiting.pop()
            yield current
            for path in (*(self._sysfs / current).glob("*/dev"), *(self._sysfs / current).glob("holders/*/dev")):
                further = path.read_text(encoding="ascii").strip()
                if further not in seen:
                    seen.add(further)
                    waiting.append(further)
            if len(seen) > STACKED_MAX:
                msg = f"more than {STACKED_MAX} devices are built on {number}"
                raise Invalid(msg, code="device.too_wide", fix="name a smaller device")
