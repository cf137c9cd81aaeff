"""The types of argument values: what a text must be before a program is given it."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from interlock.commands.model import Access

Cardinality = Literal["one", "optional", "any", "many"]
CARDINALITIES: dict[str, Cardinality] = {"?": "optional", "*": "any", "+": "many"}

PATH_CHARACTERS_MAX = 4096
_MINUS_SIGNS = frozenset("\u2212\u02d7\u06d4\u2796")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})

_GO_LITERAL = r"[A-Za-z0-9 \t\\:;,|/()\[\]=\"'_.@#%*<>-]"
_GO_FIELD = r"\{\{ ?(?:json |upper |lower )?\.[A-Za-z.]{0,60}(?: \"[A-Za-z0-9._/-]{1,80}\")? ?\}\}"
_GO_FORMAT = rf"(?:table )?(?:{_GO_LITERAL}|{_GO_FIELD}){{1,400}}"

PATTERNS: dict[str, tuple[str, str]] = {
    "word": (r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,254}", "a plain word"),
    "glob": (r"[A-Za-z0-9_.:@+*?\[\]{}^,=~%-]{1,255}", "a name that may hold * and ?"),
    "count": (r"[0-9]{1,9}", "a number"),
    "signed": (r"[+-]?[0-9]{1,9}", "a number, with or without a sign"),
    "decimal": (r"[0-9]{1,6}(?:\.[0-9]{1,6})?", "a decimal number"),
    "duration": (r"(?:[0-9]{1,6}(?:\.[0-9]{1,6})?(?:ns|us|ms|s|min|m|h|d|w)?){1,4}", "a duration such as 10m"),
    "size": (r"[0-9]{1,12}(?:\.[0-9]{1,3})?(?:[kKMGTPEZY]i?)?[bB]?", "a size such as 100M"),
    "unit": (r"[A-Za-z0-9_:][A-Za-z0-9:_.\\@-]{0,254}", "a unit name such as nginx.service"),
    "unit-pattern": (r"[A-Za-z0-9_:*?\[][A-Za-z0-9:_.\\@*?\[\]-]{0,254}", "a unit name or pattern"),
    "container": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "a container name or id"),
    "service": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "a service name"),
    "volume": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", "a volume name"),
    "image": (r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", "an image reference"),
    "package": (r"[a-z0-9][a-z0-9+.:~_-]{0,126}(?:[a-z0-9]|\+\+)(?:[=/][A-Za-z0-9.+:~_-]{1,100})?", "a package name"),
    "package-pattern": (r"[A-Za-z0-9*?][A-Za-z0-9+.:~*?_-]{0,126}", "a package name or pattern"),
    "user": (r"[a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,10}", "a user name or id"),
    "interface": (r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,30}", "a network interface"),
    "kube-name": (r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "a Kubernetes name"),
    "kube-selector": (r"[A-Za-z0-9!(][A-Za-z0-9_./=!,() -]{0,254}", "a label or field selector"),
    "signal": (r"(?:SIG)?(?:HUP|INT|QUIT|KILL|TERM|USR1|USR2|CONT|STOP|WINCH)|1|2|3|9|10|12|15|18|19|28", "a signal"),
    "timestamp": (r"-?[A-Za-z0-9@][A-Za-z0-9 :.+@-]{0,63}", "a point in time such as '1 hour ago'"),
    "port": (r"[0-9]{1,5}", "a port number"),
    "domain": (r"[A-Za-z0-9_*](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?", "a domain name"),
    "columns": (r"[A-Za-z%+_-][A-Za-z0-9_%,:=.+ -]{0,254}", "a list of columns"),
    "mode": (r"[01]?[0-7]{3}|[ugoa]{0,4}(?:[+=-][rwxX]{1,4})(?:,[ugoa]{0,4}[+=-][rwxX]{1,4}){0,3}", "a file mode"),
    "owner": (r"[a-z_][a-z0-9_.-]{0,31}(?::[a-z_][a-z0-9_.-]{0,31})?", "an owner such as www-data:www-data"),
    "date-format": (r"\+[A-Za-z0-9%:,./ _T+-]{1,128}", "a format such as +%F"),
    "setting": (r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}", "the name of a setting"),
    "go-format": (_GO_FORMAT, "a format made of {{.Field}}"),
}
_PREFIXES: dict[str, dict[str, Any]] = {
    "optional": {"optional": True},
    "apart": {"apart": True},
    "maybe": {"optional": True, "greedy": True},
    "revision": {"access": "revision"},
}
_DASH_FIRST = frozenset({"signed", "timestamp", "columns"})
_LOOK_ALIKE_FREE = "plain ASCII"


@dataclass(frozen=True, slots=True)
class ValueType:
    """What one value must be.

    `unicode`: letters outside ASCII are allowed. `dash`: it may begin with `-`. `access` marks a path.
    `optional`: an option's value may be left out, and is then only taken when attached (`--color=auto`), or, where the
    program is `greedy`, when the next argument looks like one (`journalctl -n 20`). `apart`: never attached.
    """

    spec: str
    description: str
    accepts: Callable[[str], object]
    unicode: bool = False
    dash: bool = False
    access: Access | None = None
    optional: bool = False
    greedy: bool = False
    apart: bool = False
    cardinality: Cardinality = "one"

    def problem(self, text: str, *, attached: bool = False) -> str | None:
        """Why `text` is not such a value; None when it is. `attached` values cannot be mistaken for options."""
        if not self.unicode and not text.isascii():
            return f"{text!r} is not {_LOOK_ALIKE_FREE}"
        if text.startswith("-") and not self.dash and not (attached and self.unicode):
            return f"{text!r} begins with a dash where {self.description} is expected"
        return None if self.accepts(text) else f"{text!r} is not {self.description}"


def hidden_character(text: str) -> str | None:
    """The first character that a reader would not see or could misread; None when there is none.

    Control, format (zero-width, bidirectional), unassigned, private and surrogate characters, line separators, spaces
    other than U+0020, a first character that looks like the dash of an option; and text that is not in normal form C.
    """
    if text.isascii() and text.isprintable():
        return None
    first = text[0]
    if first != "-" and (unicodedata.category(first) == "Pd" or first in _MINUS_SIGNS):
        return f"U+{ord(first):04X}"
    for character in text:
        category = unicodedata.category(character)
        if category in _HIDDEN_CATEGORIES or (category == "Zs" and character != " "):
            return f"U+{ord(character):04X}"
    return None if unicodedata.is_normalized("NFC", text) else "a sequence that is not in Unicode normal form C"


def parse_type(spec: str, types: Mapping[str, str]) -> ValueType:
    """Read a type as the schema writes it.

    `NAME`, `integer 1..65535`, `a|b|c`, `list TYPE` (commas), `path read`, `/REGEX/`, `optional TYPE`, `maybe TYPE`
    (optional and greedy), `apart TYPE` (never attached), `revision TYPE` (a name that is no path), `=TEXT` (exactly
    that); a positional adds `?`, `*` or `+`. `types` are the program's own named regular expressions.

    Raises:
        ValueError: There is no such type.
    """
    text = spec.strip()
    head, _, rest = text.partition(" ")
    if head in _PREFIXES and rest:
        return replace(parse_type(rest, types), spec=spec, **_PREFIXES[head])
    if len(text) > 1 and text[-1] in CARDINALITIES and not (text.startswith("/") and text.endswith("/")):
        inner = parse_type(text[:-1], types)
        return replace(inner, spec=spec, cardinality=CARDINALITIES[text[-1]])
    if text.startswith("revision "):
        return replace(parse_type(text.removeprefix("revision "), types), spec=spec, access="revision")
    if text.startswith("list "):
        return _list_of(spec, parse_type(text.removeprefix("list "), types))
    if text.startswith("/") and text.endswith("/"):
        return _regular_expression(spec, text[1:-1], f"text matching {text[1:-1]}")
    if text in types:
        return _regular_expression(spec, types[text], f"a {text} of this program")
    return _built_in(spec, text)


def _built_in(spec: str, text: str) -> ValueType:
    head, _, rest = text.partition(" ")
    if head == "integer" and (bounds := re.fullmatch(r"(-?[0-9]+)\.\.([0-9]+)", rest)):
        return _integer(spec, int(bounds[1]), int(bounds[2]))
    if head == "path" and rest in {"read", "write", "trust", "repository", "certificate"}:
        return ValueType(spec, "a path", _is_path, unicode=True, access=cast("Access", rest))
    if text == "text":
        return ValueType(spec, "text", _is_text, unicode=True)
    if text == "any-text":
        return ValueType(spec, "text", _is_text, unicode=True, dash=True)
    if text in {"host", "address"}:
        return ValueType(spec, "a host name or address", _is_host if text == "host" else _is_address)
    if text in PATTERNS:
        pattern, description = PATTERNS[text]
        return replace(_regular_expression(spec, pattern, description), dash=text in _DASH_FIRST)
    if "|" in text and re.fullmatch(r"[^\s|]+(?:\|[^\s|]+)+", text):
        words = frozenset(text.split("|"))
        return ValueType(spec, f"one of {', '.join(sorted(words))}", words.__contains__, dash=True)
    if text.startswith("=") and text[1:]:
        return ValueType(spec, f"exactly {text[1:]!r}", frozenset({text[1:]}).__contains__, dash=True)
    msg = f"there is no type {spec!r}; use one of {', '.join(sorted(PATTERNS))}, integer A..B, path read, text, a|b"
    raise ValueError(msg)


def _regular_expression(spec: str, pattern: str, description: str) -> ValueType:
    return ValueType(spec, description, re.compile(pattern, re.ASCII).fullmatch, dash=True)


def _integer(spec: str, low: int, high: int) -> ValueType:
    digits = re.compile(r"-?[0-9]{1,12}", re.ASCII)

    def accepts(text: str) -> bool:
        return digits.fullmatch(text) is not None and low <= int(text) <= high

    return ValueType(spec, f"a number from {low} to {high}", accepts, dash=low < 0)


def _list_of(spec: str, item: ValueType) -> ValueType:
    def accepts(text: str) -> bool:
        return all(part and item.problem(part) is None for part in text.split(","))

    return ValueType(spec, f"a comma-separated list, each {item.description}", accepts, dash=item.dash)


def _is_text(text: str) -> bool:
    return bool(text)


def _is_path(text: str) -> bool:
    return 0 < len(text) <= PATH_CHARACTERS_MAX


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?", re.ASCII)


def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None or _is_address(text)
