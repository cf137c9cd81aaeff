"""Reads the arguments of `do` from words and files, by the schema of the action where that matters."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from interlock.core.errors import Invalid, NotFound
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.record import Record

FILE_BYTES_MAX = 8 * 1024 * 1024


def read_arguments(caller: Caller, action: str, words: list[str], file: Path | None) -> dict[str, object]:
    """The arguments of an action: those of the file, and those of the words over them.

    Raises:
        Invalid: A word is no NAME=VALUE, or the file is no JSON or YAML object.
        NotFound: A file, or the action, does not exist.
    """
    args = _read_file(file) if file is not None else {}
    if not words:
        return args
    schema = caller.view("actions", name=action).records("actions")
    properties = schema[0].record("arguments").record("properties") if schema else Record({})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            msg = f"{word!r} is not NAME=VALUE"
            raise Invalid(msg, code="args.form", fix="--arg path=/srv/motd")
        args[name] = read_value(value, properties.record(name))
    return args


def read_value(value: str, schema: Record) -> object:
    """A value as the schema wants it: text where only text is right, otherwise JSON where it parses as that."""
    if value.startswith("@") and len(value) > 1:
        return _read_text(Path(value[1:]))
    if _wants_text(schema):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _wants_text(schema: Record) -> bool:
    """Whether text is among the types of the argument and nothing else but null is."""
    kinds = {schema.text("type"), *(choice.text("type") for choice in schema.records("anyOf"))} - {"", "null"}
    return kinds == {"string"} or (not kinds and ("enum" in schema or "const" in schema))


def _read_text(path: Path) -> str:
    try:
        body = sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if str(path) == "-" else _read_bytes(path)
        if len(body) > FILE_BYTES_MAX:
            msg = f"{path} is over {FILE_BYTES_MAX:,} bytes"
            raise Invalid(msg, code="args.size")
        return body.decode()
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise NotFound(msg, code="file.missing") from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as text: {error}"
        raise Invalid(msg, code="file.unreadable") from error


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


def _read_file(path: Path) -> dict[str, object]:
    text = _read_text(path)
    try:
        data = json.loads(text)
    except ValueError:
        data = _read_yaml(path, text)
    if not isinstance(data, dict):
        msg = f"{path} holds no mapping of names to values"
        raise Invalid(msg, code="args.file")
    return {str(name): value for name, value in data.items()}


def _read_yaml(path: Path, text: str) -> object:
    from interlock.lib.strict_yaml import YamlFault, read_yaml

    try:
        return read_yaml(text.encode()).data
    except YamlFault as fault:
        msg = f"{path}:{fault.line}: neither JSON nor plain YAML: {fault.message}"
        raise Invalid(msg, code="args.file", fix=fault.fix) from fault
