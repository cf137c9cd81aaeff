"""A protected file is recognised under every name that leads to it, and a swapped link is seen by looking again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.adapters import files
from interlock.adapters.files import FileTargets
from interlock.adapters.mounts import Mount, current_mounts
from interlock.adapters.repositories import RepositoryTargets
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.engine.policy.protected import Patterns

NOTHING: JsonObject = {}


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    """A protected folder with a file in it."""
    folder = tmp_path / "srv" / "db"
    folder.mkdir(parents=True)
    (folder / "data").write_text("rows")
    return folder


@pytest.fixture
def patterns(guarded: Path) -> list[str]:
    return [f"file:{guarded}/**"]


def _resolve(path: Path | str, patterns: list[str]) -> Target:
    (target,) = FileTargets(lambda: patterns).resolve("file", str(path), NOTHING)
    return target


def _is_protected(target: Target, patterns: list[str]) -> bool:
    return Patterns(patterns).match(target) is not None


@pytest.mark.parametrize("alias", ["link", "folder-link/data", "chain", "../tmp-link/db/data", "./srv//db/./data"])
def test_a_protected_file_is_known_behind_links(alias: str, tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "link").symlink_to(guarded / "data")
    (tmp_path / "folder-link").symlink_to("srv/db")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "tmp-link").symlink_to("srv")
    path = f"{inner}/{alias}" if alias.startswith("..") else f"{tmp_path}/{alias}"
    target = _resolve(path, patterns)
    assert target.id == str(guarded / "data")
    assert _is_protected(target, patterns)


def test_a_protected_file_is_known_by_a_hard_link(tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    alias = tmp_path / "harmless.log"
    alias.hardlink_to(guarded / "data")
    target = _resolve(alias, patterns)
    status = alias.stat()
    assert target.id == str(alias)
    assert f"inode:{status.st_dev}:{status.st_ino}" in target.names
    assert _is_protected(target, patterns)


def test_a_hard_link_to_a_protected_file_itself_is_known(tmp_path: Path, guarded: Path) -> None:
    alias = tmp_path / "alias"
    alias.hardlink_to(guarded / "data")
    patterns = [f"file:{guarded}/data"]
    assert _is_protected(_resolve(alias, patterns), patterns)


def test_a_hard_link_among_harmless_files_is_harmless(tmp_path: Path, patterns: list[str]) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert not _is_protected(_resolve(tmp_path / "b", patterns), patterns)


def test_a_guarded_folder_too_large_to_look_through_is_doubt(
    tmp_path: Path, guarded: Path, patterns: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "GUARDED_ENTRIES_MAX", 3)
    for number in range(8):
        (guarded / f"file-{number}").touch()
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert _is_protected(_resolve(tmp_path / "b", patterns), patterns)


def test_looking_through_guarded_folders_ends_in_time(tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    seconds = iter([0.0, *[10.0] * 100])
    (target,) = FileTargets(lambda: patterns, monotonic=lambda: next(seconds)).resolve(
        "file", str(tmp_path / "b"), NOTHING
    )
    assert _is_protected(target, patterns)


def test_a_new_file_has_an_identity_before_it_exists(tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    (tmp_path / "way").symlink_to(guarded)
    target = _resolve(tmp_path / "way" / "new", patterns)
    assert target.id == str(guarded / "new")
    assert _is_protected(target, patterns)


def test_a_dangling_link_is_the_file_it_would_make(tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    (tmp_path / "dangling").symlink_to(guarded / "not-yet")
    assert _resolve(tmp_path / "dangling", patterns).id == str(guarded / "not-yet")


def test_the_name_that_was_asked_for_is_kept(tmp_path: Path, guarded: Path) -> None:
    (tmp_path / "link").symlink_to(guarded / "data")
    assert f"file:{tmp_path}/link" in _resolve(tmp_path / "link", []).names


@pytest.mark.parametrize(
    "path",
    [
        *("/proc/self/root/etc/passwd", "/proc/1/root/etc/passwd", "/proc/1/cwd", "/proc/self/exe", "/proc/self/fd/0"),
        *("/dev/fd/0", "/dev/stdin", "/dev/stdout", "/proc/thread-self/root", "/proc/self/task/1/root/etc", "/dev/fd"),
        *("/proc/999999999/root/etc", "/proc/self/map_files/x", "/proc/self/cwd/../etc/passwd"),
    ],
)
def test_a_way_through_a_process_is_refused(path: str) -> None:
    with pytest.raises(Invalid) as refusal:
        _resolve(path, [])
    assert refusal.value.code == "path.process_link"


def test_a_way_through_a_process_is_refused_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/proc/self/root/etc")
    with pytest.raises(Invalid):
        _resolve(tmp_path / "innocent" / "passwd", [])


def test_a_proc_file_system_elsewhere_is_a_proc_file_system(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "root").symlink_to("/")
    mounts = (*current_mounts(), Mount(str(folder), "/", "0:99", "proc"))
    with pytest.raises(Invalid):
        FileTargets(mounts=lambda: mounts).resolve("file", f"{folder}/1/root/etc", NOTHING)


@pytest.mark.parametrize("path", ["/proc/mounts", "/proc/self/status", "/proc/meminfo", "/proc/1/status"])
def test_what_proc_tells_about_the_machine_stays_readable(path: str) -> None:
    assert _resolve(path, []).id.startswith("/proc/")


@pytest.mark.parametrize(
    "path", ["", "a\0b", "/tmp/\u202etxt.exe", "/tmp/a\nb", "/tmp/\udcff", "relative", "/x" * 3000]
)
def test_what_is_no_readable_path_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        _resolve(path, [])


def test_a_link_to_a_name_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hidden\u200bname").touch()
    (tmp_path / "link").symlink_to(tmp_path / "hidden\u200bname")
    with pytest.raises(Invalid):
        _resolve(tmp_path / "link", [])


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Invalid, match="more than 40 links"):
        _resolve(tmp_path / "a", [])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid):
        _resolve(tmp_path / "file" / "inside", [])


def test_leading_back_out_of_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not there"):
        _resolve(f"{tmp_path}/missing/../srv", [])


def test_a_relative_path_is_relative_to_the_operators_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (target,) = FileTargets().resolve("file", "x/../y", {"folder": str(tmp_path)})
    assert target.id == str(tmp_path / "y")


def test_a_link_swapped_after_the_plan_is_seen_by_resolving_again(
    tmp_path: Path, guarded: Path, patterns: list[str]
) -> None:
    harmless = tmp_path / "harmless"
    harmless.mkdir()
    (harmless / "data").write_text("x")
    (tmp_path / "way").symlink_to(harmless)
    precondition = _resolve(tmp_path / "way" / "data", patterns).model_dump(mode="json")
    assert _resolve(tmp_path / "way" / "data", patterns).model_dump(mode="json") == precondition
    (tmp_path / "way").unlink()
    (tmp_path / "way").symlink_to(guarded)
    again = _resolve(tmp_path / "way" / "data", patterns)
    assert again.model_dump(mode="json") != precondition
    assert _is_protected(again, patterns)


def test_a_file_swapped_for_a_hard_link_is_seen_by_resolving_again(
    tmp_path: Path, guarded: Path, patterns: list[str]
) -> None:
    (tmp_path / "log").write_text("x")
    precondition = _resolve(tmp_path / "log", patterns)
    (tmp_path / "log").unlink()
    (tmp_path / "log").hardlink_to(guarded / "data")
    assert _resolve(tmp_path / "log", patterns) != precondition


def test_a_table_of_mounts_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    def unreadable() -> tuple[Mount, ...]:
        raise OSError(5, "Input/output error")

    with pytest.raises(Transient):
        FileTargets(mounts=unreadable).resolve("file", str(tmp_path), NOTHING)


def test_what_is_mounted_beneath_a_folder_goes_with_it(tmp_path: Path, guarded: Path, patterns: list[str]) -> None:
    """`rm -r` walks into a bind mount."""
    point = tmp_path / "work" / "inner"
    point.mkdir(parents=True)
    mounts = (Mount("/", "/", "1:1", "ext4"), Mount(str(point), str(guarded), "1:1", "ext4"))
    resolver = FileTargets(lambda: patterns, mounts=lambda: mounts)
    (target,) = resolver.resolve("file", str(tmp_path / "work"), NOTHING)
    (inner,) = resolver.pulled_along(target, "file.remove_recursive", NOTHING)
    assert inner.id == str(point)
    assert _is_protected(inner, patterns)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture
def bound(tmp_path: Path, guarded: Path) -> Iterator[Path]:
    """The protected folder, mounted at another place too."""
    point = tmp_path / "elsewhere"
    point.mkdir()
    done = subprocess.run(["/usr/bin/mount", "--bind", guarded, point], capture_output=True, check=False, timeout=10)
    if done.returncode != 0:
        pytest.skip(f"this container may not mount: {done.stderr.decode().strip()}")
    try:
        yield point
    finally:
        subprocess.run(["/usr/bin/umount", point], check=True, timeout=10)


@needs_root
def test_a_protected_folder_is_known_where_it_is_mounted_again(bound: Path, patterns: list[str]) -> None:
    for path in (bound, bound / "data", bound / "new"):
        target = _resolve(path, patterns)
        assert target.id == str(path)
        assert _is_protected(target, patterns)


@needs_root
def test_a_mount_of_a_protected_folder_is_known_even_when_the_table_hides_it(
    bound: Path, guarded: Path, patterns: list[str]
) -> None:
    """The device and inode of a folder on the way are those of the protected one."""
    resolver = FileTargets(lambda: patterns, mounts=lambda: (Mount("/", "/", "1:1", "ext4"),))
    (target,) = resolver.resolve("file", str(bound / "data"), NOTHING)
    assert f"file:{guarded}/data" in target.names


@needs_root
def test_an_ordinary_user_resolves_and_is_refused_where_he_may_not_look(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In a child process, so that this one keeps its rights."""
    script = """
import os, sys
from interlock.adapters.files import FileTargets
from interlock.core.errors import Permanent
FileTargets().resolve("file", "/etc/hostname", {})  # whatever is imported late is imported while it may be read
os.setgid(65534); os.setuid(65534)
FileTargets(lambda: ["file:/root/secret/**"]).resolve("file", "/etc/hostname", {})
try:
    FileTargets().resolve("file", sys.argv[1] + "/inner", {})
except Permanent as error:
    print(error.code)
"""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", script, str(closed / "x")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "path.unreadable", done.stderr


def test_a_repository_is_known_from_any_of_its_folders(tmp_path: Path) -> None:
    top = tmp_path / "app"
    (top / ".git").mkdir(parents=True)
    (top / "src").mkdir()
    (tmp_path / "link").symlink_to(top / "src")
    resolver = RepositoryTargets(FileTargets().resolve)
    (target,) = resolver.resolve("repository", str(tmp_path / "link"), NOTHING)
    assert target.key == f"repository:{top}"
    assert f"file:{top}/.git" in target.names
    assert resolver.pulled_along(target, "repository.pull", NOTHING) == ()


def test_a_worktree_shares_the_history_of_its_repository(tmp_path: Path) -> None:
    kept = tmp_path / "main" / ".git" / "worktrees" / "w"
    kept.mkdir(parents=True)
    (kept / "commondir").write_text("../..\n")
    work = tmp_path / "w"
    work.mkdir()
    (work / ".git").write_text(f"gitdir: {kept}\n")
    resolver = RepositoryTargets(FileTargets().resolve)
    (target,) = resolver.resolve("repository", str(work), NOTHING)
    pulled = resolver.pulled_along(target, "repository.pull", NOTHING)
    assert {found.id for found in pulled} == {str(kept), str(tmp_path / "main" / ".git")}


def test_a_folder_without_history_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        RepositoryTargets(FileTargets().resolve).resolve("repository", str(tmp_path), NOTHING)
