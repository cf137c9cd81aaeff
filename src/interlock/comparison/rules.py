"""Rules made ready for use: which one a field falls under, and how grave it is when it differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import NamedTuple

from interlock.comparison.equality import Equal, equality
from interlock.core.comparison import ComparisonRules, FieldRule, Grade, Kind
from interlock.lib.field_path import FieldPattern, Parts, generalised

KNOWN_FIELDS_MAX = 20_000
"""So many fields are remembered with their rule; then it begins anew, for names may be made up without end."""

GRADE_WITHOUT_RULE: dict[Kind, tuple[Grade, str]] = {
    "removed": ("block", "what users of the answer rely on is gone"),
    "missing_row": ("block", "a row is gone"),
    "type": ("block", "it is of another type"),
    "status": ("block", "it is another status"),
    "added": ("warn", "it is new"),
    "added_row": ("warn", "a row is new"),
    "order": ("warn", "the order is another"),
    "changed": ("warn", "the value is another, and no rule speaks of it"),
}
_GRAVITY: dict[Grade, int] = {"ignore": 0, "warn": 1, "block": 2}


class Way(NamedTuple):
    """How one field is compared and graded."""

    rule: FieldRule | None
    is_equal: Equal
    key: int | None
    """Which of the key fields it belongs to; the first one."""
    outranked: bool
    """The rule does not name the field more closely than the key fields do: a difference blocks, whatever it says."""
    budget_percent: float = 0.0
    """Which part of the answers may differ here; of a rule for stars, a key field has no budget."""
    keys: tuple[int, ...] = ()
    """All key fields that differ when this differs: those it belongs to, and those that lie within it."""

    @property
    def is_ignored(self) -> bool:
        """Whether differences here are not even looked at."""
        return self.rule is not None and self.rule.grade == "ignore" and not self.outranked

    def grade(self, kind: Kind) -> tuple[Grade, str]:
        """How grave a difference of this kind is here, and why."""
        if self.key is not None and (self.rule is None or self.outranked):
            grade, reason = GRADE_WITHOUT_RULE[kind]
            if grade != "block":
                reason = "it is a key field" if kind == "changed" else f"{reason}, and it is about a key field"
            return "block", reason
        if self.rule is None:
            return GRADE_WITHOUT_RULE[kind]
        return self.rule.grade, self.rule.reason or f"the rule for {self.rule.path}"


def graver(one: Grade, other: Grade) -> Grade:
    """The one that counts for more."""
    return one if _GRAVITY[one] >= _GRAVITY[other] else other


@dataclass
class ReadyRules:
    """ComparisonRules on one day: paths parsed once, patterns compiled once, what is expired left out.

    The last rule that fits a field counts; one that ignores covers all that lies below the field as well. A key field
    covers all below it, and a difference there blocks unless a rule names the field more closely.
    """

    declared: ComparisonRules
    today: date
    _known: dict[Parts, Way] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counting = [rule for rule in self.declared.rules if not self._is_expired(rule)]
        self._rules = [(FieldPattern.parse(rule.path), rule, equality(rule)) for rule in reversed(counting)]
        self.keys = tuple(FieldPattern.parse(path) for path in self.declared.key_fields)
        self._tells_elements = any(
            pattern.names_element for pattern in (*self.keys, *(rule[0] for rule in self._rules))
        )

    def _is_expired(self, rule: FieldRule) -> bool:
        return rule.expires is not None and rule.expires <= self.today

    @property
    def expired(self) -> tuple[FieldRule, ...]:
        """Rules that no longer count, for the report."""
        return tuple(rule for rule in self.declared.rules if self._is_expired(rule))

    @cached_property
    def headers(self) -> frozenset[str]:
        """Which headers are compared: the content type, and those that a rule or a key field names."""
        patterns = [*self.keys, *(pattern for pattern, _, _ in self._rules)]
        named = {
            str(pattern.tokens[1]).lower()
            for pattern in patterns
            if pattern.tokens[:1] == ("$header",) and len(pattern.tokens) > 1 and isinstance(pattern.tokens[1], str)
        }
        return frozenset(named | {"content-type"})

    def way(self, parts: Parts) -> Way:
        """How this field is compared and graded."""
        place = parts if self._tells_elements else generalised(parts)
        known = self._known.get(place)
        if known is None:
            if len(self._known) >= KNOWN_FIELDS_MAX:
                self._known.clear()
            known = self._known[place] = self._decide(parts)
        return known

    def _decide(self, parts: Parts) -> Way:
        keys = [number for number, pattern in enumerate(self.keys) if pattern.covers(parts)]
        within = [number for number, pattern in enumerate(self.keys) if pattern.lies_below(parts)]
        touched = (*keys, *within)
        closeness = max((self.keys[number].literals for number in touched), default=-1)
        key = touched[0] if touched else None
        for pattern, rule, is_equal in self._rules:
            if pattern.fits(parts) or (rule.grade == "ignore" and pattern.covers(parts)):
                budget = 0.0 if closeness > pattern.literals else rule.budget_percent
                return Way(rule, is_equal, key, closeness >= pattern.literals, budget, touched)
        return Way(None, equality(None), key, outranked=False, keys=touched)
