"""What is configured can be explained, shown with its origin, compared, and described for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from interlock.commands.schema import parse_yaml
from interlock.core.errors import Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.engine.configuration import HIDDEN, Configuration, drift, explain, show, shown_values
from interlock.engine.documented_schema import keys_of, project_json_schema
from interlock.engine.project_file import read_base, read_project
from interlock.interfaces.schemas import SCHEMAS
from interlock.lib.strict_yaml import read_yaml

SOURCE = Path(__file__).resolve().parents[2] / "src" / "interlock"
BASE = """\
name: shop
people: {a.b: {user: root}}
limits: {runs_at_once_max: 4}
databases:
  shop: {url: "postgresql://db/shop", read_user: reader, read_credential: "file:/etc/interlock/shop"}
contexts: {kubectl: {environment: {TOKEN: first-value}}}
"""
PROD = """\
limits: {runs_at_once_max: 16}
contexts: {kubectl: {environment: {TOKEN: other-value}}}
databases: {shop: {read_credential: "file:/etc/interlock/shop-prod"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "interlock.yaml").write_text(BASE)
    (tmp_path / "interlock.prod.yaml").write_text(PROD)
    return tmp_path


def _prod(folder: Path) -> Configuration:
    return Configuration(read_project(folder, "prod"), "option")


def _base(folder: Path) -> Configuration:
    return Configuration(read_base(folder), None)


def test_a_key_is_explained_with_value_origin_meaning_and_bounds(folder: Path) -> None:
    told = explain(_prod(folder), "limits.runs_at_once_max")
    assert told["value"] == 16
    assert (told["source"], told["line"]) == ("overlay", 1)
    assert str(told["file"]).endswith("interlock.prod.yaml")
    assert told["meaning"] == "How many Runs are performed at the same time."
    assert told["type"] == {"type": "integer", "minimum": 1, "maximum": 256, "default": 8}


def test_the_end_of_a_key_is_enough_where_it_is_the_only_one(folder: Path) -> None:
    assert explain(_base(folder), "runs_at_once_max")["key"] == "limits.runs_at_once_max"
    with pytest.raises(Invalid) as caught:
        explain(_base(folder), "user")
    assert caught.value.code == "config.ambiguous"
    assert {"people.*.user", "agents.*.user"} <= set(caught.value.details["keys"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("key", "near"),
    [("limits.runs_at_onc_max", "limits.runs_at_once_max"), ("presett", "preset"), ("runs_at_once_mx", "limits.")],
)
def test_a_mistyped_key_names_what_is_near(folder: Path, key: str, near: str) -> None:
    with pytest.raises(NotFound) as caught:
        explain(_base(folder), key)
    assert near in (caught.value.fix or "")


def test_names_with_dots_and_entries_of_lists_are_reached(folder: Path) -> None:
    assert explain(_base(folder), "people.a.b.user")["value"] == "root"
    assert explain(_base(folder), "people.a.b")["value"] == {"user": "root", "roles": []}
    (folder / "interlock.yaml").write_text("windows: [{name: n, from: '10:00', to: '11:00'}]\n")
    told = explain(_base(folder), "windows[0].from")
    assert (told["key"], told["value"], told["line"]) == ("windows[0].from", "10:00", 1)


def test_a_default_says_that_it_is_one_and_a_section_lists_its_keys(folder: Path) -> None:
    assert explain(_base(folder), "limits.open_runs_max")["source"] == "default"
    assert "limits.open_runs_max" in explain(_base(folder), "limits")["keys"]  # type: ignore[operator]


def test_every_key_of_the_file_itself_has_words_of_its_own() -> None:
    properties: Any = project_json_schema()["properties"]
    assert [name for name, node in properties.items() if not node.get("description")] == []
    for section in ("Limits", "Person", "Agent", "Service", "Window", "Roots"):
        inner: Any = project_json_schema()["$defs"]
        assert [name for name, node in inner[section]["properties"].items() if not node.get("description")] == []


def test_every_key_can_be_explained(folder: Path) -> None:
    for key in keys_of(project_json_schema()):
        written = key.replace(".*", ".kubectl" if key.startswith("contexts") else ".NAME").replace("[]", "[0]")
        assert explain(_base(folder), written)["type"] is not None, key


def test_what_may_be_secret_is_shown_nowhere_and_still_compared(folder: Path) -> None:
    prod, base = _prod(folder), _base(folder)
    everything = json.dumps([show(prod), shown_values(prod), drift(base, prod), explain(prod, "contexts")])
    assert "first-value" not in everything
    assert "other-value" not in everything
    rows: Any = drift(base, prod)["values"]
    changed = {row["key"]: [side.get("value") for side in row["sides"]] for row in rows}
    assert changed["contexts.kubectl.environment.TOKEN"] == [HIDDEN, HIDDEN]
    assert changed["databases.shop.read_credential"] == ["file:/etc/interlock/shop", "file:/etc/interlock/shop-prod"]
    assert changed["limits.runs_at_once_max"] == [4, 16]
    assert len(changed) == 3


def test_drift_tells_policies_and_programs_by_their_digests(folder: Path) -> None:
    for name, text in (("one", "// one\n"), ("two", "// two\n")):
        (folder / name).mkdir()
        policy = '@id("x")\n@reason("x")\nforbid (principal, action, resource) when { context.frozen };\n'
        (folder / name / "own.cedar").write_text(text + policy)
    (folder / "interlock.prod.yaml").write_text("policies: [one]\n")
    (folder / "interlock.dev.yaml").write_text("policies: [two]\n")
    found: Any = drift(Configuration(read_project(folder, "dev"), "option"), _prod(folder))
    assert [row["file"].rpartition("/")[2] for row in found["policies"]] == ["own.cedar", "own.cedar"]
    assert not found["same"]
    assert drift(_prod(folder), _prod(folder))["same"]
    (folder / "interlock.prod.yaml").write_text("programs: [nowhere.yaml]\n")
    with pytest.raises(NotFound):
        drift(_base(folder), _prod(folder))


def _validator(schema: JsonObject) -> Any:
    assert jsonschema_rs.meta.is_valid(schema)
    return jsonschema_rs.validator_for(schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_exported_schema_is_one(name: str) -> None:
    _validator(SCHEMAS[name]())


def test_the_schemas_accept_what_the_readers_accept(folder: Path) -> None:
    _validator(SCHEMAS["project"]()).validate(read_yaml(BASE.encode()).data)
    overlay = _validator(SCHEMAS["overlay"]())
    overlay.validate(read_yaml(PROD.encode()).data)
    overlay.validate({"limits": None, "people": {"bob": None}, "databases": {"shop": {"rows_max": 5}}})
    program, table = _validator(SCHEMAS["program"]()), _validator(SCHEMAS["policy-table"]())
    for file in sorted((SOURCE / "commands" / "programs").glob("*.yaml")):
        document, _ = parse_yaml(file.read_bytes(), file.name)
        if "program" in document:
            program.validate(document)
    for file in sorted((SOURCE / "policies" / "tests").glob("*.yaml")):
        table.validate(read_yaml(file.read_bytes()).data)


def test_the_schemas_refuse_what_is_mistyped() -> None:
    assert not _validator(SCHEMAS["project"]()).is_valid({"peeple": {}})
    assert not _validator(SCHEMAS["overlay"]()).is_valid({"limits": {"runs_at_once_max": 0}})
    assert not _validator(SCHEMAS["overlay"]()).is_valid({"environment": "prod"})
