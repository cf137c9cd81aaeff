"""How the columns of two tables differ: gone, new, of another type, in another order."""

from __future__ import annotations

from interlock.comparison.rules import ReadyRules
from interlock.comparison.table_rules import column_way
from interlock.comparison.table_sources import TableSource
from interlock.core.comparison import Difference, Kind

NAMED_MAX = 20


def schema_differences(stable: TableSource, candidate: TableSource, rules: ReadyRules) -> tuple[Difference, ...]:
    """One Difference for each column, and one for the order and the delimiter."""
    found = [
        _difference(name, "removed", "there", None, stable, rules)
        for name in stable.names
        if name not in candidate.names
    ]
    found += [
        _difference(name, "added", None, "there", stable, rules) for name in candidate.names if name not in stable.names
    ]
    if stable.types:
        types = dict(zip(candidate.names, candidate.types, strict=True))
        for name, kind in zip(stable.names, stable.types, strict=True):
            if name in types and types[name] != kind:
                found.append(_difference(name, "type", kind, types[name], stable, rules))
    order = [name for name in stable.names if name in candidate.names]
    other = [name for name in candidate.names if name in stable.names]
    if order != other and not stable.typed_json:
        found.append(_whole("(order of columns)", "order", ", ".join(order[:NAMED_MAX]), ", ".join(other[:NAMED_MAX])))
    if stable.delimiter != candidate.delimiter:
        found.append(_whole("(delimiter)", "type", stable.delimiter, candidate.delimiter))
    return tuple(each for each in found if each.grade != "ignore")


_WORDS: dict[str, str] = {
    "removed": "the column is gone",
    "added": "the column is new",
    "type": "the column is of another type",
    "order": "the columns are in another order",
}


def _difference(
    name: str, kind: Kind, stable: str | None, candidate: str | None, source: TableSource, rules: ReadyRules
) -> Difference:
    way = column_way(name, rules, typed_json=source.typed_json)
    if way.is_ignored:
        return Difference(path=name, kind=kind, stable=stable, candidate=candidate, grade="ignore")
    grade, _ = way.grade(kind)
    if name in rules.declared.keys and kind == "removed":
        grade = "block"
    reason = _WORDS[kind] + (f": {candidate}, was {stable}" if kind == "type" else "")
    return Difference(path=name, kind=kind, stable=stable, candidate=candidate, grade=grade, reason=reason)


def _whole(path: str, kind: Kind, stable: str | None, candidate: str | None) -> Difference:
    grade = "block" if path == "(delimiter)" else "warn"
    reason = "values are separated otherwise" if path == "(delimiter)" else _WORDS[kind]
    return Difference(path=path, kind=kind, stable=stable, candidate=candidate, grade=grade, reason=reason)
