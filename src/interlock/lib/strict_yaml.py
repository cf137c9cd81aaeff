"""YAML read as data and nothing else: one document, no aliases, no tags, no duplicate keys, no YAML 1.1 surprises."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

BYTES_MAX = 256 * 1024
DEPTH_MAX = 24
INTEGER_DIGITS_MAX = 18

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


class YamlFault(ValueError):
    """Text that is not the plain YAML we read. `line` counts from 1; `fix` is the next thing to do."""

    def __init__(self, message: str, *, line: int | None, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.fix = fix


@dataclass(frozen=True)
class Document:
    """What a text says. `lines` maps the path of every value to the line (from 1) on which it, or its key, stands.

    `files` says in which file, where several were laid over each other.
    """

    data: Any
    lines: dict[Path, int]
    files: dict[Path, str] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        """The line of a value, or of the nearest thing around it."""
        return self.lines.get(self._nearest(path))

    def file_of(self, path: Path) -> str | None:
        """The file of that line; None where there is only one file."""
        return self.files.get(self._nearest(path))

    def _nearest(self, path: Path) -> Path:
        while path and path not in self.lines:
            path = path[:-1]
        return path


def read_yaml(body: bytes) -> Document:
    """Read one document.

    Scalars follow the YAML 1.2 core schema without octal, hexadecimal, infinity and NaN: `no`, `on`, `22:30` and
    `2026-01-01` are text, and so is a number with a leading zero. Keys are always text. At most `BYTES_MAX` bytes and
    `DEPTH_MAX` levels.

    Raises:
        YamlFault: the text is too large, too deep, not UTF-8, not YAML, or uses what is not read here.
    """
    text = _decode(body)
    try:
        return _Reader(_events(yaml.SafeLoader(text))).document()
    except ReaderError as error:
        msg = f"the character {error.character:#06x} is not allowed in YAML"
        raise YamlFault(msg, line=text.count("\n", 0, error.position) + 1, fix="Remove it.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        msg = f"this is not YAML: {error.problem or 'unreadable'}"
        raise YamlFault(msg, line=mark.line + 1 if mark else None, fix="Mend the syntax on that line.") from error


def _decode(body: bytes) -> str:
    if len(body) > BYTES_MAX:
        msg = f"the file has {len(body)} bytes; at most {BYTES_MAX} are read"
        raise YamlFault(msg, line=None, fix="Shorten it; this file is meant to be read by people.")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        msg = "the file is UTF-16, not UTF-8"
        raise YamlFault(msg, line=None, fix="Save it as UTF-8.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        msg = f"byte {body[error.start]:#04x} is not UTF-8"
        raise YamlFault(msg, line=line, fix="Save the file as UTF-8.") from error


def _events(loader: yaml.SafeLoader) -> Iterator[Event]:
    """Every event of the only document, checked for what is not read here."""
    documents = depth = 0
    while loader.check_event():
        event: Event = loader.get_event()  # type: ignore[no-untyped-call] # it is not in the stubs
        line = _line(event)
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                msg = "there is a second document"
                raise YamlFault(msg, line=line, fix="Keep one document in one file: remove the line `---`.")
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            msg = f"anchors and aliases are not read ({event.anchor})"
            raise YamlFault(msg, line=line, fix="Write the value out where it is used.")
        tag = getattr(event, "tag", None)
        if tag is not None:
            msg = f"tags are not read ({tag})"
            raise YamlFault(msg, line=line, fix="Remove the tag; quote the value if it is meant as text.")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                msg = f"more than {DEPTH_MAX} levels"
                raise YamlFault(msg, line=line, fix="Write it flatter.")
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        yield event


class _Reader:
    """Builds plain data from events; recursion is bounded by `DEPTH_MAX`."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._lines: dict[Path, int] = {}

    def document(self) -> Document:
        data: Any = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                data = self._value(next(self._events), ())
            if isinstance(event, DocumentEndEvent):
                # The loop goes on, so that a second document is seen and refused.
                continue
        return Document(data=data, lines=self._lines)

    def _value(self, event: Event, path: Path) -> Any:
        self._lines.setdefault(path, _line(event))
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        msg = f"{type(event).__name__} where a value was expected"
        raise YamlFault(msg, line=_line(event), fix="Mend the syntax on that line.")

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, ScalarEvent):
                msg = "a key must be plain text"
                raise YamlFault(msg, line=line, fix="Use a word as the key.")
            key = event.value
            if key in found:
                msg = f"{key!r} is given twice, first on line {self._lines[*path, key]}"
                raise YamlFault(msg, line=line, fix="Remove one of the two.")
            self._lines[*path, key] = line
            found[key] = self._value(next(self._events), (*path, key))
        return found

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            found.append(self._value(event, (*path, len(found))))
        return found


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _scalar(event: ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    if event.style is not None:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) and len(text) <= INTEGER_DIGITS_MAX:
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
