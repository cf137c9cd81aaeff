"""Versions of a repository: which commit a name stands for, in work trees, bare and foreign repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from interlock.adapters.git import Git
from interlock.core.errors import NotFound


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on `main`, tagged `v1` and (with words) `v2`; `both` is a branch and a tag."""
    git(tmp_path, "init", "-q", "-b", "main", "app")
    top = tmp_path / "app"
    for number, words in ((1, ("tag", "v1")), (2, ("tag", "-a", "v2", "-m", "second"))):
        (top / "which").write_text(str(number))
        git(top, "add", ".")
        git(top, "commit", "-qm", str(number))
        git(top, *words)
    git(top, "branch", "both", "v1")
    git(top, "tag", "both", "v2^{commit}")
    return top


def git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def commit_of(folder: Path, name: str) -> str:
    reader = Git(dict)
    return reader.commit_of(reader.stored(str(folder)), name)


def test_a_name_is_a_tag_then_a_branch_then_the_beginning_of_a_commit(repository: Path) -> None:
    first, second = git(repository, "rev-parse", "main~"), git(repository, "rev-parse", "main")
    assert commit_of(repository, "v1") == first
    assert commit_of(repository, "v2") == second
    assert commit_of(repository, "main") == second
    assert commit_of(repository, "both") == second
    assert commit_of(repository, first[:12]) == first
    for name in ("v3", "HEAD", "0123456789ab", "main~"):
        with pytest.raises(NotFound):
            commit_of(repository, name)


def test_a_bare_repository_will_do(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "app.git")
    assert commit_of(tmp_path / "app.git", "v1") == git(repository, "rev-parse", "v1")
    with pytest.raises(NotFound):
        commit_of(tmp_path / "nowhere", "v1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_repository_of_another_account_will_do_and_runs_nothing_of_it(repository: Path) -> None:
    for key in ("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "uploadpack.packObjectsHook"):
        git(repository, "config", key, f"touch {repository}/ran")
    first = git(repository, "rev-parse", "v1")
    (repository / "ran").unlink(missing_ok=True)
    for place in (repository, *repository.rglob("*")):
        os.chown(place, 65534, 65534)
    assert commit_of(repository, "v1") == first
    assert not (repository / "ran").exists()
