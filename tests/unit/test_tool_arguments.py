"""Arguments against the schema of somebody else's tool: strict, bounded, and not a word of a value in an error."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from interlock.core.errors import Invalid
from interlock.core.mcp_server import McpServer, ToolDescription, ToolHints
from interlock.core.model import JsonObject
from interlock.tools.arguments import require_fitting, require_usable

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 10},
        "count": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "inner": {"$ref": "#/$defs/inner"},
    },
    "required": ["title"],
    "$defs": {"inner": {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"]}},
}


@pytest.mark.parametrize(
    "args",
    [{"title": "x"}, {"title": "x", "count": 1, "tags": ["a", "b"]}, {"title": "x", "inner": {"deep": True}}],
)
def test_what_fits_is_accepted(args: JsonObject) -> None:
    require_fitting(args, SCHEMA, "s/t")


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ({}, "args:"),
        ({"title": 7}, "args.title:"),
        ({"title": "x", "count": "1"}, "args.count:"),
        ({"title": "x", "count": True}, "args.count:"),
        ({"title": "x", "count": 0}, "args.count:"),
        ({"title": "x", "tags": ["a", "hidden-value"]}, "args.tags.1:"),
        ({"title": "x", "inner": {"deep": "hidden-value"}}, "args.inner.deep:"),
        ({"title": "x", "unheard_of": "hidden-value"}, "args:"),
        ({"title": "hidden-value-that-is-long"}, "args.title:"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place_without_its_value(args: JsonObject, place: str) -> None:
    with pytest.raises(Invalid) as caught:
        require_fitting(args, SCHEMA, "s/t")
    assert caught.value.code == "args.invalid"
    assert place in caught.value.message
    assert "hidden-value" not in str(caught.value.to_json())


def test_names_are_closed_unless_the_schema_opens_them() -> None:
    require_fitting({"x": 1}, {"type": "object", "additionalProperties": True}, "s/t")
    with pytest.raises(Invalid):
        require_fitting({"x": 1}, {"type": "object"}, "s/t")


def _doubling(depth: int) -> JsonObject:
    """A schema whose evaluation doubles with each level."""
    levels: dict[str, Any] = {"n0": {"type": "boolean"}}
    for level in range(1, depth):
        levels[f"n{level}"] = {"anyOf": [{"$ref": f"#/$defs/n{level - 1}"}, {"$ref": f"#/$defs/n{level - 1}"}]}
    return {"type": "object", "properties": {"x": {"$ref": f"#/$defs/n{depth - 1}"}}, "$defs": levels}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {},
        {"type": "object", "patternProperties": {"(a+)+$": {}}},
        {"type": "object", "$ref": "https://example.invalid/schema"},
        {"type": "object", "$ref": "file:///etc/passwd"},
        {"type": "object", "$ref": "#"},
        {"type": "object", "properties": {"x": {"type": "nonsense"}}},
        {"type": "object", "properties": "nonsense"},
        {"type": "object", "allOf": [{"$dynamicRef": "#x"}]},
    ],
)
def test_a_schema_that_cannot_be_used_is_not_accepted(schema: JsonObject) -> None:
    with pytest.raises(Invalid) as caught:
        require_usable(schema)
    assert caught.value.code == "mcp.schema"
    assert caught.value.fix


def test_a_schema_that_never_ends_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(Invalid) as caught:
        require_fitting({"x": 1}, _doubling(40), "s/t")
    assert caught.value.code == "mcp.schema"
    assert time.monotonic() - begun < 10


def test_many_values_that_shall_differ_are_compared_in_one_pass() -> None:
    schema: JsonObject = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    many: list[JsonValue] = [{"a": number} for number in range(50_000)]
    begun = time.monotonic()
    require_fitting({"x": many}, schema, "s/t")
    with pytest.raises(Invalid, match="uniqueItems"):
        require_fitting({"x": [*many, {"a": 7}]}, schema, "s/t")
    require_fitting({"x": [1, True, "1", [1], {"a": 1, "b": 2}]}, schema, "s/t")
    for same in ([1, 1.0], [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]):
        with pytest.raises(Invalid, match="uniqueItems"):
            require_fitting({"x": same}, schema, "s/t")
    assert time.monotonic() - begun < 5


def test_expressions_of_others_are_never_matched() -> None:
    schema: JsonObject = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(a|a)*$"}}}
    begun = time.monotonic()
    require_fitting({"x": "a" * 50 + "!"}, schema, "s/t")
    assert time.monotonic() - begun < 1


def test_any_word_of_a_description_changes_its_digest() -> None:
    plain = ToolDescription(name="t", description="reads", input_schema={"type": "object"})
    others = [
        plain.model_copy(update={"description": "reads "}),
        plain.model_copy(update={"title": "T"}),
        plain.model_copy(update={"input_schema": {"type": "object", "properties": {}}}),
        plain.model_copy(update={"output_schema": {"type": "object"}}),
        plain.model_copy(update={"annotations": {"readOnlyHint": True}}),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"command": ["/bin/x"], "url": "https://x.example/"},
        {"command": ["relative"]},
        {"url": "http://tickets.example/mcp"},
        {"url": "https://user:secret@tickets.example/mcp"},
        {"url": "ftp://tickets.example/"},
        {"url": "https://tickets.example\\@evil.example/"},
        {"command": ["/bin/x"], "credential": "credential:x"},
        {"url": "https://x.example/", "credential": "credential:x", "credential_variable": "X"},
        {"command": ["/bin/x"], "environment": {"A=B": "x"}},
        {"command": ["/bin/x"], "credential": "a secret itself", "credential_variable": "X"},
        {"command": ["/bin/x"], "tools": {"t": {"risk": "none"}}},
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        McpServer.model_validate(fields)


def test_what_nobody_vouched_for_counts_as_a_change_of_high_risk() -> None:
    assert ToolHints() == ToolHints(risk="high", changes=True, discloses="content", repeatable=False)
