"""The JSON Schemas of everything that people write, by name: for editors, and for `docs/reference/schemas`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from interlock.core.errors import NotFound
from interlock.core.model import JsonObject
from interlock.engine.documented_schema import (
    documented_schema,
    overlay_json_schema,
    policy_table_json_schema,
    project_json_schema,
    schedule_json_schema,
)


def program_json_schema() -> JsonObject:
    """The JSON Schema of a program's description, where a list of words may be written as one text."""
    from interlock.commands.model import Program

    schema = documented_schema(Program, "what Interlock knows of a program")
    _let_words_be_text(schema)
    return schema


SCHEMAS: dict[str, Callable[[], JsonObject]] = {
    "project": project_json_schema,
    "overlay": overlay_json_schema,
    "program": program_json_schema,
    "policy-table": policy_table_json_schema,
    "schedule": schedule_json_schema,
}


def schema_named(name: str) -> JsonObject:
    """Raises NotFound."""
    if name not in SCHEMAS:
        msg = f"there is no schema {name!r}"
        raise NotFound(msg, code="config.schema", fix=f"one of: {', '.join(SCHEMAS)}")
    return SCHEMAS[name]()


def schema_text(schema: JsonObject) -> str:
    """The bytes of a schema file: the same code always gives the same."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _let_words_be_text(node: Any) -> None:
    """As the reader of program files takes it: `switches: -a -b` is a list of two."""
    if isinstance(node, list):
        for each in node:
            _let_words_be_text(each)
    if not isinstance(node, dict):
        return
    for each in node.values():
        _let_words_be_text(each)
    if node.get("type") == "array":
        node["type"] = ["array", "string"]
