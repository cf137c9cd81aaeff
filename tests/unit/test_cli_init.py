"""`init` finds what is there, writes a project that loads, and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interlock.core.errors import InterlockError
from interlock.engine.project_file import load_project, parse_project
from interlock.interfaces.cli.app import run
from interlock.interfaces.cli.detect import Database, Found, look_around
from interlock.interfaces.cli.project_text import project_text

COMPOSE = """\
name: shop
x-common: &common {restart: always}
services:
  web: {<<: *common, image: nginx:1.27}
  db:
    image: registry.example/library/postgres:16@sha256:00
    volumes: ["data:/var/lib/postgresql/data", "./init:/docker-entrypoint-initdb.d"]
  cache: {image: "redis:7", container_name: the-cache}
volumes: {data: {}}
"""


def _machine(tmp_path: Path) -> tuple[Path, Path, Path]:
    folder, home, root = tmp_path / "shop", tmp_path / "home", tmp_path / "root"
    for path in (folder, home, root):
        path.mkdir()
    return folder, home, root


def test_an_empty_machine_has_nothing(tmp_path: Path) -> None:
    assert look_around(*_machine(tmp_path)) == Found()


def test_what_a_machine_has_is_found(tmp_path: Path) -> None:
    folder, home, root = _machine(tmp_path)
    for path in ("etc/nginx", "run/systemd/system", "var/lib/postgresql", "var/spool/cron"):
        (root / path).mkdir(parents=True)
    (folder / "CLAUDE.md").touch()
    (home / ".codex").mkdir()
    found = look_around(folder, home, root)
    assert found.nginx
    assert found.systemd
    assert found.cron
    assert found.agents == ("claude", "codex")
    assert [database.name for database in found.databases] == ["PostgreSQL"]


def test_databases_of_a_compose_file_are_found_with_containers_and_volumes(tmp_path: Path) -> None:
    folder, home, root = _machine(tmp_path)
    (folder / "deploy").mkdir()
    (folder / "deploy" / "compose.yaml").write_text(COMPOSE)
    found = look_around(folder, home, root)
    assert found.compose_files == ("deploy/compose.yaml",)
    assert [database.targets for database in found.databases] == [
        ("container:shop-db-*", "volume:shop_data"),
        ("container:the-cache",),
    ]


@pytest.mark.parametrize("text", ["{", "[]", "services: 5", "\x00", "services: {db: {image: 5}}", "a: &a [*a]"])
def test_a_compose_file_that_makes_no_sense_declares_nothing(tmp_path: Path, text: str) -> None:
    folder, home, root = _machine(tmp_path)
    (folder / "compose.yaml").write_text(text)
    found = look_around(folder, home, root)
    assert found.compose_files == ("compose.yaml",)
    assert found.databases == ()


@pytest.mark.parametrize("preset", ["observe", "small-team", "strict"])
@pytest.mark.parametrize("name", ["shop", "42", "yes", "a: b", "x # y", "läden", "it's", '"quoted"', "1.5", "null"])
def test_what_is_written_loads_and_means_what_was_found(tmp_path: Path, preset: str, name: str) -> None:
    found = Found(
        compose_files=("compose.yaml",),
        databases=(Database("db (postgres:16)\n- evil: line", ("container:shop-db-*", "file:/var/lib/mysql/**")),),
        nginx=True,
        agents=("claude",),
    )
    text = project_text(name, "alice", preset, "/srv/my shop", found)
    project = parse_project(text.encode(), tmp_path / "interlock.yaml")
    assert project.name == name
    assert project.preset == preset
    assert project.people["alice"].user == "alice"
    assert project.agents["claude"].on_behalf_of == "alice"
    assert project.protected == ("container:shop-db-*", "file:/var/lib/mysql/**")
    assert project.roots.read == ("/srv/my shop", "/var/log", "/etc/nginx")
    assert project.roots.write == ()


def test_every_commented_line_is_right_when_it_is_uncommented(tmp_path: Path) -> None:
    text = project_text("shop", "alice", "small-team", "/srv/shop", Found())
    lines = text.splitlines()
    keys = ("agents:", "protected:", "windows:", "contexts:", "limits:", "retention:", "  claude:", "  -", "  kubectl:")
    opened = [line.removeprefix("# ") if line.removeprefix("# ").startswith(keys) else line for line in lines]
    opened = [
        line.removeprefix("#") if line.startswith(("#   -", "#   claude", "#   kubectl")) else line for line in opened
    ]
    project = parse_project("\n".join(opened).encode(), tmp_path / "interlock.yaml")
    assert project.agents
    assert project.protected
    assert len(project.windows) == 2
    assert project.contexts
    assert project.retention.bodies_days == 90


def test_init_writes_a_project_its_rules_and_a_line_for_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    assert run(["init", "--project", str(tmp_path), "--yes", "--preset", "strict", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["preset"] == "strict"
    assert load_project(tmp_path).preset == "strict"
    assert (tmp_path / "policies" / "strict.cedar").is_file()
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n/.interlock*/\n"


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("version: 1\n")
    assert run(["init", "--project", str(tmp_path), "--yes"]) == 5
    assert (tmp_path / "interlock.yaml").read_text() == "version: 1\n"
    assert not (tmp_path / "policies").exists()


def test_init_keeps_the_rules_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "own.cedar").write_text("// mine\n")
    assert run(["init", "--project", str(tmp_path), "--yes"]) == 0
    assert [path.name for path in (tmp_path / "policies").iterdir()] == ["own.cedar"]


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert run(["init", "--project", str(tmp_path / "no"), "--yes"]) == 5


def test_errors_of_a_project_name_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "interlock.yaml").write_text("version: 1\npresets: strict\npeeple: {}\n")
    with pytest.raises(InterlockError):
        load_project(tmp_path)
    assert run(["check", "--project", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "interlock.yaml:2" in told
    assert "interlock.yaml:3" in told, "all of them, and not the first alone"
    assert "peeple" in told
