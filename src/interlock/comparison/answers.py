"""Compares two answers field by field: status, chosen headers, and a body that is JSON, text, or neither."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from interlock.comparison.equality import Literal, canonical_text, is_exact, kind_of, read_number, shown
from interlock.comparison.rules import ReadyRules, Way
from interlock.core.comparison import Difference, Grade, Kind
from interlock.lib.field_path import ANY, DEEP, FieldPattern, Part, Parts, Row, Token, generalised, render

DEPTH_MAX = 64
"""What lies deeper is compared as a whole."""
FIELDS_MAX = 50_000
"""So many values of one answer are looked at one by one; what is left then is compared as a whole."""
FOUND_MAX = 200
"""So many differences of two answers are kept; more are counted."""
FOUND_OF_ONE_FIELD_MAX = 20
"""So many of one field, so that many small differences of one hide no grave difference of another."""
MORE_MAX = 2_000
"""After so many that were not kept the rest is not looked at."""
WEIGHED_MAX = 100_000
"""So many elements of lists that differ are held against each other without their order, for one answer."""

_DIGEST_SHOWN = 16


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


MISSING: Final = _Missing()


class Found(NamedTuple):
    """One difference, in the form in which it is counted."""

    parts: Parts
    kind: Kind
    stable: Any
    candidate: Any
    way: Way
    grade: Grade
    reason: str

    @property
    def field(self) -> str:
        """The field it is about, whichever element."""
        return render(generalised(self.parts))

    def told(self) -> Difference:
        """The form in which people and programs get it; values are cut to a bounded length."""
        return Difference(
            path=render(self.parts),
            field=self.field,
            kind=self.kind,
            stable=None if self.stable is MISSING else shown(self.stable),
            candidate=None if self.candidate is MISSING else shown(self.candidate),
            grade=self.grade,
            reason=self.reason,
        )


class Comparison(NamedTuple):
    """What differs between two answers; `more` differences were found and not kept."""

    found: tuple[Found, ...] = ()
    more: int = 0


class Answer:
    """One answer as it came; the body is read when it is first needed.

    Args:
        status: 100 to 599.
        headers: By lower-case name.
        body: At most what the caller was willing to keep.
        is_cut: The body went on.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, *, is_cut: bool = False) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_cut = is_cut

    @cached_property
    def document(self) -> Any:
        """The body as a JSON value with exact numbers; MISSING when it is none."""
        kind = self.headers.get("content-type", "").lower()
        if self.is_cut or not self.body:
            return MISSING
        if "ndjson" in kind or "json-seq" in kind or "jsonl" in kind:
            return _lines(self.body)
        return _json(self.body) if "json" in kind or self.body.lstrip()[:1] in {b"{", b"["} else MISSING

    @cached_property
    def text(self) -> str | None:
        """The body as text; None when it is none."""
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            return None
        return None if "\0" in text else text


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_float=read_number, parse_int=read_number, parse_constant=Literal)
    except (ValueError, RecursionError):
        return MISSING


def _lines(body: bytes) -> Any:
    documents = [_json(line) for line in body.replace(b"\x1e", b"").split(b"\n") if line.strip()]
    return MISSING if any(document is MISSING for document in documents) else documents


def compare_answers(stable: Answer, candidate: Answer, rules: ReadyRules) -> Comparison:
    """What differs, in the order in which the stable answer has it; bounded in depth, fields and differences.

    Takes time linear in the two bodies. An answer compared with itself has no differences.
    """
    walk = _Walk(rules)
    if stable.status != candidate.status:
        walk.found(("$status",), "status", stable.status, candidate.status)
    for name in sorted(rules.headers):
        _compare_headers(walk, name, stable.headers.get(name), candidate.headers.get(name))
    if stable.body != candidate.body or stable.is_cut != candidate.is_cut:
        try:
            _compare_bodies(walk, stable, candidate)
        except RecursionError:
            walk.found(("$body",), "changed", _digest(stable), _digest(candidate))
    return Comparison(tuple(walk.kept), walk.more)


def unanswered(stable: Answer, why: str, rules: ReadyRules) -> Comparison:
    """The one difference of a candidate that gave no answer; it blocks whatever the rules say of the status."""
    way = Way(None, is_exact, None, outranked=False, keys=tuple(keys_in(stable, rules)))
    return Comparison((Found(("$status",), "status", stable.status, why, way, "block", "it gives no answer"),))


def _compare_headers(walk: _Walk, name: str, stable: str | None, candidate: str | None) -> None:
    parts: Parts = ("$header", name)
    if stable is None or candidate is None:
        walk.missing(parts, MISSING if stable is None else stable, MISSING if candidate is None else candidate)
    elif name == "content-type":
        first, second = (value.lower().replace(" ", "") for value in (stable, candidate))
        if first != second:
            same_type = first.partition(";")[0] == second.partition(";")[0]
            walk.leaf(parts, stable, candidate, "changed" if same_type else "type")
    else:
        walk.leaf(parts, stable, candidate)


def _compare_bodies(walk: _Walk, stable: Answer, candidate: Answer) -> None:
    first, second = stable.document, candidate.document
    if first is not MISSING and second is not MISSING:
        walk.values(("$",), first, second)
    elif first is not MISSING and candidate.body:
        walk.found(("$",), "type", first, candidate.text or _digest(candidate))
    elif (stable.body == b"") != (candidate.body == b""):
        walk.missing(("$body",), _whole(stable), _whole(candidate))
    elif stable.text is None or candidate.text is None or stable.is_cut or candidate.is_cut:
        walk.leaf(("$body",), _digest(stable), _digest(candidate))
    else:
        walk.text(("$body",), stable.text, candidate.text)


def _whole(answer: Answer) -> Any:
    return (answer.text or _digest(answer)) if answer.body else MISSING


def _digest(answer: Answer) -> str:
    more = " and more" if answer.is_cut else ""
    return f"{len(answer.body):,} bytes{more}, sha256 {sha256(answer.body).hexdigest()[:_DIGEST_SHOWN]}"


class _Walk:
    """Goes through two documents at once and keeps what differs."""

    def __init__(self, rules: ReadyRules) -> None:
        self.rules = rules
        self.kept: list[Found] = []
        self.more = 0
        self._left = FIELDS_MAX
        self._weighed = 0
        self._seen: dict[tuple[int, Kind], tuple[Way, int]] = {}

    def found(self, parts: Parts, kind: Kind, stable: Any, candidate: Any) -> None:
        way = self.rules.way(parts)
        if way.is_ignored:
            return
        place = id(way), kind  # one object for each field, which is held here
        count = self._seen.get(place, (way, 0))[1] + 1
        self._seen[place] = way, count
        if len(self.kept) >= FOUND_MAX or count > FOUND_OF_ONE_FIELD_MAX:
            self.more += 1
            return
        grade, reason = way.grade(kind)
        self.kept.append(Found(parts, kind, stable, candidate, way, grade, reason))

    def missing(self, parts: Parts, stable: Any, candidate: Any, *, in_list: bool = False) -> None:
        """One side has nothing here, or neither."""
        if (stable is MISSING and candidate is MISSING) or self.more > MORE_MAX:
            return
        is_removed = candidate is MISSING
        rule = self.rules.way(parts).rule
        if rule is not None and rule.compare == "missing_is_null" and (stable if is_removed else candidate) is None:
            return
        kind: Kind = "removed" if is_removed else "added"
        if in_list:
            kind = "missing_row" if is_removed else "added_row"
        self.found(parts, kind, stable, candidate)

    def leaf(self, parts: Parts, stable: Any, candidate: Any, kind: Kind = "changed") -> None:
        """Two values of one kind that hold no others."""
        way = self.rules.way(parts)
        if not way.is_ignored and not way.is_equal(stable, candidate):
            self.found(parts, kind, stable, candidate)

    def text(self, parts: Parts, stable: str, candidate: str) -> None:
        """Two texts; the first line that differs is told."""
        way = self.rules.way(parts)
        if way.is_ignored or way.is_equal(stable, candidate):
            return
        self.found(parts, "changed", *_first_lines(stable, candidate))

    def values(self, parts: Parts, stable: Any, candidate: Any) -> None:
        """Two values of any kind."""
        if self.more > MORE_MAX:
            return
        kind, other = kind_of(stable), kind_of(candidate)
        if kind != other:
            self._other_kind(parts, stable, candidate)
        elif kind not in {"list", "object"}:
            self.leaf(parts, stable, candidate)
        elif self._left <= 0 or len(parts) > DEPTH_MAX:
            if canonical_text(stable) != canonical_text(candidate):
                self.found(parts, "changed", stable, candidate)
        elif kind == "object":
            self._objects(parts, stable, candidate)
        else:
            self._lists(parts, stable, candidate)

    def _other_kind(self, parts: Parts, stable: Any, candidate: Any) -> None:
        """What was null and has a value now was filled in; what becomes null is as good as gone."""
        self.found(parts, "changed" if stable is None else "type", stable, candidate)

    def _objects(self, parts: Parts, stable: dict[str, Any], candidate: dict[str, Any]) -> None:
        self._left -= len(stable)
        for name, value in stable.items():
            other = candidate.get(name, MISSING)
            if other is MISSING:
                self.missing((*parts, name), value, MISSING)
            elif not _is_same(value, other):
                self.values((*parts, name), value, other)
        for name, value in candidate.items():
            if name not in stable:
                self.missing((*parts, name), MISSING, value)

    def _lists(self, parts: Parts, stable: list[Any], candidate: list[Any]) -> None:
        rule = self.rules.way(parts).rule
        if rule is not None and rule.compare in {"set", "multiset"}:
            self._bags(parts, stable, candidate, once=rule.compare == "set")
        elif rule is not None and rule.compare == "keyed":
            self._rows(parts, _keyed(stable, rule.key or ""), _keyed(candidate, rule.key or ""))
        else:
            self._ordered(parts, stable, candidate)

    def _ordered(self, parts: Parts, stable: list[Any], candidate: list[Any]) -> None:
        before, more, left = len(self.kept), self.more, self._left
        self._left -= len(stable)
        for index, (value, other) in enumerate(zip_longest(stable, candidate, fillvalue=MISSING)):
            if value is MISSING or other is MISSING:
                self.missing((*parts, index), value, other, in_list=True)
            elif not _is_same(value, other):
                self.values((*parts, index), value, other)
        differing = len(self.kept) - before + self.more - more
        if differing < 2 or len(stable) != len(candidate) or self._weighed > WEIGHED_MAX:  # noqa: PLR2004 - one alone cannot be moved
            return
        self._weighed += left - self._left
        if Counter(map(canonical_text, stable)) == Counter(map(canonical_text, candidate)):
            del self.kept[before:]  # the same elements: one difference, and not one for each
            self.more = more
            self.found(parts, "order", stable, candidate)

    def _bags(self, parts: Parts, stable: list[Any], candidate: list[Any], *, once: bool) -> None:
        first, second = _Bag(stable), _Bag(candidate)
        for value in first.without(second, once=once):
            self.missing((*parts, Row("*")), value, MISSING, in_list=True)
        for value in second.without(first, once=once):
            self.missing((*parts, Row("*")), MISSING, value, in_list=True)

    def _rows(self, parts: Parts, stable: dict[Part, Any], candidate: dict[Part, Any]) -> None:
        for name, row in stable.items():
            other = candidate.get(name, MISSING)
            if other is MISSING:
                self.missing((*parts, name), row, MISSING, in_list=True)
            else:
                self.values((*parts, name), row, other)
        for name, row in candidate.items():
            if name not in stable:
                self.missing((*parts, name), MISSING, row, in_list=True)


def _is_same(value: Any, other: Any) -> bool:
    """Surely equal, which most values are: nothing more is asked about them."""
    return type(value) is type(other) and type(value) not in {list, dict} and value == other


class _Bag:
    """Elements of a list without their order."""

    def __init__(self, values: list[Any]) -> None:
        self._values = {canonical_text(value): value for value in values}
        self._counts = Counter(map(canonical_text, values))

    def without(self, other: _Bag, *, once: bool) -> Iterator[Any]:
        """What is here and not there; as often as it is here more often, unless only once counts."""
        for text, count in (self._counts - other._counts).items():
            if not once or text not in other._counts:
                yield from [self._values[text]] * (1 if once else count)


def _keyed(rows: list[Any], key: str) -> dict[Part, Any]:
    """Rows by their key; of several with one key the first is held against the first, the second against the second."""
    seen: Counter[str] = Counter()
    named: dict[Part, Any] = {}
    for row in rows:
        value = row.get(key, MISSING) if isinstance(row, dict) else MISSING
        name = "no " + key if value is MISSING else f"{key}={_key_text(value)}"
        seen[name] += 1
        named[Row(name if seen[name] == 1 else f"{name} #{seen[name]}")] = row
    return named


def _key_text(value: Any) -> str:
    return value if isinstance(value, str) else str(shown(value))


def _first_lines(stable: str, candidate: str) -> tuple[str, str]:
    """The first line that differs on each side, with its number."""
    first, second = stable.splitlines(), candidate.splitlines()
    for number, (one, other) in enumerate(zip(first, second, strict=False), start=1):
        if one != other:
            return f"line {number}: {one}", f"line {number}: {other}"
    if len(first) == len(second):
        return "other line ends", "other line ends"
    number = min(len(first), len(second))
    return (_line(first, number), _line(second, number))


def _line(lines: list[str], number: int) -> str:
    return f"line {number + 1}: {lines[number]}" if number < len(lines) else f"{number} lines"


def keys_in(answer: Answer, rules: ReadyRules) -> frozenset[int]:
    """Which key fields this answer has at all: agreement of a field is counted over the answers that have it."""
    return frozenset(number for number, pattern in enumerate(rules.keys) if _has(answer, pattern))


def _is_there(document: Any, tokens: tuple[Token, ...]) -> bool:
    """Where a document is nested too deeply to look, the field counts as being there."""
    try:
        return _reaches(document, tokens, iter(range(FIELDS_MAX)))
    except RecursionError:
        return True


def _has(answer: Answer, pattern: FieldPattern) -> bool:
    tokens = pattern.tokens
    if not tokens or tokens[0] is DEEP or tokens == ("$status",):
        return True
    if tokens[0] == "$header":
        return len(tokens) == 1 or str(tokens[1]).lower() in answer.headers
    if tokens[0] == "$body":
        return answer.document is MISSING and bool(answer.body)
    if answer.document is MISSING:
        return False
    return _is_there(answer.document, tokens[1:])


def _reaches(value: Any, tokens: tuple[Token, ...], steps: Iterator[int]) -> bool:
    """Whether a path leads somewhere; after `FIELDS_MAX` steps it counts as leading somewhere."""
    if not tokens or next(steps, None) is None:
        return True
    token, rest = tokens[0], tokens[1:]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if token is DEEP:
        return _reaches(value, rest, steps) or any(_reaches(each, tokens, steps) for each in inner)
    if token is ANY:
        return any(_reaches(each, rest, steps) for each in inner)
    if isinstance(token, int):
        return isinstance(value, list) and token < len(value) and _reaches(value[token], rest, steps)
    return isinstance(value, dict) and token in value and _reaches(value[token], rest, steps)
