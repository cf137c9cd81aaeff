"""Finds where in a document a model complained, without the names of models, and of a union what was meant; pure."""

from __future__ import annotations

import difflib
import types
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from interlock.lib.strict_yaml import Path as YamlPath

_UNIONS = (Union, types.UnionType)


class Choice(NamedTuple):
    """A union on the way to a place: `label` is what pydantic calls the member that complained there."""

    path: YamlPath
    label: str
    member: Any
    given: Any


@dataclass(frozen=True)
class Place:
    """A path as the document has it. `keys` are those that the model which complained knows, as written in YAML."""

    path: YamlPath
    keys: tuple[str, ...]
    choices: tuple[Choice, ...]


def meant(root: type[BaseModel], data: Any, details: Iterable[ErrorDetails]) -> list[tuple[Place, ErrorDetails]]:
    """The complaints, each with its place. Where each member of a union complained, only the likeliest one counts."""
    found = [(_place(root, data, detail["loc"]), detail) for detail in details]
    while True:
        choices = [choice for place, _ in found for choice in place.choices]
        open_path = next((path for path in _outermost(choices) if _labels(choices, path) > 1), None)
        if open_path is None:
            return found
        best = _likeliest([choice for choice in choices if choice.path == open_path])
        found = [
            (place, detail)
            for place, detail in found
            if all(choice.path != open_path or choice.label == best for choice in place.choices)
        ]


def _outermost(choices: list[Choice]) -> list[YamlPath]:
    return sorted({choice.path for choice in choices}, key=len)


def _labels(choices: list[Choice], path: YamlPath) -> int:
    return len({choice.label for choice in choices if choice.path == path})


def _likeliest(choices: list[Choice]) -> str:
    """The member that knows most of the keys which are there, or nearly those; then the one with fewest complaints."""
    complaints = Counter(choice.label for choice in choices)
    members = {choice.label: choice for choice in choices}
    return max(members, key=lambda label: (_likeness(members[label]), -complaints[label]))


def _likeness(choice: Choice) -> float:
    keys, given = _keys(choice.member), choice.given
    if not isinstance(given, Mapping):
        return 0.0 if keys else 1.0
    return sum(1.0 if key in keys else 0.5 * bool(difflib.get_close_matches(str(key), keys, n=1)) for key in given)


def _place(root: Any, data: Any, location: YamlPath) -> Place:
    path: list[str | int] = []
    choices: list[Choice] = []
    kind, given, owner = root, data, root
    for index, part in enumerate(location):
        members = _members(kind)
        if len(members) > 1:
            kind = next((each for each in members if part in _names(each)), None)
            choices.append(Choice(tuple(path), str(part), kind, given))
            continue
        kind = members[0] if members else None
        owner = kind if index == len(location) - 1 else owner
        kind = _inner(kind, part)
        given = _value(given, part)
        path.append(part)
    return Place(tuple(path), tuple(sorted(_keys(owner))), tuple(choices))


def _members(kind: Any) -> list[Any]:
    """The kinds that a value may have: several for a union, otherwise one."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _members(get_args(kind)[0])
    if origin in _UNIONS:
        return [each for each in get_args(kind) if each is not type(None)]
    return [kind]


def _names(kind: Any) -> set[object]:
    """What pydantic may call a member of a union: by its class, or by the tag that tells it apart."""
    kind = _members(kind)[0]
    names: set[object] = {getattr(kind, "__name__", str(kind))}
    for field in _fields(kind).values():
        names.update(each for each in get_args(field.annotation) if isinstance(each, str))
    return names


def _inner(kind: Any, part: str | int) -> Any:
    """The kind of what lies at a key or an index."""
    for name, field in _fields(kind).items():
        if part in {name, field.alias}:
            return field.annotation
    arguments = [each for each in get_args(kind) if each is not ...]
    if isinstance(part, int) and get_origin(kind) is tuple and ... not in get_args(kind):
        return arguments[part] if part < len(arguments) else None
    return arguments[-1] if arguments else None


def _value(given: Any, part: str | int) -> Any:
    if isinstance(given, Mapping):
        return given.get(part)
    inside = isinstance(given, list) and isinstance(part, int) and part < len(given)
    return given[part] if inside else None


def _keys(kind: Any) -> list[str]:
    return [field.alias or name for name, field in _fields(kind).items()]


def _fields(kind: Any) -> Mapping[str, Any]:
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
