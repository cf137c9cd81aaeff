"""Paths of fields in documents and tables, and patterns with stars that fit them in bounded time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

PATH_CHARACTERS_MAX = 500
ROOTS = ("$", "$status", "$body", "$header")
"""The body as a document; the status; the body as a whole, when it is no document; the headers."""


class Row(str):
    """A part of a path that names a row of a list by its key: `id=7`."""

    __slots__ = ()


Part = str | int
"""A name in an object, an index in a list, or a Row."""
Parts = tuple[Part, ...]
"""`("$", "items", 0, "price")`; `("$header", "content-type")`; `("amount",)` for a column of a table."""


class _Star:
    """Any one part, or any number of them."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


ANY: Final = _Star("*")
DEEP: Final = _Star("**")
Token = Part | _Star

_STEP = re.compile(
    r"""\.(?P<star>\*\*|\*)(?=[.\[]|$)
      | \.(?P<name>[^.\[\]*\s"]+)
      | \[(?P<any>\*)\]
      | \[(?P<index>[0-9]{1,9})\]
      | \[(?P<quoted>"(?:[^"\\]|\\.)*")\]""",
    re.VERBOSE,
)
_ROOT = re.compile(r"\$(?:status|body|header)?(?=[.\[]|$)")
_SIMPLE = re.compile(r"[^.\[\]*\s\"\x00-\x1f\x7f\ud800-\udfff]{1,100}")
_IDENTIFIER = re.compile(r"[0-9]+|[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class FieldPattern:
    """What a path with stars fits: `$.items[*].price`, `$.**.updated_at`, `$header.etag`, or a column's name.

    `*` is any one part, a name or an index, and `**` any number of them, none included. A pattern that does not begin
    with `$` is a column's name, in which `*` stands for any letters; `*` alone fits everything there is.
    """

    text: str
    tokens: tuple[Token, ...]
    column: tuple[str, ...] | None = None
    """The pieces of a column's name between its stars."""

    @classmethod
    def parse(cls, text: str) -> FieldPattern:
        """Read a pattern. Raises ValueError, saying from which character on it is no path."""
        if not text or len(text) > PATH_CHARACTERS_MAX or text != text.strip():
            msg = f"a path has 1 to {PATH_CHARACTERS_MAX} characters, and no spaces around it"
            raise ValueError(msg)
        if text in {"*", "**"}:
            return cls(text, (DEEP,))
        if text.startswith("**."):
            return cls(text, (DEEP, *_steps(text, 2)))
        if not text.startswith("$"):
            return cls(text, (), tuple(text.split("*")))
        root = _ROOT.match(text)
        if root is None:
            msg = f"{text!r} begins with none of {', '.join(ROOTS)}"
            raise ValueError(msg)
        return cls(text, (root[0], *_steps(text, root.end())))

    def fits(self, parts: Parts) -> bool:
        """Whether it names this very field."""
        if self.column is not None:
            return len(parts) == 1 and _fits_column(self.column, str(parts[0]))
        return _fits(self.tokens, parts)

    def covers(self, parts: Parts) -> bool:
        """Whether it names this field, or something that the field lies in."""
        if self.column is not None:
            return self.fits(parts)
        return _fits(self._covering, parts)

    def lies_below(self, parts: Parts) -> bool:
        """Whether it names something within this field; of a pattern with `**`, what comes before is known."""
        above = self.tokens[: len(parts)]
        return len(above) == len(parts) < len(self.tokens) and DEEP not in above and _fits(above, parts)

    @cached_property
    def _covering(self) -> tuple[Token, ...]:
        return self.tokens if self.tokens[-1] is DEEP else (*self.tokens, DEEP)

    @property
    def literals(self) -> int:
        """How many parts it names without a star: of two patterns the one with more means the field more closely."""
        if self.column is not None:
            return len(self.column) == 1
        return sum(not isinstance(token, _Star) for token in self.tokens)

    @property
    def names_element(self) -> bool:
        """Whether it tells elements apart that are one field otherwise: `$.items[0]`, `$.years.2026`."""
        return any(not isinstance(token, _Star) and _is_element(token) for token in self.tokens)


def _steps(text: str, start: int) -> list[Token]:
    tokens: list[Token] = []
    while start < len(text):
        step = _STEP.match(text, start)
        if step is None:
            msg = f'{text!r} is no path from {text[start : start + 20]!r} on: write .name, .*, .**, [*], [0] or ["a b"]'
            raise ValueError(msg)
        if (star := step["star"] or step["any"]) is not None:
            tokens.append(DEEP if star == "**" else ANY)
        elif step["index"] is not None:
            tokens.append(int(step["index"]))
        elif step["quoted"] is not None:
            tokens.append(_unquoted(step["quoted"]))
        else:
            tokens.append(step["name"])
        start = step.end()
    return tokens


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError as error:
        msg = f"{text} is no JSON string"
        raise ValueError(msg) from error


def _fits(tokens: tuple[Token, ...], parts: Parts) -> bool:
    """Going back to the last `**` only, as for file names: at most len(tokens) * len(parts) steps."""
    at = part = 0
    deep, resume = -1, 0
    while part < len(parts):
        token = tokens[at] if at < len(tokens) else None
        if token is DEEP:
            deep, resume = at, part
            at += 1
        elif token is not None and (token is ANY or _is_same(token, parts[part])):
            at += 1
            part += 1
        elif deep >= 0:
            resume += 1
            at, part = deep + 1, resume
        else:
            return False
    return all(token is DEEP for token in tokens[at:])


def _is_same(token: Token, part: Part) -> bool:
    return type(token) is type(part) and token == part


def _fits_column(pieces: tuple[str, ...], name: str) -> bool:
    if len(pieces) == 1:
        return name == pieces[0]
    first, *middle, last = pieces
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def generalised(parts: Parts) -> Parts:
    """The field that a path is about, whichever element of a list: `$.items[3].price` is about `$.items[*].price`.

    Names that look like identifiers (numbers, UUIDs, long hexadecimal) are elements too: `$.users.81213.name`.
    """
    return tuple("*" if _is_element(part) else part for part in parts)


def _is_element(part: Part) -> bool:
    return not isinstance(part, str) or isinstance(part, Row) or _IDENTIFIER.fullmatch(part) is not None


def render(parts: Parts) -> str:
    """The path as people write it; a very long one is cut."""
    first, *rest = parts
    text = str(first) + "".join(_rendered(part) for part in rest)
    return text if len(text) <= 2 * PATH_CHARACTERS_MAX else f"{text[: 2 * PATH_CHARACTERS_MAX]}…"


def _rendered(part: Part) -> str:
    if isinstance(part, int | Row) or part == "*":
        return f"[{part}]"
    return f".{part}" if _SIMPLE.fullmatch(part) else f"[{json.dumps(part[:PATH_CHARACTERS_MAX])}]"
