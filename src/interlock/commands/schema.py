"""Reads program schemas from YAML, strictly: what is not understood is refused with its file, line and fix."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import ValidationError

from interlock.commands.model import Program
from interlock.core.errors import Invalid

FILE_BYTES_MAX = 256 * 1024
NODES_MAX = 20_000
DEPTH_MAX = 12

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]{1,15}")
_DECIMAL = re.compile(r"[-+]?[0-9]{1,15}\.[0-9]{1,9}")
_SCALAR_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}

Location = tuple[int | str, ...]


def parse_yaml(text: bytes, source: str) -> tuple[Any, dict[Location, int]]:
    """Read one YAML document of mappings, lists and plain scalars; also where each part begins (line, from 1).

    Scalars follow YAML 1.2: `on`, `no` and `1:30` are texts. Anchors, aliases, tags, merge keys, several documents and
    duplicate keys are refused, so a file cannot grow when it is read.

    Raises:
        Invalid: The text is too large, too deep, not YAML or not plain.
    """
    if len(text) > FILE_BYTES_MAX:
        raise _invalid(source, 1, f"the file has {len(text)} bytes, more than {FILE_BYTES_MAX}", "split it")
    try:
        node = yaml.compose(text.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise _invalid(source, 1, "the file is not UTF-8", "save it as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or "it is nested too deeply"
        raise _invalid(source, mark.line + 1 if mark else 1, f"not YAML: {why}", "mend the line named") from error
    if node is None:
        raise _invalid(source, 1, "the file is empty", "describe one program in it")
    lines: dict[Location, int] = {}
    return _Builder(source, lines).build(node, ()), lines


def parse_program(text: bytes, source: str) -> Program:
    """Read the schema of one program.

    Raises:
        Invalid: With the file, the line, the path within the file, and the fix.
    """
    data, lines = parse_yaml(text, source)
    return program_of(data, source, lines)


def program_of(data: object, source: str, lines: dict[Location, int] | None = None) -> Program:
    """Make a program of plain data.

    Raises:
        Invalid: The data do not follow the schema.
    """
    try:
        return Program.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = tuple(first["loc"])
        raise _invalid(
            source,
            _line_of(location, lines or {}),
            f"{'.'.join(str(part) for part in location) or 'the file'}: {first['msg']}",
            "see docs/reference for the program schema",
        ) from error


def _line_of(location: Location, lines: dict[Location, int]) -> int:
    for length in range(len(location), -1, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return 1


def _invalid(source: str, line: int, why: str, fix: str) -> Invalid:
    return Invalid(
        f"{source}:{line}: {why}",
        code="program.schema",
        fix=fix,
        details={"file": source, "line": line},
    )


class _Builder:
    """Turns composed nodes into plain values, refusing what could surprise."""

    def __init__(self, source: str, lines: dict[Location, int]) -> None:
        self.source = source
        self.lines = lines
        self.seen: set[int] = set()

    def build(self, node: yaml.Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        if id(node) in self.seen:
            raise _invalid(self.source, line, "aliases are not allowed", "write the value out")
        self.seen.add(id(node))
        if len(self.seen) > NODES_MAX or len(location) > DEPTH_MAX:
            raise _invalid(self.source, line, "the file is too large or too deep", "split it")
        self.lines[location] = line
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if isinstance(node, yaml.SequenceNode):
            self._require_tag(node, "tag:yaml.org,2002:seq", line)
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        self._require_tag(node, "tag:yaml.org,2002:map", line)
        return self._mapping(node, location)

    def _mapping(self, node: yaml.Node, location: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or (key_node.value == "<<" and not key_node.style):
                raise _invalid(self.source, line, "a key must be plain text", "write the key as text")
            key = str(key_node.value)
            if key in found:
                raise _invalid(self.source, line, f"the key {key!r} is there twice", "keep one of them")
            found[key] = self.build(value_node, (*location, key))
            self.lines[*location, key] = line
        return found

    def _scalar(self, node: yaml.ScalarNode, line: int) -> str | int | float | bool | None:
        text = str(node.value)
        if node.style:  # plain scalars have none: None or "" as the parser goes
            self._require_tag(node, "tag:yaml.org,2002:str", line)
            return text
        if node.tag not in _SCALAR_TAGS:
            raise _invalid(self.source, line, f"the tag {node.tag} is not allowed", "remove the tag")
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _DECIMAL.fullmatch(text) else text

    def _require_tag(self, node: yaml.Node, tag: str, line: int) -> None:
        if node.tag != tag:
            raise _invalid(self.source, line, f"the tag {node.tag} is not allowed", "remove the tag")
