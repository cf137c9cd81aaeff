"""To write to a disk is to change what is mounted from it, from its partitions, and from what is built on them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from interlock.adapters.devices import DeviceTargets
from interlock.adapters.files import FileTargets
from interlock.adapters.mounts import Mount
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.engine.policy.protected import Patterns

NOTHING: JsonObject = {}
RESOLVE = FileTargets().resolve


def _block_device() -> Path:
    """Any device that this machine has; opening it is not needed."""
    for path in sorted(Path("/dev").iterdir()):
        if stat.S_ISBLK(path.lstat().st_mode):
            return path
    pytest.skip("this machine shows no block device")


@pytest.fixture
def disk() -> tuple[Path, str]:
    path = _block_device()
    number = path.stat().st_rdev
    return path, f"{os.major(number)}:{os.minor(number)}"


def test_a_disk_is_known_by_what_is_mounted_from_it(disk: tuple[Path, str], tmp_path: Path) -> None:
    path, number = disk
    mounts = (Mount("/", "/", "9:9", "ext4"), Mount("/srv/db", "/", number, "ext4", str(path)))
    (target,) = DeviceTargets(RESOLVE, mounts=lambda: mounts, sysfs=tmp_path).resolve("device", str(path), NOTHING)
    assert target.key == f"device:{path}"
    assert target.names == ("mount:/srv/db",)
    assert Patterns(["file:/srv/db/**"]).match(target)
    assert not Patterns(["file:/srv/www/**"]).match(target)


def test_a_file_system_that_hides_its_number_is_known_by_its_source(disk: tuple[Path, str], tmp_path: Path) -> None:
    path, _ = disk
    mounts = (Mount("/srv/db", "/sub", "0:44", "btrfs", str(path)), Mount("/proc", "/", "0:5", "proc", "proc"))
    (target,) = DeviceTargets(RESOLVE, mounts=lambda: mounts, sysfs=tmp_path).resolve("device", str(path), NOTHING)
    assert target.names == ("mount:/srv/db",)


def test_a_disk_carries_its_partitions_and_what_is_built_on_them(disk: tuple[Path, str], tmp_path: Path) -> None:
    path, number = disk
    for place, content in (
        (f"{number}/part1/dev", "77:1"),
        ("77:1/holders/dm-0/dev", "88:0"),
        ("88:0/holders/dm-1/dev", "77:1"),
    ):
        file = tmp_path / place
        file.parent.mkdir(parents=True)
        file.write_text(content + "\n")
    mounts = (Mount("/srv/db", "/", "88:0", "xfs"), Mount("/srv/other", "/", "66:0", "xfs"))
    (target,) = DeviceTargets(RESOLVE, mounts=lambda: mounts, sysfs=tmp_path).resolve("device", str(path), NOTHING)
    assert target.names == ("mount:/srv/db",)


def test_a_link_to_a_device_is_the_device(disk: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "by-label").symlink_to(disk[0])
    (target,) = DeviceTargets(RESOLVE).resolve("device", str(tmp_path / "by-label"), NOTHING)
    assert target.id == str(disk[0])
    assert f"file:{tmp_path}/by-label" in target.names


def test_the_folders_on_a_device_go_with_it(disk: tuple[Path, str], tmp_path: Path) -> None:
    path, number = disk
    devices = DeviceTargets(RESOLVE, mounts=lambda: (Mount(str(tmp_path), "/", number, "ext4"),), sysfs=tmp_path)
    (target,) = devices.resolve("device", str(path), NOTHING)
    (folder,) = devices.pulled_along(target, "disk.format", NOTHING)
    assert folder.key == f"file:{tmp_path}"


def test_what_is_no_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    devices = DeviceTargets(RESOLVE)
    with pytest.raises(Invalid):
        devices.resolve("device", str(tmp_path / "file"), NOTHING)
    with pytest.raises(Invalid):
        devices.resolve("device", "/dev/null", NOTHING)
    with pytest.raises(NotFound):
        devices.resolve("device", "/dev/no-such-disk", NOTHING)


def test_mounts_that_cannot_be_read_are_a_refusal(disk: tuple[Path, str]) -> None:
    def unreadable() -> tuple[Mount, ...]:
        msg = "not a table"
        raise ValueError(msg)

    with pytest.raises(Transient):
        DeviceTargets(RESOLVE, mounts=unreadable).resolve("device", str(disk[0]), NOTHING)
