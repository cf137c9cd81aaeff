"""A cluster whose project is gone is found and can be removed; one that anybody may still need is not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from interlock.adapters.postgres_orphans import find_orphaned_clusters, remove_orphaned_cluster
from interlock.core.errors import Conflict

ONE, OTHER = "0123456789abcdef", "fedcba9876543210"


def _cluster(system: Path, name: str, origin: Path, *, named: bool) -> Path:
    folder = system / "clusters" / name
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "base").write_bytes(b"x" * 10_000)
    (folder / "origin").write_text(str(origin))
    if named:
        origin.mkdir(parents=True, exist_ok=True)
        (origin / "postgresql-cluster").write_text(name + "\n")
    return folder


def test_only_a_cluster_that_no_state_folder_names_is_an_orphan(tmp_path: Path) -> None:
    system = tmp_path / "system"
    assert find_orphaned_clusters(system) == []
    mine = _cluster(system, ONE, tmp_path / "project" / ".interlock", named=True)
    gone = _cluster(system, OTHER, tmp_path / "deleted" / ".interlock", named=False)
    (system / "clusters" / "notes").mkdir()
    (system / "clusters" / "0000000000000000").mkdir()
    (system / "clusters" / "1111111111111111").symlink_to(mine)
    (found,) = find_orphaned_clusters(system)
    assert (found.folder, found.running) == (gone, False)
    assert found.bytes >= 10_000
    assert found.origin == tmp_path / "deleted" / ".interlock"


def test_a_first_start_that_is_under_way_is_none(tmp_path: Path) -> None:
    _cluster(tmp_path, ONE, tmp_path / "p", named=True)
    (tmp_path / "p" / "postgresql-cluster").write_text(f"new {ONE}\n")
    assert find_orphaned_clusters(tmp_path) == []


def test_an_orphan_is_removed_and_nothing_else_ever_is(tmp_path: Path) -> None:
    mine = _cluster(tmp_path, ONE, tmp_path / "p", named=True)
    gone = _cluster(tmp_path, OTHER, tmp_path / "deleted", named=False)
    outside = tmp_path / "precious"
    outside.mkdir()
    (gone / "data" / "link").symlink_to(outside)
    (outside / "file").touch()
    remove_orphaned_cluster(gone)
    assert not gone.exists()
    assert (outside / "file").exists(), "a link is removed, and not what it points at"
    for folder in (mine, outside, gone, tmp_path / "clusters"):
        with pytest.raises(Conflict):
            remove_orphaned_cluster(folder)
    assert (mine / "data" / "base").exists()


def test_a_cluster_whose_server_runs_is_listed_and_not_removed(tmp_path: Path) -> None:
    """So it is when a project was moved under its process."""
    folder = _cluster(tmp_path, ONE, tmp_path / "deleted", named=False)
    descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        (found,) = find_orphaned_clusters(tmp_path)
        assert found.running
        with pytest.raises(Conflict) as caught:
            remove_orphaned_cluster(folder)
        assert caught.value.code == "cluster.in_use"
    finally:
        os.close(descriptor)
    assert folder.exists()
