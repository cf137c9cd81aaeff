"""What is configured, where each value comes from, and in what two environments differ; pure but for reading files."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from interlock.core.errors import Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.engine.documented_schema import dotted, keys_of, node_at, project_json_schema
from interlock.engine.policy.load import read_layers
from interlock.engine.project_file import ReadProject
from interlock.lib.canonical import digest_of
from interlock.lib.redact import Redactor
from interlock.lib.strict_yaml import Path as YamlPath

HIDDEN = "(hidden)"
"""Stands for a value that may hold a secret; two of them are still compared."""

KEYS_SHOWN = 20
NEAR_KEYS = 3

ChosenBy = Literal["option", "variable", "record", "key"]
_SECTION_WITH_VARIABLES = frozenset({"contexts", "mcp_servers"})
_TYPE_WORDS = (
    *("type", "enum", "const", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength"),
    *("maxLength", "minItems", "maxItems", "default", "anyOf", "items", "additionalProperties"),
)
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[]+)")


@dataclass(frozen=True)
class Configuration:
    """One environment's effective configuration. `chosen_by` says who chose the environment; None: nobody did."""

    read: ReadProject
    chosen_by: ChosenBy | None

    @property
    def values(self) -> JsonObject:
        """Every value that is in force, with defaults; keys as they are written."""
        found: JsonObject = self.read.project.model_dump(mode="json", by_alias=True, exclude={"folder"})
        return found

    def origin(self, path: YamlPath) -> JsonObject:
        """`source` (option, variable, record, overlay, file, default), and `file` and `line` where there is one."""
        if path == ("environment",) and self.chosen_by not in {None, "key"}:
            return {"source": self.chosen_by}
        document = self.read.document
        if path not in document.lines:
            return {"source": "default"}
        file = document.file_of(path) or str(self.read.file)
        source = "overlay" if self.read.overlay is not None and file == str(self.read.overlay) else "file"
        return {"source": source, "file": file, "line": document.line_of(path)}


def show(configuration: Configuration) -> list[JsonObject]:
    """Every value with its key and its origin; a list counts as one value, because an overlay replaces it whole."""
    redactor = _redactor(configuration)
    return [
        {"key": dotted(path), "value": _masked(value, path, redactor), **configuration.origin(path)}
        for path, value in _leaves(configuration.values, ())
    ]


def shown_values(configuration: Configuration) -> JsonValue:
    """All values as a document, without what may be secret."""
    return _masked(configuration.values, (), _redactor(configuration))


def explain(configuration: Configuration, key: str) -> JsonObject:
    """One key: its value and origin, what it means, what it takes, and the keys below it.

    `key` may be the end of a key where only one key ends so. Keys are dotted, entries of lists stand in brackets.

    Raises:
        NotFound: There is no such key; the fix names those that are near.
        Invalid: Several keys end so; `details` holds them as `keys`.
    """
    schema, known = _schema(), _known()
    path = _path_of(key, configuration.values)
    found = node_at(schema, path) if path else None
    if found is None:
        path = _only_key(key, known)
        found = node_at(schema, path)
    if found is None:
        raise _unknown(key, known)
    node, pattern = found
    section, _ = node_at(schema, path[:-1]) or ({}, ())
    value, present = _value_at(configuration.values, path)
    told: JsonObject = {"key": dotted(path)}
    if present:
        told |= {"value": _masked(value, path, _redactor(configuration)), **configuration.origin(path)}
    about = str(node.get("description") or node.get("about") or "")
    described = about or str(section.get("about") or section.get("description") or "")
    told |= {"meaning": re.sub(r"\s+", " ", described), "type": _type_of(node)}
    prefix = dotted(pattern)
    below = [each for each in known if each.startswith((f"{prefix}.", f"{prefix}[")) and each != prefix]
    return {**told, "keys": [*below[:KEYS_SHOWN]], "keys_more": max(0, len(below) - KEYS_SHOWN)}


def drift(one: Configuration, other: Configuration) -> JsonObject:
    """What differs: `values` by key, `policies` and `programs` by file. Secrets are told by their references only.

    Raises:
        Invalid, NotFound: The policies of one of them cannot be read.
    """
    left, right = dict(_leaves(one.values, ())), dict(_leaves(other.values, ()))
    values: list[JsonValue] = []
    for path in sorted(left.keys() | right.keys(), key=str):
        if path == ("environment",) or left.get(path, _NOTHING) == right.get(path, _NOTHING):
            continue
        if any(each[: len(path)] == path != each for each in (*left, *right)):
            continue  # it is empty on one side; what it holds on the other is told key by key
        sides = ((side, given) for side, given in ((one, left), (other, right)))
        values.append({"key": dotted(path), "sides": [_side(side, given, path) for side, given in sides]})
    policies = _drift_of_texts(*map(_policy_digests, (one, other)))
    programs = _drift_of_texts(*map(_program_digests, (one, other)))
    return {
        "environments": [one.read.project.environment, other.read.project.environment],
        "configuration": [digest_of(each.read.project.model_dump(mode="json")) for each in (one, other)],
        "values": values,
        "policies": policies,
        "programs": programs,
        "same": not values and not policies and not programs,
    }


@lru_cache(maxsize=1)
def _schema() -> JsonObject:
    """Read only."""
    return project_json_schema()


@lru_cache(maxsize=1)
def _known() -> tuple[str, ...]:
    return tuple(keys_of(_schema()))


_NOTHING: Any = object()


def _side(configuration: Configuration, given: dict[YamlPath, Any], path: YamlPath) -> JsonObject:
    if path not in given:
        return {"source": "absent"}
    return {"value": _masked(given[path], path, _redactor(configuration)), **configuration.origin(path)}


def _drift_of_texts(one: dict[str, str], other: dict[str, str]) -> list[JsonValue]:
    return [
        {"file": name, "digests": [one.get(name), other.get(name)]}
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _policy_digests(configuration: Configuration) -> dict[str, str]:
    sources, _ = read_layers(configuration.read.project)
    return {f"{each.layer}: {each.name}": hashlib.sha256(each.text.encode()).hexdigest() for each in sources}


def _program_digests(configuration: Configuration) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in configuration.read.project.programs:
        path = Path(entry)
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            try:
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                msg = f"{file} cannot be read: {error.strerror}"
                raise NotFound(msg, code="program.missing", fix="mend `programs:` in interlock.yaml") from error
    return found


def _leaves(value: Any, path: YamlPath) -> Iterator[tuple[YamlPath, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _value_at(value: Any, path: YamlPath) -> tuple[Any, bool]:
    for part in path:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        else:
            return None, False
    return value, True


def _path_of(key: str, values: Any) -> YamlPath:
    """The parts of a dotted key. Names that somebody chose may hold dots: those that exist are recognised."""
    path: list[str | int] = []
    rest, here = key, values
    while rest:
        names = sorted(here, key=len, reverse=True) if isinstance(here, dict) else []
        plain = rest.removeprefix(".")
        name = next((each for each in names if re.match(re.escape(each) + r"(\.|\[|$)", plain)), None)
        if name is not None:
            path.append(name)
            rest, here = plain[len(name) :], here[name]
            continue
        step = _STEP.match(rest)
        if step is None:
            return ()
        part: str | int = int(step[1]) if step[1] else step[2]
        here, _ = _value_at(here, (part,))
        path.append(part)
        rest = rest[step.end() :]
    return tuple(path)


def _only_key(key: str, known: Sequence[str]) -> YamlPath:
    """The key that ends like this. Raises Invalid where several do, NotFound where none does."""
    ending = [each for each in known if each.endswith(f".{key}") or each == key]
    if len(ending) == 1:
        parts = ending[0].replace("[]", ".[]").split(".")
        return tuple(0 if part == "[]" else part for part in parts)
    if not ending:
        raise _unknown(key, known)
    msg = f"{key} is the end of several keys: {', '.join(ending[:KEYS_SHOWN])}"
    fix = f"interlock config explain {ending[0].replace('.*', '.NAME').replace('[]', '[0]')}"
    raise Invalid(msg, code="config.ambiguous", fix=fix, details={"keys": ending})


def _unknown(key: str, known: Sequence[str]) -> NotFound:
    near = difflib.get_close_matches(key, known, n=NEAR_KEYS)
    if not near:
        near = [each for each in known if each.rpartition(".")[2] in difflib.get_close_matches(key, _ends(known), n=1)]
    msg = f"there is no key {key!r}"
    fix = f"did you mean {', '.join(near[:NEAR_KEYS])}?" if near else "interlock config show lists the keys"
    return NotFound(msg, code="config.unknown", fix=fix, details={"near": near[:NEAR_KEYS]})


def _ends(known: Sequence[str]) -> list[str]:
    return sorted({each.rpartition(".")[2] for each in known})


def _type_of(node: dict[str, Any]) -> JsonObject:
    """The part of the schema that says which values are taken."""
    return {name: node[name] for name in _TYPE_WORDS if name in node}


def _redactor(configuration: Configuration) -> Redactor:
    return Redactor(configuration.read.project.secrets_patterns)


def _may_be_secret(path: YamlPath) -> bool:
    """The value of a variable that a program is given."""
    return len(path) > 3 and path[0] in _SECTION_WITH_VARIABLES and path[2] == "environment"  # noqa: PLR2004


def _masked(value: Any, path: YamlPath, redactor: Redactor) -> JsonValue:
    if isinstance(value, dict):
        return {key: _masked(inner, (*path, key), redactor) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, (*path, index), redactor) for index, inner in enumerate(value)]
    if _may_be_secret(path):
        return HIDDEN
    return redactor.redact(value) if isinstance(value, str) else value
