"""What `sql.*` are asked with, and how targets and results look."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from json.encoder import encode_basestring
from typing import Literal

from pydantic import Field

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import QueryResult, RelationFacts, Scalar
from interlock.core.model import Frozen
from interlock.core.plan import Discloses, Target
from interlock.lib.canonical import digest_of

DATABASE = r"^[a-z][a-z0-9_-]{0,62}$"
SQL_CHARACTERS_MAX = 16 * 1024
PARAMETERS_MAX = 200
SAFE_INTEGER = 2**53
_INTEGERS = frozenset({"int2", "int4", "int8", "smallint", "integer", "bigint", "oid"})
_FLOATS = frozenset({"float4", "float8", "real", "double precision"})
_NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
TABLE_CELL_CHARACTERS = 60


class ReadArgs(Frozen):
    """One query for a declared database; `parameters` are the values of $1, $2, ...

    `format`: `json` is one JSON value a line, exact: an object with the columns, an array for each row, an object with
    the end. `table` is for people.
    """

    database: str = Field(pattern=DATABASE)
    sql: str = Field(min_length=1, max_length=SQL_CHARACTERS_MAX)
    parameters: tuple[Scalar, ...] = Field(default=(), max_length=PARAMETERS_MAX)
    format: Literal["json", "table"] = "json"


class WriteArgs(Frozen):
    """One INSERT, UPDATE or DELETE without RETURNING; `parameters` are the values of $1, $2, ..."""

    database: str = Field(pattern=DATABASE)
    sql: str = Field(min_length=1, max_length=SQL_CHARACTERS_MAX)
    parameters: tuple[Scalar, ...] = Field(default=(), max_length=PARAMETERS_MAX)


class MigrateArgs(Frozen):
    """Applies the files of the declared folder that were not applied yet, up to the number `to`."""

    database: str = Field(pattern=DATABASE)
    to: str | None = Field(default=None, pattern=r"^[0-9]{1,14}$")


def table_target(database: str, relation: RelationFacts) -> Target:
    """A table by the name that the catalogue gives it; whoever protects its database or schema protects it too."""
    return Target(
        kind="table",
        id=f"{database}/{relation.qualified}",
        names=(f"database:{database}", f"{database}/{relation.schema_name}"),
    )


def database_target(database: str) -> Target:
    """A whole database."""
    return Target(kind="database", id=database)


def targets_of(database: str, relations: tuple[RelationFacts, ...]) -> tuple[Target, ...]:
    """The tables behind relations, each once, in order; the database itself where there is none."""
    found = {relation.qualified: table_target(database, relation) for relation in relations}
    return tuple(found[name] for name in sorted(found)) or (database_target(database),)


def disclosed(relations: tuple[RelationFacts, ...], declaration: DatabaseDeclaration) -> Discloses:
    """What rows of these relations tell."""
    if any(fnmatchcase(relation.qualified, pattern) for relation in relations for pattern in declaration.secret):
        return "secret"
    return "content"


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def rendered(result: QueryResult, form: Literal["json", "table"]) -> str:
    """A result as text."""
    return _as_table(result) if form == "table" else _as_json_lines(result)


def json_cell(text: str | None, type_name: str) -> str:
    """One value as JSON: numbers where JSON's own are exact, the text of PostgreSQL otherwise, null for NULL."""
    if text is None:
        return "null"
    if type_name == "bool":
        return "true" if text == "true" else "false"
    if type_name in _INTEGERS and abs(int(text)) <= SAFE_INTEGER:
        return text
    if type_name in _FLOATS and text not in _NOT_NUMBERS:
        return text
    return encode_basestring(text)


def _as_json_lines(result: QueryResult) -> str:
    types = [column.type for column in result.columns]
    lines = [json.dumps({"columns": [column.model_dump() for column in result.columns]}, ensure_ascii=False)]
    lines += [
        f"[{', '.join(json_cell(cell, kind) for cell, kind in zip(row, types, strict=True))}]" for row in result.rows
    ]
    end = {"rows": len(result.rows), "truncated": result.truncated, "cells_cut": result.truncated_cells}
    return "\n".join((*lines, json.dumps({"end": end}))) + "\n"


def _as_table(result: QueryResult) -> str:
    head = [column.name for column in result.columns]
    body = [["NULL" if cell is None else _plain(cell) for cell in row] for row in result.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, rule, *body)
    ]
    rows = "1 row" if len(body) == 1 else f"{len(body)} rows"
    more = "; TRUNCATED: there are more, or larger ones" if result.truncated or result.truncated_cells else ""
    return "\n".join((*lines, f"({rows}{more})")) + "\n"


def _plain(cell: str) -> str:
    shown = cell.encode("unicode_escape").decode() if not cell.isprintable() else cell
    return shown if len(shown) <= TABLE_CELL_CHARACTERS else f"{shown[: TABLE_CELL_CHARACTERS - 1]}…"


def image_digest(columns: tuple[str, ...], rows: tuple[tuple[str | None, ...], ...], masked: tuple[str, ...]) -> str:
    """A digest of rows in which some columns do not count."""
    counting = [index for index, column in enumerate(columns) if column not in masked]
    lines = sorted(([row[index] for index in counting] for row in rows), key=lambda line: [cell or "" for cell in line])
    return digest_of({"columns": [columns[index] for index in counting], "rows": lines})
