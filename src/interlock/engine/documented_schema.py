"""JSON Schemas of what people write, with the words that stand beside each field in the source."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.schedule import Schedule
from interlock.engine.policy.tables import Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KEYS_DEPTH_MAX = 8
ANY_NAME = "*"
"""Stands in a dotted key for the name that somebody chose: `people.*.roles`."""


def documented_schema(model: type[BaseModel], title: str) -> JsonObject:
    """The schema of a model, its keys as they are written in YAML; each has the docstring of its field."""
    schema: JsonObject = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs")
    for cls in _models(model, set()):
        inner = definitions.get(cls.__name__) if isinstance(definitions, dict) else None
        for each in (inner, schema if cls is model else None):
            properties = each.get("properties") if isinstance(each, dict) else None
            if isinstance(properties, dict):
                _describe(cls, properties)
    return {"$schema": DIALECT, **schema, "title": title}


def project_json_schema() -> JsonObject:
    """The JSON Schema of interlock.yaml, for editors."""
    schema = documented_schema(Project, "interlock.yaml")
    properties = schema["properties"]
    if isinstance(properties, dict):
        properties.pop("folder", None)
    return schema


def overlay_json_schema() -> JsonObject:
    """The JSON Schema of an overlay: parts of interlock.yaml, where null removes what the file says."""
    schema = project_json_schema()
    for each in (schema, *_objects(schema.get("$defs"))):
        each.pop("required", None)
        properties = each.get("properties")
        if isinstance(properties, dict):
            each["properties"] = {name: {"anyOf": [value, {"type": "null"}]} for name, value in properties.items()}
    properties = schema["properties"]
    if isinstance(properties, dict):
        for name in ("version", "environment"):
            properties.pop(name, None)
        for value in properties.values():
            _let_entries_be_removed(value)
    schema["title"] = "an overlay of interlock.yaml"
    return schema


def schedule_json_schema() -> JsonObject:
    """The JSON Schema of one schedule."""
    return documented_schema(Schedule, "a schedule")


def policy_table_json_schema() -> JsonObject:
    """The JSON Schema of a decision table: policies/tests/*.yaml."""
    return documented_schema(Table, "a decision table")


def node_at(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """What the schema says at a path of values, and the same path with `*` for names; None where nothing may be."""
    node, pattern = _resolved(schema, schema), tuple[str, ...]()
    for part in path:
        found = _below(schema, node)
        key = "[]" if isinstance(part, int) else str(part)
        chosen = key if key in found else ANY_NAME
        if chosen not in found:
            return None
        node, pattern = found[chosen], (*pattern, chosen)
    return node, pattern


def keys_of(schema: Mapping[str, Any]) -> list[str]:
    """Every key that may be written, dotted, in the order of the schema."""
    return [dotted(path) for path in _walk(schema, _resolved(schema, schema), ())]


def dotted(path: tuple[str | int, ...]) -> str:
    """`windows[].from`, `people.*.roles`, `windows[0].from`."""
    parts = ("[]" if part == "[]" else f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _walk(schema: Mapping[str, Any], node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if len(path) >= KEYS_DEPTH_MAX:
        return
    for name, inner in _below(schema, node).items():
        if name not in {ANY_NAME, "[]"}:
            yield (*path, name)
        yield from _walk(schema, inner, (*path, name))


def _below(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys of an object, `*` for the values of a map, `[]` for the entries of a list."""
    found: dict[str, dict[str, Any]] = {}
    for choice in (node, *node.get("anyOf", ())):
        each = _resolved(schema, choice)
        for name, inner in each.get("properties", {}).items():
            found[name] = _resolved(schema, inner)
        for name in ("additionalProperties", "items"):
            inner = each.get(name)
            if isinstance(inner, dict):
                found[ANY_NAME if name == "additionalProperties" else "[]"] = _resolved(schema, inner)
        for inner in each.get("patternProperties", {}).values():
            found[ANY_NAME] = _resolved(schema, inner)
    return found


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """With what `$ref` names; what stands beside it counts more, but a model's words are kept as `about`."""
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if not name:
        return dict(node)
    target = schema["$defs"][name]
    return {**target, "about": target.get("description", ""), **node}


def _models(annotation: Any, seen: set[type]) -> Iterator[type[BaseModel]]:
    """Every model that is reached from an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)
    for inner in get_args(annotation):
        yield from _models(inner, seen)


def _describe(cls: type[BaseModel], properties: dict[str, Any]) -> None:
    for name, text in _words_of(cls).items():
        field = cls.model_fields.get(name)
        node = properties.get(field.alias or name) if field is not None else None
        if isinstance(node, dict):
            node.setdefault("description", text)


def _words_of(cls: type[BaseModel]) -> dict[str, str]:
    """The text that follows each field in the source of the class, as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found: dict[str, str] = {}
    for node, following in pairwise(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[node.target.id] = re.sub(r"\s+", " ", str(following.value.value)).strip()
    return found


def _objects(definitions: object) -> list[dict[str, Any]]:
    values = definitions.values() if isinstance(definitions, dict) else ()
    return [each for each in values if isinstance(each, dict)]


def _let_entries_be_removed(node: Any) -> None:
    """An entry of a map with names of its own may be null as well."""
    for each in node.get("anyOf", (node,)):
        inner = each.get("additionalProperties")
        if isinstance(inner, dict):
            each["additionalProperties"] = {"anyOf": [inner, {"type": "null"}]}
