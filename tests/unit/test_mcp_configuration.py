"""What `interlock connect` writes: one entry, once, and not a word else in somebody's file."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest

from interlock.core.errors import Conflict, Invalid
from interlock.interfaces.mcp.configuration import PROGRAMS, entry_of, plan_change, write_change

COMMAND = ["/opt/il/bin/interlock", "mcp", "--as", "claude", "--project", '/srv/a "quoted" shop']
JSON, TOML = PROGRAMS["claude"], PROGRAMS["codex"]
OTHERS = """# mine
model = "o9"   # keep this comment

[mcp_servers.other]
command = "npx"
args = ["-y", "thing"]

[mcp_servers.other.env]
TOKEN = "not ours"

[profiles.fast]
model = '''a
[mcp_servers.interlock] is only text here
'''
"""
each_program = pytest.mark.parametrize("name", PROGRAMS)


def _read(program_name: str, path: Path) -> dict[str, object]:
    text = path.read_text()
    found = json.loads(text) if PROGRAMS[program_name].notation == "json" else tomllib.loads(text)
    servers: dict[str, object] = found[PROGRAMS[program_name].section]
    return servers


@each_program
def test_a_missing_file_is_made_private_and_says_how_to_start_us(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    path = tmp_path / "deep" / program.project_file
    entry = entry_of(program, COMMAND, {"INTERLOCK_RUNTIME_FOLDER": "/run/x"})
    assert write_change(plan_change(program, path, entry)) is None
    assert _read(name, path) == {"interlock": entry}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@each_program
def test_the_second_time_changes_nothing(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    path = tmp_path / "file"
    entry = entry_of(program, COMMAND, {})
    write_change(plan_change(program, path, entry))
    again = plan_change(program, path, entry)
    assert not again.needed
    assert not again.difference


def test_other_lines_of_a_toml_file_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(OTHERS)
    path.chmod(0o640)
    backup = write_change(plan_change(TOML, path, entry_of(TOML, COMMAND, {})))
    assert path.read_text().startswith(OTHERS)
    assert backup is not None
    assert backup.read_text() == OTHERS
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(backup.stat().st_mode) == 0o640


def test_our_own_table_is_replaced_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    old = '[mcp_servers.interlock]\ncommand = "old"\n\n[mcp_servers.interlock.env]\nA = "b"\n\n'
    path.write_text("a = 1\n\n" + old + "[z]\nb = 2\n")
    entry = entry_of(TOML, COMMAND, {"X": "y\x7f"})
    write_change(plan_change(TOML, path, entry))
    found = tomllib.loads(path.read_text())
    assert found == {"a": 1, "mcp_servers": {"interlock": entry}, "z": {"b": 2}}
    assert path.read_text().endswith("\n[z]\nb = 2\n")


def test_other_servers_and_the_indent_of_a_json_file_stay(tmp_path: Path) -> None:
    path = tmp_path / ".mcp.json"
    before = {"mcpServers": {"other": {"command": "x", "env": {"TOKEN": "not ours"}}}, "名": [1.5, None]}
    path.write_text(json.dumps(before, indent=4, ensure_ascii=False) + "\n")
    entry = entry_of(JSON, COMMAND, {})
    change = plan_change(JSON, path, entry)
    assert "not ours" not in change.difference
    write_change(change)
    servers = {**before["mcpServers"], "interlock": entry}  # type: ignore[dict-item]
    assert json.loads(path.read_text()) == {**before, "mcpServers": servers}
    assert '\n    "名"' in path.read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("claude", "{ // a comment\n}"),
        ("claude", '{"a": 1, "a": 2}'),
        ("claude", "[]"),
        ("claude", '{"mcpServers": []}'),
        ("claude", "[" * 100_000),
        ("codex", "= nothing"),
        ("codex", 'mcp_servers = { other = { command = "x" } }'),
        ("codex", 'mcp_servers.interlock.command = "dotted"'),
        ("codex", '[mcp_servers]\ninterlock = { command = "inline" }'),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_as_it_is(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(Invalid) as caught:
        plan_change(PROGRAMS[name], path, entry_of(PROGRAMS[name], COMMAND, {}))
    assert caught.value.fix
    assert path.read_text() == text


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(Invalid):
        plan_change(JSON, path, entry_of(JSON, COMMAND, {}))


def test_what_somebody_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{}")
    change = plan_change(JSON, path, entry_of(JSON, COMMAND, {}))
    path.write_text('{"new": 1}')
    with pytest.raises(Conflict):
        write_change(change)
    assert path.read_text() == '{"new": 1}'


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_change(plan_change(JSON, link, entry_of(JSON, COMMAND, {})))
    assert link.is_symlink()
    assert "interlock" in real.read_text()
