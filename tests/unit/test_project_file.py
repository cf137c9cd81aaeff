"""interlock.yaml is read as it looks, and a fault is told with file, line, path and what to do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from interlock.core.errors import Invalid, NotFound
from interlock.core.project import Project
from interlock.engine.documented_schema import project_json_schema
from interlock.engine.project_file import load_project, parse_project

FILE = Path("/srv/shop/interlock.yaml")


def _parse(text: str) -> Project:
    return parse_project(text.encode(), FILE)


def _refused(text: str | bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_project(text.encode() if isinstance(text, str) else text, FILE)
    error = caught.value
    assert error.code == "project.invalid"
    assert error.fix
    assert error.message.startswith(str(FILE))
    return error


def test_a_whole_project_is_read() -> None:
    project = _parse("""
version: 1
name: shop
preset: strict
people:
  alice: {user: alice, roles: [operator, sre-lead]}
  bob: {}
agents:
  claude: {user: agent, on_behalf_of: person:alice, autonomy: read}
protected: ["unit:postgresql*", file:data/**, file:/srv/db/**]
roots: {read: [logs, /var/log], write: [.]}
windows:
  - {name: nights, days: [fri], from: 22:30, to: 06:00, timezone: Europe/Berlin}
contexts:
  shop: {folder: app, environment: {LANG: C}}
policies: [policies, /etc/interlock/organisation]
""")
    assert project.folder == "/srv/shop"
    assert project.people["alice"].roles == ("operator", "sre-lead")
    assert project.agents["claude"].on_behalf_of == "alice"
    assert project.windows[0].start == "22:30"
    assert project.protected == ("unit:postgresql*", "file:/srv/shop/data/**", "file:/srv/db/**")
    assert project.roots.read == ("/srv/shop/logs", "/var/log")
    assert project.contexts["shop"].folder == "/srv/shop/app"
    assert project.policies == ("/srv/shop/policies", "/etc/interlock/organisation")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "version: 1\n"])
def test_an_empty_file_is_the_default_project(text: str) -> None:
    assert _parse(text).preset == "small-team"


def test_yaml_1_1_words_and_hours_stay_what_they_look_like() -> None:
    """In YAML 1.1 `no` is false, `on` is true as a key too, and 22:30 is the number 1350."""
    project = _parse(
        "people: {no: {roles: [yes, off]}, on: {}}\nwindows: [{name: n, from: 22:30, to: 08:00, days: [mon]}]\n"
    )
    assert set(project.people) == {"no", "on"}
    assert project.people["no"].roles == ("yes", "off")
    assert project.windows[0].start == "22:30"


@pytest.mark.parametrize(
    ("text", "line", "path", "message", "fix"),
    [
        ("version: 1\nprotcted: []\n", 2, "protcted", "unknown key", "Did you mean `protected`?"),
        ("people:\n  alice:\n    rolse: [a]\n", 3, "people.alice.rolse", "unknown key", "Did you mean `roles`?"),
        ("windows:\n  - {name: n, form: '1'}\n", 2, "windows[0].from", "missing", "Add"),
        ("limits:\n  waiting_per_agent_max: 0\n", 2, "limits.waiting_per_agent_max", "greater than", "Change"),
        ("isolated: yes\n", 1, "isolated", "is text here", "Write true or false"),
        ("name: 3\n", 1, "name", "text is expected", "quotes"),
        ("people:\n  a: {user: null, roles: operator}\n", 2, "people.a.roles", "list is expected", "[a, b]"),
        ("preset: large\n", 1, "preset", "'observe', 'small-team' or 'strict'", "Change"),
        ("protected:\n  - postgresql\n", 2, "protected[0]", "is not KIND:PATTERN", "Change"),
        ("protected: ['file:~/db']\n", 1, "protected[0]", "not expanded", "in full"),
        ("roots:\n  write: [$HOME]\n", 2, "roots.write[0]", "not expanded", "in full"),
        ("folder: /etc\n", 1, "folder", "cannot be set", "Remove"),
        ("windows:\n  - {name: n, from: '25:00', to: '06:00'}\n", 2, "windows[0].from", "pattern", "Change"),
        (
            "windows:\n  - {name: n, from: '05:00', to: '06:00', timezone: Mars/Base}\n",
            2,
            "windows[0].timezone",
            "no timezone 'Mars/Base'",
            "Europe/Berlin",
        ),
        (
            "windows:\n  - {name: n, from: '05:00', to: '06:00', timezone: ../../etc/passwd}\n",
            2,
            "windows[0].timezone",
            "no timezone",
            "UTC",
        ),
        ("agents:\n  claude: {on_behalf_of: alcie}\n", 2, "agents.claude.on_behalf_of", "not among", "people"),
        ("people: {a: {user: x}}\nagents:\n  b: {user: x}\n", 3, "agents.b.user", "already belongs to people.a", "own"),
        ('people: {"a b": {}}\n', 1, "people.a b", "not a name", "letters"),
        ("people: {a: {}}\npeople: {b: {}}\n", 2, "", "given twice, first on line 1", "Remove one"),
        ("a: &x [1]\nb: *x\n", 1, "", "anchors and aliases", "Write the value out"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "", "tags are not read", "Remove the tag"),
        ("a: 1\n---\nb: 2\n", 2, "", "second document", "one document"),
        ("- a\n", 1, "", "mapping of keys", "key: value"),
        ("a: [1\nb: 2\n", 2, "", "not YAML", "Mend the syntax"),
        ("a:\n\tb: 1\n", 2, "", "not YAML", "Mend the syntax"),
        ("? [a]\n: b\n", 1, "", "key must be plain text", "word"),
    ],
)
def test_a_fault_is_told_with_line_path_and_fix(text: str, line: int, path: str, message: str, fix: str) -> None:
    error = _refused(text)
    assert message in error.message
    assert (error.details["line"], error.details["path"]) == (line, path)
    assert fix in str(error.fix)


def test_all_faults_are_told_at_once() -> None:
    error = _refused("nmae: x\npreset: large\npeople: {a: {user: 1}}\n")
    faults = error.details["faults"]
    assert isinstance(faults, list)
    assert sorted(fault["path"] for fault in faults) == ["nmae", "people.a.user", "preset"]
    assert "(and 2 more)" in error.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("name: x\n".encode("utf-16"), id="UTF-16"),
        pytest.param(b"name: caf\xe9\n", id="Latin-1"),
        pytest.param(b"name: a\x00b\n", id="NUL"),
        pytest.param(b"name: " + b"x" * 300_000, id="huge"),
        pytest.param(b"a: " + b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(b"a: " + b"{a: " * 5000 + b"}" * 5000, id="deep mappings"),
        pytest.param(
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c]\n" % ((code, code) + (code - 1,) * 4) for code in b"bcdefghi"),
            id="a bomb of aliases",
        ),
        pytest.param(b"a: " + b"9" * 100_000 + b"\n", id="a huge number"),
    ],
)
def test_what_is_hostile_is_refused_quickly(body: bytes) -> None:
    began = time.process_time()
    _refused(body)
    assert time.process_time() - began < 2.0


def test_a_byte_order_mark_of_utf_8_does_no_harm() -> None:
    assert parse_project(b"\xef\xbb\xbfname: x\n", FILE).name == "x"


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load_project(tmp_path)
    assert caught.value.fix == "interlock init"


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    file.write_text("name: x\n")
    assert load_project(tmp_path).folder == str(tmp_path)
    file.chmod(0o666)
    with pytest.raises(Invalid, match="every user may write") as caught:
        load_project(tmp_path)
    assert caught.value.fix == f"chmod go-w {file}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_account_or_group_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    file.write_text("name: x\n")
    os.chown(file, 4711, 0)
    with pytest.raises(Invalid, match="belongs to user 4711") as caught:
        load_project(tmp_path)
    assert caught.value.fix == f"chown 0 {file}"
    os.chown(file, 0, 4711)
    load_project(tmp_path)
    file.chmod(0o664)
    with pytest.raises(Invalid, match="group 4711 may write it"):
        load_project(tmp_path)


def test_a_file_in_a_folder_where_everybody_may_exchange_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "interlock.yaml").write_text("name: x\n")
    tmp_path.chmod(0o777)
    with pytest.raises(Invalid, match=r"every user may write it, and interlock\.yaml decides") as caught:
        load_project(tmp_path)
    assert caught.value.fix == f"chmod go-w {tmp_path}"
    tmp_path.chmod(0o1777)
    load_project(tmp_path)


def test_a_pipe_or_folder_in_its_place_is_refused_without_waiting(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    os.mkfifo(file)
    with pytest.raises(Invalid, match="not a regular file"):
        load_project(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(NotFound):
        load_project(file)


def test_editors_get_a_schema_without_what_cannot_be_written() -> None:
    schema = project_json_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert "protected" in properties
    assert "folder" not in properties
