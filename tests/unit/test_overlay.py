"""An overlay is laid over interlock.yaml: maps merge, lists replace, null removes, and each value keeps its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interlock.core.environment import require_environment
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent
from interlock.engine.environment import record_environment, recorded_environment
from interlock.engine.project_file import environments_of, load_project, read_project

BASE = """\
version: 1
name: shop
people:
  alice: {user: alice, roles: [operator]}
  bob: {user: bob}
protected: ["unit:postgresql*"]
limits: {runs_at_once_max: 4, step_attempts_max: 2}
"""
PROD = """\
preset: strict
people:
  bob: null
  carol:
    user: carol
protected: ["unit:*", "file:/srv/**"]
limits: {runs_at_once_max: 16}
"""


def _project(folder: Path, base: str = BASE, **overlays: str) -> Path:
    (folder / "interlock.yaml").write_text(base)
    for name, text in overlays.items():
        (folder / f"interlock.{name}.yaml").write_text(text)
    return folder


def test_maps_merge_lists_replace_and_null_removes(tmp_path: Path) -> None:
    project = load_project(_project(tmp_path, prod=PROD), "prod")
    assert project.environment == "prod"
    assert project.preset == "strict"
    assert set(project.people) == {"alice", "carol"}
    assert project.protected == ("unit:*", "file:/srv/**")
    assert (project.limits.runs_at_once_max, project.limits.step_attempts_max) == (16, 2)


def test_each_value_keeps_the_file_and_the_line_it_came_from(tmp_path: Path) -> None:
    document = read_project(_project(tmp_path, prod=PROD), "prod").document

    def place(*path: str | int) -> tuple[str, int | None]:
        return Path(document.file_of(path) or "").name, document.line_of(path)

    assert place("name") == ("interlock.yaml", 2)
    assert place("people", "alice", "user") == ("interlock.yaml", 4)
    assert place("people", "carol", "user") == ("interlock.prod.yaml", 5)
    assert place("protected", 1) == ("interlock.prod.yaml", 6)
    assert place("limits", "runs_at_once_max") == ("interlock.prod.yaml", 7)
    assert place("limits", "step_attempts_max") == ("interlock.yaml", 7)
    assert place("people", "bob") == ("interlock.yaml", 3), "what was removed has no place of its own"


def test_without_an_environment_no_overlay_counts(tmp_path: Path) -> None:
    assert load_project(_project(tmp_path, prod=PROD)).preset == "small-team"


def test_the_key_environment_chooses_unless_another_is_asked_for(tmp_path: Path) -> None:
    _project(tmp_path, BASE + "environment: prod\n", prod=PROD, dev="name: play\n")
    assert (load_project(tmp_path).environment, load_project(tmp_path).preset) == ("prod", "strict")
    assert (load_project(tmp_path, "dev").environment, load_project(tmp_path, "dev").name) == ("dev", "play")
    assert environments_of(tmp_path / "interlock.yaml") == ("dev", "prod")


def test_an_environment_without_an_overlay_is_refused_and_the_others_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load_project(_project(tmp_path, prod=PROD), "prd")
    assert caught.value.code == "project.environment"
    assert "prod" in (caught.value.fix or "")


@pytest.mark.parametrize("name", ["../prod", "Prod", "", "a.b", "x" * 33])
def test_a_name_that_is_none_is_refused_before_any_file_is_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="is no name"):
        load_project(_project(tmp_path), name)


def test_a_fault_in_an_overlay_names_its_file_and_line_and_all_faults_are_told(tmp_path: Path) -> None:
    _project(tmp_path, BASE + "windows: [{name: n, form: x}]\n", prod="limits:\n  runs_at_once_max: 0\n")
    with pytest.raises(Invalid) as caught:
        load_project(tmp_path, "prod")
    faults = caught.value.details["faults"]
    assert isinstance(faults, list)
    told = {(Path(fault["file"]).name, fault["line"], fault["path"]) for fault in faults}
    assert ("interlock.prod.yaml", 2, "limits.runs_at_once_max") in told
    assert ("interlock.yaml", 8, "windows[0].from") in told


def test_faults_of_types_and_of_sense_are_told_together(tmp_path: Path) -> None:
    text = "preset: odd\nwindows: [{name: n, from: '10:00', to: '11:00', timezone: Mars/Base}]\n"
    with pytest.raises(Invalid) as caught:
        load_project(_project(tmp_path, text))
    faults = caught.value.details["faults"]
    assert isinstance(faults, list)
    assert [fault["path"] for fault in faults] == ["preset", "windows[0].timezone"]


@pytest.mark.parametrize(
    ("overlay", "path"),
    [("people: {bobb: null}", "people.bobb"), ("version: 1", "version"), ("environment: dev", "environment")],
)
def test_what_an_overlay_cannot_do_is_a_fault(tmp_path: Path, overlay: str, path: str) -> None:
    """A removal with a typing mistake would leave in force what somebody believes to be gone."""
    with pytest.raises(Invalid) as caught:
        load_project(_project(tmp_path, prod=overlay), "prod")
    assert caught.value.details["path"] == path
    assert str(caught.value.details["file"]).endswith("interlock.prod.yaml")


def test_an_overlay_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    _project(tmp_path, prod=PROD)
    (tmp_path / "interlock.prod.yaml").chmod(0o666)
    with pytest.raises(Invalid) as caught:
        load_project(tmp_path, "prod")
    assert caught.value.code == "file.writable"


def test_an_overlay_of_another_account_is_not_trusted(tmp_path: Path) -> None:
    _project(tmp_path, prod=PROD)
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(tmp_path / "interlock.prod.yaml", 65534, 65534)
    with pytest.raises(Invalid) as caught:
        load_project(tmp_path, "prod")
    assert caught.value.code == "file.writable"


def test_the_environment_is_recorded_and_changes_only_for_whoever_starts_it_himself(tmp_path: Path) -> None:
    record = tmp_path / "environment"
    assert record_environment(record, "prod", change=False) == "prod"
    assert recorded_environment(record) == "prod"
    assert record.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict) as caught:
        record_environment(record, "dev", change=False)
    assert caught.value.code == "environment.other"
    assert record_environment(record, None, change=False) == "prod"
    assert record_environment(record, "dev", change=True) == "dev"


def test_an_installation_without_an_environment_does_not_get_one_on_demand(tmp_path: Path) -> None:
    record = tmp_path / "environment"
    assert record_environment(record, None, change=False) is None
    with pytest.raises(Conflict):
        record_environment(record, "dev", change=False)
    with pytest.raises(Invalid):
        record_environment(record, "../x", change=True)
    assert recorded_environment(record) is None


def test_a_damaged_record_is_said_and_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("../../etc\n")
    with pytest.raises(Permanent):
        recorded_environment(tmp_path / "environment")


def test_a_client_asks_for_the_environment_that_runs_or_for_none() -> None:
    require_environment("prod", None)
    require_environment("prod", "prod")
    for running in ("dev", None):
        with pytest.raises(Conflict):
            require_environment(running, "prod")
