"""RFC 8785 canonical JSON and the digests made from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring
from typing import Any

import rfc8785
from pydantic_core import from_json, to_json

_INTEGER_MAX = 2**53 - 1
_SHORT_FLOAT = 1e15


def canonical_bytes(value: Any) -> bytes:
    """The RFC 8785 (JCS) form of a JSON value.

    Raises:
        ValueError: The value is not JSON, or holds a number that IEEE 754 doubles cannot carry.
    """
    parts: list[str] = []
    try:
        _write(value, parts.append)
        return "".join(parts).encode()
    except (_Unusual, UnicodeEncodeError):
        return rfc8785.dumps(value)


def digest_of(value: Any) -> str:
    """SHA-256 (lower-case hex) over the canonical form."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def read_canonical(text: bytes) -> Any:
    """The JSON value that this text is the canonical form of.

    Raises:
        ValueError: The text is not JSON, or not the canonical form of what it says.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
        # Written down again in the order in which it was read, it is the same: no spaces, no other escapes, no key
        # twice. That its keys are in order and its numbers are plain is all that is left to look at.
        if to_json(value) == text and _is_plain((value,)):
            return value
    except ValueError:
        pass  # nested too deeply for this reader, perhaps; the exact way says what it is
    try:
        whole = text.decode()
        # For RFC 8785 every number is a double.
        if canonical_bytes(json.loads(whole, parse_int=float)) == text:
            return json.loads(whole)
    except RecursionError as error:
        msg = "the text is nested too deeply"
        raise ValueError(msg) from error
    msg = "the text is not in canonical form"
    raise ValueError(msg)


def _is_plain(values: Iterable[Any]) -> bool:
    """Whether numbers among these JSON values are integers of moderate size, and keys ASCII and in order."""
    for value in values:
        kind = type(value)
        if kind is str:
            continue
        if kind is dict:
            keys = [*value]
            if keys != sorted(keys) or not "".join(keys).isascii() or not _is_plain(value.values()):
                return False
        elif kind is list:
            if not _is_plain(value):
                return False
        elif kind is float or (kind is int and not -_INTEGER_MAX <= value <= _INTEGER_MAX):
            return False
    return True


class _Unusual(Exception):
    """The value holds something that the library must write, or refuse."""


def _write(value: Any, put: Callable[[str], None]) -> None:
    """Write what nearly all values are made of, many times faster than the library.

    Python's own escapes of a string are those of section 3.2.2.2. ASCII keys are in one order whether sorted by code
    point or by UTF-16 unit (3.2.3). A whole number of moderate size is written as ECMAScript writes it (3.2.2.3).
    """
    kind = type(value)
    if kind is str:
        put(encode_basestring(value))
    elif kind is dict:
        _write_object(value, put)
    elif kind is list or kind is tuple:
        between = "["
        for item in value:
            put(between)
            _write(item, put)
            between = ","
        put("]" if value else "[]")
    elif value is None:
        put("null")
    elif kind is bool:
        put("true" if value else "false")
    elif (kind is int and -_INTEGER_MAX <= value <= _INTEGER_MAX) or (
        kind is float and -_SHORT_FLOAT < value < _SHORT_FLOAT and value.is_integer()
    ):
        put(str(int(value)))
    else:
        raise _Unusual


def _write_object(value: dict[Any, Any], put: Callable[[str], None]) -> None:
    if not all(type(key) is str and key.isascii() for key in value):
        raise _Unusual
    between = "{"
    for key in sorted(value):
        put(between)
        put(encode_basestring(key))
        put(":")
        _write(value[key], put)
        between = ","
    put("}" if value else "{}")
