"""`interlock check` says what on disk is open to more accounts than it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.engine.inspection import inspect_project
from interlock.engine.project_file import load_project

TEXT = """
version: 1
people: {alice: {}}
protected: ["unit:postgresql*"]
roots: {read: [data], write: [data]}
"""
SECRETIVE = TEXT + "contexts: {psql: {environment: {PGHOST: /run}}}\n"


def _warnings(folder: Path, text: str, *, file_mode: int, root_mode: int) -> list[str]:
    file, root = folder / "interlock.yaml", folder / "data"
    file.write_text(text, encoding="utf-8")
    root.mkdir()
    file.chmod(file_mode)
    root.chmod(root_mode)
    found = inspect_project(load_project(file))
    return [f"{each['area']}: {each['fix']}" for each in found if each["level"] == "warning"]


@pytest.mark.parametrize(
    ("text", "mode", "warned"), [(SECRETIVE, 0o644, True), (SECRETIVE, 0o640, False), (TEXT, 0o644, False)]
)
def test_a_project_file_that_may_hold_secrets_is_not_for_everybody(
    tmp_path: Path, text: str, mode: int, *, warned: bool
) -> None:
    warnings = _warnings(tmp_path, text, file_mode=mode, root_mode=0o755)
    assert warnings == ([f"contexts: chmod o-r {tmp_path}/interlock.yaml"] if warned else [])


def test_a_root_in_which_everybody_may_write_is_told(tmp_path: Path) -> None:
    warnings = _warnings(tmp_path, TEXT, file_mode=0o644, root_mode=0o777)
    assert len(warnings) == 2
    assert all(warning.startswith("roots: chmod o-w ") for warning in warnings)


def test_whoever_is_bound_by_no_codes_where_roles_bind_is_told(tmp_path: Path) -> None:
    people = "people: {alice: {roles: [admin]}, bob: {}, vera: {roles: [viewr]}, lea: {roles: [viewer, lead]}}"
    agents = "agents: {claude: {on_behalf_of: alice}, codex: {roles: [askr]}}\n"
    text = TEXT.replace("people: {alice: {}}", people) + agents
    assert _warnings(tmp_path, text, file_mode=0o644, root_mode=0o755) == []
    (tmp_path / "data").rmdir()
    warnings = _warnings(tmp_path, text + "roles: {}\n", file_mode=0o644, root_mode=0o755)
    assert len(warnings) == 3, "bob, codex and vera"
    assert all(warning.startswith("roles: name one of admin, ") for warning in warnings)
