"""Says which policies decided, and which smallest change of circumstances would lead to another outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any, cast

from interlock.core.decision import Decision, Outcome
from interlock.core.model import JsonObject
from interlock.engine.policy.judge import judge
from interlock.engine.policy.load import PolicySet
from interlock.engine.policy.windows import next_change_time
from interlock.lib.clock import rfc3339

CHANGES_MAX = 20
"""How many single changes are tried; pairs of them only when none alone helps."""

_ORDER: tuple[Outcome, ...] = ("forbid", "needs_approval", "permit")


@dataclass(frozen=True)
class DecidingPolicy:
    """A policy that took part, and where it stands (empty and 0 for what is not a policy, such as default-deny)."""

    policy: str
    effect: str
    reason: str
    file: str
    line: int


@dataclass(frozen=True)
class Change:
    """`what` would have to be otherwise (one or two things) for the `outcome`."""

    what: tuple[str, ...]
    outcome: Outcome


@dataclass(frozen=True)
class Explanation:
    """Why a decision came out as it did. `facts` is what the policies were told."""

    outcome: Outcome
    policies: tuple[DecidingPolicy, ...]
    requirements: tuple[JsonObject, ...]
    instead: tuple[str, ...]
    facts: JsonObject
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Try:
    """One thing that could be otherwise, as values to put over the principal, the plan and the circumstances."""

    what: str
    principal: JsonObject
    plan: JsonObject
    context: JsonObject
    person: bool = False


_ONLY_READ = _Try("if it only read", {}, {"changes": False, "opaque": False, "reaches_protected": False}, {})


def explain(policies: PolicySet, decision: Decision, now: datetime) -> Explanation:
    """Explain a decision about a plan, made from `policies`. Pure; asks the policy engine a bounded number of times.

    A decision that was refused before it could be asked (its request is empty) is explained by its reasons alone.
    """
    deciding = tuple(
        DecidingPolicy(
            policy=reason.policy,
            effect=reason.effect,
            reason=reason.reason,
            file=rule.file if (rule := policies.rules.get(reason.policy)) else "",
            line=rule.line if rule else 0,
        )
        for reason in decision.reasons
    )
    changes: tuple[Change, ...] = ()
    facts: JsonObject = {}
    if decision.request and decision.outcome != "permit":
        changes = _changes(policies, decision, now)
    if decision.request:
        facts = {
            "actor": _attributes(decision, 0),
            "action": _part(decision.request, "action")["id"],
            "plan": _attributes(decision, 1),
            "circumstances": decision.request["context"],
        }
    return Explanation(
        outcome=decision.outcome,
        policies=deciding,
        requirements=tuple(requirement.model_dump(mode="json") for requirement in decision.requirements),
        instead=decision.instead,
        facts=facts,
        changes=changes,
    )


def _changes(policies: PolicySet, decision: Decision, now: datetime) -> tuple[Change, ...]:
    found: list[Change] = []
    if decision.outcome == "needs_approval":
        asked = [
            f"{requirement.approvals} approval(s)"
            + (f" by {' or '.join(requirement.roles)}" if requirement.roles else "")
            if requirement.approvals
            else f"{requirement.confirmations} confirmation(s) by the asker"
            for requirement in decision.requirements
        ]
        found.append(Change(what=tuple(asked), outcome="permit"))
    tries = list(_tries(policies, decision, now))[:CHANGES_MAX]
    singles = [(each,) for each in tries]
    found += _ways(policies, decision, singles) or _ways(policies, decision, combinations(tries, 2))
    # That nothing would change is another ask rather than a way, so that it does not keep pairs from being tried.
    found += _ways(policies, decision, [(_ONLY_READ,)] if _attributes(decision, 1).get("changes") else [])
    return tuple(sorted(found, key=lambda change: -_ORDER.index(change.outcome)))


def _ways(policies: PolicySet, decision: Decision, choices: Iterable[tuple[_Try, ...]]) -> list[Change]:
    """Those choices that lead to more than the decision gave."""
    before = _ORDER.index(decision.outcome)
    outcomes = [(chosen, _outcome(policies, decision, chosen)) for chosen in choices]
    return [
        Change(what=tuple(each.what for each in chosen), outcome=outcome)
        for chosen, outcome in outcomes
        if _ORDER.index(outcome) > before
    ]


def _tries(policies: PolicySet, decision: Decision, now: datetime) -> Iterator[_Try]:
    actor, plan = _attributes(decision, 0), _attributes(decision, 1)
    context = _part(decision.request, "context")
    if context.get("frozen"):
        yield _Try("after `interlock unfreeze`", {}, {}, {"frozen": False})
    if context.get("agents_paused"):
        yield _Try("when agents are no longer paused", {}, {}, {"agents_paused": False})
    if context.get("in_block_window") or context.get("outside_allow_window"):
        moment = next_change_time(policies.facts.current().calendar.windows, now)
        when = f"at {rfc3339(moment)[:16]}Z" if moment else "in a window for changes"
        yield _Try(when, {}, {}, {"in_block_window": False, "outside_allow_window": False})
    yield from _tries_of_codes(actor, context)
    yield from _tries_of_actor(actor, context)
    yield from _tries_of_plan(plan)


def _tries_of_codes(actor: JsonObject, context: JsonObject) -> Iterator[_Try]:
    """All bounds that lack the code at once: it takes each of them."""
    covering = cast("list[str]", context.get("code", []))
    bounds = {name: cast("list[str]", actor[name]) for name in ("codes", "owner_codes", "scopes") if name in actor}
    if covering and (lacking := {name for name, codes in bounds.items() if set(covering).isdisjoint(codes)}):
        patch: JsonObject = {name: [*bounds[name], covering[0]] for name in sorted(lacking)}
        yield _Try(f"with the code {covering[0]}", patch, {}, {})


def _tries_of_actor(actor: JsonObject, context: JsonObject) -> Iterator[_Try]:
    if actor["kind"] != "person":
        yield _Try("if a person asked", {"kind": "person", "declared": True}, {}, {}, person=True)
    elif not context.get("break_glass"):
        yield _Try("under a break-glass", {}, {}, {"break_glass": True})
    if actor["kind"] == "agent" and actor["autonomy"] == "read":
        yield _Try("if interlock.yaml gave this agent autonomy: ask", {"autonomy": "ask"}, {}, {})
    if not actor["declared"]:
        yield _Try("if interlock.yaml named this person", {"declared": True}, {}, {})


def _tries_of_plan(plan: JsonObject) -> Iterator[_Try]:
    if plan.get("opaque"):
        yield _Try("if the program were known (interlock adopt)", {}, {"opaque": False, "reaches_protected": False}, {})
    if plan.get("protected"):
        yield _Try("if it touched no protected resource", {}, {"protected": False}, {})
    if plan.get("own"):
        yield _Try("if it touched nothing of Interlock itself", {}, {"own": False}, {})
    if plan.get("discloses") == "secret":
        yield _Try("if it disclosed no secret", {}, {"discloses": "content"}, {})
    if plan.get("risk_level") == 3:  # noqa: PLR2004 - high
        yield _Try("if its risk were medium", {}, {"risk": "medium", "risk_level": 2}, {})
    for key, words in (("target_classes", "if no {} were touched"), ("operations", "without {}")):
        values = cast("list[str]", plan.get(key, []))
        for value in values:
            rest = [each for each in values if each != value]
            patch: JsonObject = {key: [*rest]}
            if key == "operations":
                patch["operation_kinds"] = [*sorted({each.partition(".")[0] for each in rest})]
            yield _Try(words.format(value), {}, patch, {})


def _outcome(policies: PolicySet, decision: Decision, chosen: tuple[_Try, ...]) -> Outcome:
    principal, plan = decision.entities
    request: dict[str, Any] = {**decision.request, "context": {**_part(decision.request, "context")}}
    actor_attributes, plan_attributes = {**_attributes(decision, 0)}, {**_attributes(decision, 1)}
    uid = principal["uid"]
    for each in chosen:
        actor_attributes.update(each.principal)
        plan_attributes.update(each.plan)
        request["context"].update(each.context)
        if each.person:
            uid = {"type": "Person", "id": "somebody"}
            actor_attributes.pop("on_behalf_of", None)
    request["principal"] = uid
    entities: tuple[JsonObject, ...] = (
        {**principal, "uid": uid, "attrs": actor_attributes},
        {**plan, "attrs": plan_attributes},
    )
    return judge(policies, request, entities).outcome


def _attributes(decision: Decision, index: int) -> JsonObject:
    return _part(decision.entities[index], "attrs")


def _part(value: JsonObject, key: str) -> JsonObject:
    return cast("JsonObject", value[key])
