"""What recorded Runs would have been answered by another set of policies, and every difference; pure, given the set.

A Run's decision keeps word for word what the policy engine was asked. The same question is put to the other set, and
both answers are compared as they were before anybody said yes: a Run that was permitted because its asker confirmed
counts as one that needed a yes. What interlock.yaml contributes (who is declared, what is protected, whether a window
was open) is part of the question, and stays as it was.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import JsonValue, ValidationError

from interlock.core.decision import Decision, Effect, Outcome, Reason, Requirement
from interlock.core.model import JsonObject
from interlock.engine.policy.judge import DEFAULT_DENY, judge
from interlock.engine.policy.lint import Rule
from interlock.engine.policy.load import PolicySet

EXAMPLES_MAX = 5
GROUPS_MAX = 2000
SUMMARY_GROUPS_MAX = 50
RANGES_MAX = 50_000
WHY_CHARACTERS_MAX = 300

What = Literal["outcome", "requirements", "reasons"]
Part = Literal["added", "changed", "removed"]

ORDERED = frozenset({"invariant.frozen", "invariant.agents-paused"})
"""The rules whose recorded reason tells of the order that somebody gave, in place of their own words."""

_SOFT: frozenset[Effect] = frozenset({"approve", "confirm"})
_DIGEST = re.compile(r"[0-9a-f]{64}")


class RecordedRun(NamedTuple):
    """A Run as the table has it, with its decision as JSON."""

    number: int
    actor: str
    action: str
    summary: str
    decision: JsonObject


class _Stand(NamedTuple):
    """How one policy takes part in an answer. `requirement` is None where it asks for nothing, or nobody knows what."""

    reason: Reason
    requirement: Requirement | None


@dataclass(frozen=True)
class _Answer:
    """What a set of policies says before anybody said yes."""

    outcome: Outcome
    stands: Mapping[str, _Stand]

    def to_json(self) -> JsonObject:
        reasons: list[JsonValue] = [
            {"policy": each.reason.policy, "effect": each.reason.effect, "reason": each.reason.reason}
            for each in self.stands.values()
        ]
        requirements: list[JsonValue] = [
            each.requirement.model_dump(mode="json") for each in self.stands.values() if each.requirement is not None
        ]
        return {"outcome": self.outcome, "reasons": reasons, "requirements": requirements}


class Known(NamedTuple):
    """What the policies of one set (by its digest) ask for: the set in force, against which most Runs were decided."""

    policy_set: str
    requirements: Mapping[str, Requirement]


def known_of(policies: PolicySet) -> Known:
    """What is to be known of a set that is loaded."""
    return Known(policies.digest, {name: rule.requirement for name, rule in policies.rules.items() if rule.requirement})


def replay(policies: PolicySet, runs: Iterable[RecordedRun], known: Known) -> JsonObject:
    """Decide these Runs by `policies`; `known` says what those that decided them asked for, where they are still known.

    Returns `{decided, differences, unreplayable}`: a number, and one object for each Run that is in one of the two.
    """
    decided = 0
    differences: list[JsonValue] = []
    unreplayable: list[JsonValue] = []
    for run in runs:
        found = _decide(policies, run, known)
        if isinstance(found, str):
            unreplayable.append({**_about(run), "why": _DIGEST.sub("...", found)[:WHY_CHARACTERS_MAX]})
            continue
        decided += 1
        old, new, rules = found
        difference = _difference(old, new, rules)
        if difference is not None:
            differences.append({**_about(run), **difference, "old": old.to_json(), "new": new.to_json()})
    return {"decided": decided, "differences": differences, "unreplayable": unreplayable}


def _about(run: RecordedRun) -> JsonObject:
    return {"run": run.number, "actor": run.actor, "action": run.action, "summary": run.summary}


def _decide(policies: PolicySet, run: RecordedRun, known: Known) -> tuple[_Answer, _Answer, Mapping[str, Rule]] | str:
    """The recorded answer and the other one, or why there is none."""
    try:
        decision = Decision.model_validate(run.decision)
    except ValidationError as error:
        return f"its decision is not recorded in a shape that is known here: {error.error_count()} faults"
    if not decision.request or not decision.entities:
        return "the policies could not be asked when it was decided, so that there is no question to put again"
    old = _recorded(decision, known)
    try:
        # Most answers stay what they were, which says whether the second question will be needed.
        verdict = judge(policies, decision.request, decision.entities, at_once=old.outcome == "needs_approval")
    except (KeyError, TypeError, ValueError) as error:
        return f"its question is not recorded in a shape that is known here: {type(error).__name__}: {error}"
    if verdict.trouble:
        return "the policies give no answer that can be trusted: " + "; ".join(verdict.trouble)
    rules = verdict.permitting if verdict.outcome == "permit" else verdict.blocking
    stands = {rule.reason.policy: _Stand(rule.reason, rule.requirement) for rule in rules}
    return old, _Answer(verdict.outcome, stands or _by_default()), policies.rules


def _by_default() -> dict[str, _Stand]:
    return {DEFAULT_DENY.policy: _Stand(DEFAULT_DENY, None)}


def _recorded(decision: Decision, known: Known) -> _Answer:
    """The recorded answer as it was before a yes was counted."""
    outcome, reasons = decision.outcome, decision.reasons
    soft = tuple(reason for reason in reasons if reason.effect in _SOFT)
    if outcome == "permit" and soft:
        outcome, reasons = "needs_approval", soft
    written = {each.policy: each for each in decision.requirements}
    stands = {}
    for reason in reasons:
        requirement = None
        if known.policy_set == decision.policy_set:
            requirement = known.requirements.get(reason.policy)
        elif reason.effect == "approve":
            # What is recorded is what was missing, which for approvals is all: nobody can have given one before.
            requirement = written.get(reason.policy)
        stands[reason.policy] = _Stand(reason, requirement)
    return _Answer(outcome, stands)


def _difference(old: _Answer, new: _Answer, rules: Mapping[str, Rule]) -> JsonObject | None:
    """What differs, and the one policy that it is counted under; None where nothing does."""
    changed = [
        name for name, stand in new.stands.items() if name in old.stands and _differs(old.stands[name], stand, rules)
    ]
    added = [name for name in new.stands if name not in old.stands]
    removed = [name for name in old.stands if name not in new.stands]
    if old.outcome == new.outcome and not (changed or added or removed):
        return None
    what: What = "reasons"
    if old.outcome != new.outcome:
        what = "outcome"
    elif _asks_otherwise(old, new, changed, (*added, *removed)):
        what = "requirements"
    policy, part = _cause(old, new, {"added": added, "changed": changed, "removed": removed})
    stand = new.stands.get(policy) or old.stands[policy]
    return {"what": what, "policy": policy, "part": part, "reason": stand.reason.reason}


def _asks_otherwise(old: _Answer, new: _Answer, changed: Iterable[str], others: Iterable[str]) -> bool:
    """Whether anything that is asked for came, went or became another, as far as it is known what was asked for."""
    stands = [new.stands.get(name) or old.stands[name] for name in others]
    return any(stand.reason.effect in _SOFT for stand in stands) or any(
        _other_requirement(old.stands[name], new.stands[name]) for name in changed
    )


def _other_requirement(old: _Stand, new: _Stand) -> bool:
    known = old.requirement is not None or old.reason.effect not in _SOFT
    return known and old.requirement != new.requirement


def _differs(old: _Stand, new: _Stand, rules: Mapping[str, Rule]) -> bool:
    if old.reason.effect != new.reason.effect or old.reason.risk != new.reason.risk:
        return True
    if _other_requirement(old, new):
        return True
    text, rule = new.reason.reason, rules.get(new.reason.policy)
    if old.reason.reason == text or new.reason.policy in ORDERED:
        return False
    # What @details adds to a reason is found in the plan and the moment, not in the policies.
    return not (rule is not None and rule.details and old.reason.reason.startswith(f"{text}: "))


def _cause(old: _Answer, new: _Answer, parts: Mapping[Part, list[str]]) -> tuple[str, Part]:
    """The policy that a person would name: first one that now stands in the way, or no longer does, then any other."""

    def rank(name: str, part: Part) -> tuple[int, str]:
        stand = (old if part == "removed" else new).stands[name]
        if name == DEFAULT_DENY.policy:
            return 9, name
        hindering = stand.reason.effect != "permit"
        order: tuple[Part, ...] = ("added", "changed", "removed")
        return order.index(part) + (0 if hindering else 3), name

    found = [(rank(name, part), name, part) for part, names in parts.items() for name in names]
    if not found:
        return next(iter(new.stands)), "changed"
    _, name, part = min(found)
    return name, part


@dataclass
class _Group:
    """Runs of one kind: how many, which, and a few of them in full."""

    labels: JsonObject
    count: int = 0
    examples: list[JsonValue] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, entry: JsonObject) -> None:
        self.count += 1
        self.numbers.append(int(str(entry["run"])))
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(entry)

    def to_json(self) -> JsonObject:
        return {**self.labels, "count": self.count, "runs": ranges_in_words(self.numbers), "examples": self.examples}


class ReplayReport:
    """Gathers what pages of Runs came to: counts, the number of each Run that differs, a few examples of each kind."""

    def __init__(self) -> None:
        self.decided = 0
        self._differences: dict[tuple[str, ...], _Group] = {}
        self._unreplayable: dict[tuple[str, ...], _Group] = {}

    @property
    def different(self) -> int:
        """How many Runs would have been answered otherwise."""
        return sum(group.count for group in self._differences.values())

    @property
    def unreplayable(self) -> int:
        """Of how many nobody can say."""
        return sum(group.count for group in self._unreplayable.values())

    def add(self, page: JsonObject) -> None:
        """What `replay` said of some Runs."""
        self.decided += int(str(page["decided"]))
        for entry in _objects(page["differences"]):
            old, new = (_outcome(entry[when]) for when in ("old", "new"))
            labels: JsonObject = {name: entry[name] for name in ("policy", "part", "what", "reason")}
            labels |= {"from": old, "to": new}
            _group(self._differences, labels, ("policy", "part", "what", "from", "to")).add(
                {name: value for name, value in entry.items() if name not in {"policy", "part", "what", "reason"}}
            )
        for entry in _objects(page["unreplayable"]):
            _group(self._unreplayable, {"why": entry["why"]}, ("why",)).add(
                {name: value for name, value in entry.items() if name != "why"}
            )

    def to_json(self) -> JsonObject:
        """The groups, those that were met most often first within each policy."""
        return {
            "decided": self.decided,
            "different": self.different,
            "differences": [each.to_json() for each in _in_order(self._differences)],
            "unreplayable": self.unreplayable,
            "unreplayable_by_cause": [each.to_json() for each in _in_order(self._unreplayable)],
        }


def summary_of(report: JsonObject) -> JsonObject:
    """What whoever approves the policies reads: the numbers, and one line for each of the first groups."""
    names = ("since", "until", "decided", "different", "unreplayable")
    lines: list[JsonValue] = [
        f"{group['policy']} ({group['part']}): {group['count']} Runs, {group['from']} -> {group['to']}"
        for group in _objects(report["differences"])[:SUMMARY_GROUPS_MAX]
    ]
    return {**{name: report[name] for name in names}, "groups": lines}


def _in_order(groups: Mapping[tuple[str, ...], _Group]) -> list[_Group]:
    return [group for _, group in sorted(groups.items(), key=lambda each: (each[0][0], -each[1].count, each[0]))]


def _group(groups: dict[tuple[str, ...], _Group], labels: JsonObject, names: tuple[str, ...]) -> _Group:
    key = tuple(str(labels[name]) for name in names)
    if key not in groups and len(groups) >= GROUPS_MAX:
        labels = dict.fromkeys(labels, "(others)")
        key = tuple("(others)" for _ in names)
    return groups.setdefault(key, _Group(labels))


def ranges_in_words(numbers: Iterable[int]) -> str:
    """`1-3, 7`; what is over `RANGES_MAX` ranges is left off, and the text says how many Runs that is."""
    ranges: list[list[int]] = []
    left_off = 0
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        elif len(ranges) < RANGES_MAX:
            ranges.append([number, number])
        else:
            left_off += 1
    words = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
    return f"{words}, and {left_off} more" if left_off else words


def _objects(value: JsonValue) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _outcome(value: JsonValue) -> JsonValue:
    return value["outcome"] if isinstance(value, dict) else ""
