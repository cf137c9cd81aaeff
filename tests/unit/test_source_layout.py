"""What a version is: the digest of its folder changes with whatever counts, and with nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.adapters import folder_digest as digests
from interlock.adapters.folder_digest import copy_folder, folder_digest, require_links_inside
from interlock.core.errors import Invalid, NotFound
from interlock.core.service_runtime import VersionSpec
from interlock.core.workload import ServiceWorkload, filled, filled_values
from interlock.services.model import PORTS, laid_of, port_order, runs_alike


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "v1"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "web").write_text("#!/bin/sh\n")
    (root / "a").write_text("one")
    (root / "link").symlink_to("a")
    return root


def lead(link: Path, to: str) -> None:
    link.unlink()
    link.symlink_to(to)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "a").write_text("two"),
    "a right to execute": lambda root: (root / "bin" / "web").chmod(0o755),
    "a new file": lambda root: (root / "b").touch(),
    "a new folder": lambda root: (root / "empty").mkdir(),
    "another name": lambda root: (root / "a").rename(root / "c"),
    "a link that leads elsewhere": lambda root: lead(root / "link", "bin"),
    "a history that is not its own": lambda root: (root / "bin" / ".git").mkdir(),
    "a file with the name of a folder that is left out": lambda root: (root / "__pycache__").touch(),
    "a link in the place of a file": lambda root: lead(root / "a", "bin/web"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_counts_changes_the_digest(folder: Path, change: Callable[[Path], object]) -> None:
    before = folder_digest(folder)
    change(folder)
    assert folder_digest(folder) != before


def test_time_place_and_what_python_leaves_behind_do_not_count(folder: Path, tmp_path: Path) -> None:
    before = folder_digest(folder)
    os.utime(folder / "a", (1, 1))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").touch()
    (folder / ".git").mkdir()
    assert folder_digest(folder.rename(tmp_path / "v2")) == before


def test_what_is_too_much_or_strange_or_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        folder_digest(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    with pytest.raises(Invalid) as strange:
        folder_digest(folder)
    assert strange.value.code == "source.strange"
    (folder / "pipe").unlink()
    for name in ("ENTRIES_MAX", "BYTES_MAX"):
        with monkeypatch.context() as patch:
            patch.setattr(digests, name, 3)
            with pytest.raises(Invalid) as large:
                folder_digest(folder)
            assert large.value.code == "source.too_large"


@pytest.mark.parametrize("to", ["/etc/hostname", "../../elsewhere", "../../v2/a"])
def test_a_link_that_leads_out_of_the_folder_is_refused_by_its_path(folder: Path, to: str) -> None:
    (folder / "bin" / "out").symlink_to(to)
    for refuses in (folder_digest, require_links_inside):
        with pytest.raises(Invalid, match="bin/out leads out of the version's folder") as caught:
            refuses(folder)
        assert caught.value.code == "source.link"


def test_a_copy_holds_what_the_digest_is_made_of_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "bin" / "web").chmod(0o6777)
    for name in ("__pycache__", "bin/__pycache__", ".git"):
        (folder / name).mkdir()
        (folder / name / "planted").touch()
    copy = tmp_path / "copy"
    copy_folder(folder, copy)
    assert folder_digest(copy) == folder_digest(folder)
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == ["a", "bin", "bin/web", "link"]
    assert stat.S_IMODE((copy / "bin" / "web").stat().st_mode) == 0o755
    (folder / "a").write_text("two")
    assert (copy / "a").read_text() == "one"


def test_a_copy_is_bounded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENTRIES_MAX", "BYTES_MAX"):
        with monkeypatch.context() as patch:
            patch.setattr(digests, name, 3)
            with pytest.raises(Invalid) as large:
                copy_folder(folder, tmp_path / name)
            assert large.value.code == "source.too_large"


# What is decided without looking.


def declared(**changes: object) -> ServiceWorkload:
    body = {"command": ["web", "{port}"], "source": {"folder": "/srv/{version}"}, "traffic": {"listen": "127.0.0.1:80"}}
    return ServiceWorkload.model_validate({**body, **changes})


def test_places_are_filled_and_one_that_means_nothing_is_refused() -> None:
    assert filled(("a{port}b", "{version}", "{"), {"port": "1", "version": "{port}"}) == ("a1b", "{port}", "{")
    environment = filled_values({"A": '{"port": {port}}', "B": "{none}"}, {"port": "1"})
    assert environment == {"A": '{"port": 1}', "B": "{none}"}
    with pytest.raises(Invalid) as caught:
        filled(("{input}",), {"port": "1"})
    assert "port" in (caught.value.fix or "")


def test_each_version_tries_all_ports_from_one_of_its_own() -> None:
    spec = VersionSpec(workload="web", version="v1", declared=declared(), identity="sha256:0123456", port=1)
    ports = list(port_order(spec))
    assert sorted(ports) == list(PORTS)
    assert list(port_order(spec)) == ports
    assert next(port_order(spec.model_copy(update={"version": "v2"}))) != ports[0]
    assert laid_of(spec) is None


def test_a_version_is_run_in_another_way_by_its_command_and_not_by_how_it_is_released() -> None:
    assert runs_alike(declared(), declared(health={"path": "/live"}))
    assert not runs_alike(declared(), declared(environment={"A": "b"}))
