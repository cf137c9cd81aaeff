"""Leaves out of a question those policies that cannot hold for it; the answer is the same, and is there sooner.

A policy is left out of a question when, whatever else is true,

- its scope cannot hold: it names another type of principal or resource, or another action. Cedar itself says so, asked
  with the scopes alone; or
- its conditions are false because of what is not there: `resource.targets.contains("unit:db.service")` is false of a
  resource without that target, and so is all that stands behind it and `&&`.

Cedar would find such a policy not to hold, and would meet no error on the way, so that it neither decides nor is told
of. This rests on policies that were validated against the schema, and on a resource that Cedar checks against it with
each question. Whatever is not understood here stays in.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from interlock.core.model import JsonObject

Need = tuple[str, str]
"""An attribute of the resource, and a text that must be in that set."""

Kind = tuple[str, str, str, str]
"""Type of the principal, action (type and id), type of the resource: what scopes look at, besides who it is."""

KINDS_MAX = 1024
KEPT_POLICIES_MAX = 10_000
"""In all slices together; further kinds of requests are asked of the whole set."""

SLICE_POLICIES_MAX = 500
"""A larger slice is not made: while it is made, nobody else is answered."""

LEFT_OUT_MIN = 8
"""Fewer are not worth the looking."""

ADDED_COST = 16
"""To add a policy to a set takes as long as to ask so many, and to copy the set half as long as to ask it."""

_ANYTHING: JsonObject = {"op": "All"}


class PolicyTexts(Protocol):
    """A parsed set to which policies can be added."""

    def with_added_str(self, fragment: str) -> Self:
        """A new set that holds the policies of this text as well."""
        ...


Texts = TypeVar("Texts", bound=PolicyTexts)


@dataclass(frozen=True)
class _Slice(Generic[Texts]):
    """What may matter to requests of one kind: `always`, and the policies that each need brings in."""

    always: Texts
    size: int
    left_out: int
    by_need: Mapping[Need, tuple[int, ...]]
    attributes: tuple[str, ...]


class Slices(Generic[Texts]):
    """The slices of one policy set, made when they are first needed.

    Args:
        whole: The set.
        texts: The text of each policy.
        parsed: The same in Cedar's JSON form.
        parse: Makes a set of texts.
        holding: Says which scopes (by number) hold for a request; None when that is not known. It is given the scopes
            as policies in the JSON form, and the request.
    """

    def __init__(
        self,
        whole: Texts,
        texts: Sequence[str],
        parsed: Sequence[Mapping[str, Any]],
        parse: Callable[[str], Texts],
        holding: Callable[[Sequence[JsonObject], JsonObject], frozenset[int] | None],
    ) -> None:
        self._whole = whole
        self._texts = texts
        self._parse = parse
        self._holding = holding
        scopes: dict[str, int] = {}
        self._scope_of = [scopes.setdefault(json.dumps(_scope(each)), len(scopes)) for each in parsed]
        self._scopes: list[JsonObject] = [json.loads(scope) for scope in scopes]
        self._needs = [needs_of(each["conditions"]) for each in parsed]
        self._slices: dict[Kind, _Slice[Texts] | None] = {}
        self._sets: dict[tuple[int, ...], Texts] = {}
        self._kept = 0

    def of(self, requests: Sequence[JsonObject], entities: Sequence[JsonObject]) -> Texts:
        """What to ask in place of the whole set: a set with every policy that may hold for one of the requests."""
        kind = _kind(requests)
        if kind is None:
            return self._whole
        if kind not in self._slices and len(self._slices) < KINDS_MAX:
            self._slices[kind] = self._make(requests[0])
        found = self._slices.get(kind)
        met = _met(found, requests[0]["resource"], entities) if found is not None else None
        if found is None or met is None:
            return self._whole
        if not met:
            return found.always
        if ADDED_COST * len(met) + found.size // 2 > found.left_out:
            return self._whole
        return found.always.with_added_str("\n".join(self._texts[index] for index in sorted(met)))

    def _make(self, request: JsonObject) -> _Slice[Texts] | None:
        """The slice for all requests of this one's kind; None where the whole set does as well."""
        holding = self._holding(self._scopes, request)
        if holding is None:
            return None
        always: list[int] = []
        by_need: defaultdict[Need, list[int]] = defaultdict(list)
        for index, (scope, needs) in enumerate(zip(self._scope_of, self._needs, strict=True)):
            if scope not in holding:
                continue
            if needs is None:
                always.append(index)
            for need in needs or ():
                by_need[need].append(index)
        left_out = len(self._texts) - len(always)
        found = None if left_out < LEFT_OUT_MIN else self._set(tuple(always))
        if found is None:
            return None
        return _Slice(
            found,
            len(always),
            left_out,
            {need: tuple(indexes) for need, indexes in by_need.items()},
            tuple(sorted({attribute for attribute, _ in by_need})),
        )

    def _set(self, indexes: tuple[int, ...]) -> Texts | None:
        """Kinds that differ in nothing a policy looks at share one; None where there is no room for it."""
        if indexes not in self._sets:
            if len(indexes) > SLICE_POLICIES_MAX or self._kept + len(indexes) > KEPT_POLICIES_MAX:
                return None
            self._sets[indexes] = self._parse("\n".join(self._texts[index] for index in indexes))
            self._kept += len(indexes)
        return self._sets[indexes]


def needs_of(conditions: Sequence[Mapping[str, Any]]) -> frozenset[Need] | None:
    """Without one of these in the resource the conditions are false, and meet no error; None where that is not known.

    Conditions count one after another, as if `&&` stood between them.
    """
    for condition in conditions:
        if condition["kind"] == "when" and (needs := _needs(condition["body"])) is not None:
            return needs
        if not _is_harmless(condition["body"]):
            return None
    return None


def _needs(expression: Any) -> frozenset[Need] | None:
    """What one of must be there for an expression not to be false."""
    match expression:
        case {"||": {"left": left, "right": right}}:
            either, other = _needs(left), _needs(right)
            return None if either is None or other is None else either | other
        case {"&&": {"left": left, "right": right}}:
            first = _needs(left)
            return _needs(right) if first is None and _is_harmless(left) else first
        case {"contains": {"left": {".": {"left": {"Var": "resource"}, "attr": str(name)}}, "right": {"Value": one}}}:
            return frozenset({(name, one)}) if isinstance(one, str) else None
        case {"containsAny": {"left": {".": {"left": {"Var": "resource"}, "attr": str(name)}}, "right": {"Set": some}}}:
            texts = [each.get("Value") for each in some]
            return frozenset((name, text) for text in texts) if all(isinstance(text, str) for text in texts) else None
    return None


def _is_harmless(expression: Any) -> bool:
    """Whether evaluating it cannot fail, in a policy that was validated and of a resource that is there."""
    match expression:
        case {"!": {"arg": inner}}:
            return _is_harmless(inner)
        case {"&&": {"left": left, "right": right}} | {"||": {"left": left, "right": right}}:
            return _is_harmless(left) and _is_harmless(right)
        case {"contains": {"left": left, "right": right}} | {"containsAny": {"left": left, "right": right}}:
            return _is_harmless(left) and _is_harmless(right)
        case {"Set": items}:
            return all(_is_harmless(item) for item in items)
        case {".": {"left": {"Var": "resource" | "context"}, "attr": str()}} | {"Value": str() | bool()}:
            return True
        case {"is": {"left": {"Var": _}, "entity_type": str(), **more}}:
            return not more
    return False


def _scope(policy: Mapping[str, Any]) -> JsonObject:
    """A policy's scope as far as it is about types and the action: it holds wherever the policy's own may."""
    return {
        "effect": "permit",
        "principal": _type_alone(policy["principal"]),
        "action": policy["action"],
        "resource": _type_alone(policy["resource"]),
        "conditions": [],
    }


def _type_alone(constraint: Mapping[str, Any]) -> JsonObject:
    match constraint:
        case {"op": "is", "entity_type": str(name)} | {"op": "==", "entity": {"type": str(name)}}:
            return {"op": "is", "entity_type": name}
    return _ANYTHING


def _kind(requests: Sequence[JsonObject]) -> Kind | None:
    """The kind of all of them; None when they differ, or are written in another way than ours."""
    if not requests:
        return None
    first = requests[0]
    parts = [first.get(name) for name in ("principal", "action", "resource")]
    for other in requests[1:]:
        if [other.get(name) for name in ("principal", "action", "resource")] != parts:
            return None
    match parts:
        case [{"type": str(principal)}, {"type": str(group), "id": str(action)}, {"type": str(resource), "id": str()}]:
            return principal, group, action, resource
    return None


def _met(found: _Slice[Any], resource: Any, entities: Sequence[JsonObject]) -> set[int] | None:
    """The policies that the resource brings in; None when it is not there, or is not as expected."""
    attributes = next((entity.get("attrs") for entity in entities if entity.get("uid") == resource), None)
    if not isinstance(attributes, dict):
        return None
    met: set[int] = set()
    for name in found.attributes:
        items = attributes.get(name, [])
        if not isinstance(items, list):
            return None
        for item in items:
            if not isinstance(item, str):
                return None
            met.update(found.by_need.get((name, item), ()))
    return met
