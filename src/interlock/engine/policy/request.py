"""What a plan, an actor and the moment look like to the policy engine: one request and two entities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue

from interlock.core.actor import Actor
from interlock.core.model import JsonObject
from interlock.core.plan import DISCLOSURES, RISKS, Discloses, Plan, Step, Target
from interlock.core.project import Project
from interlock.core.role import code_of_action, code_of_view, covering
from interlock.engine.policy.codes import Bounds, bounds_of
from interlock.engine.policy.facts import ProjectFacts
from interlock.engine.policy.protected import is_recursive, with_undo
from interlock.engine.policy.target_classes import classes_of
from interlock.engine.policy.windows import WEEKDAYS, WindowState

PRINCIPALS = {"person": "Person", "agent": "Agent", "service": "Service", "system": "System"}
"""Actor kind -> Cedar entity type."""

_RISK_LEVELS = {risk: level for level, risk in enumerate(RISKS)}
_DISCLOSURE_LEVELS = {discloses: level for level, discloses in enumerate(DISCLOSURES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionContext:
    """The moment of a decision; never part of a plan's digest.

    `run` is the Run's number (0 while it has none) and `digest` the plan's: approvals are counted for these two.
    `frozen` and `agents_paused` have no defaults, so that nobody forgets to look.
    """

    now: datetime
    run: int
    digest: str
    frozen: bool
    agents_paused: bool
    held: bool = False
    break_glass: bool = False


@dataclass(slots=True)
class _Summary:
    """All steps of a plan taken together."""

    risk_level: int = 0
    disclosure_level: int = 0
    changes: bool = False
    opaque: bool = False
    undoable: bool = True
    protected: bool = False
    own: bool = False
    classes: set[str] = field(default_factory=set)


def plan_request(
    actor: Actor, plan: Plan, context: DecisionContext, facts: ProjectFacts
) -> tuple[JsonObject, tuple[JsonObject, JsonObject]]:
    """The request (`granted` is False) and its entities: principal first, then plan. Lists are sorted, so that equal
    inputs give equal text."""
    window = facts.calendar.at(context.now)
    bounds = bounds_of(actor, facts.project)
    principal, principal_entity = _principal(actor, facts.project, bounds)
    resource: JsonObject = {"type": "Plan", "id": context.digest}
    request: JsonObject = {
        "principal": principal,
        "action": {"type": "Action", "id": plan.action},
        "resource": resource,
        "context": _with_code(_circumstances(context, window), bounds, code_of_action(plan.action)),
    }
    return request, (principal_entity, {"uid": resource, "attrs": _plan_attributes(plan, facts), "parents": []})


def view_request(
    actor: Actor, name: str, discloses: Discloses, now: datetime, project: Project
) -> tuple[JsonObject, tuple[JsonObject, JsonObject]]:
    """The request to read one of Interlock's own tables, and its entities."""
    bounds = bounds_of(actor, project)
    principal, principal_entity = _principal(actor, project, bounds)
    resource: JsonObject = {"type": "View", "id": name}
    request: JsonObject = {
        "principal": principal,
        "action": {"type": "Action", "id": "view"},
        "resource": resource,
        "context": _with_code(_moment(now), bounds, code_of_view(name)),
    }
    return request, (
        principal_entity,
        {"uid": resource, "attrs": {"name": name, "discloses": discloses}, "parents": []},
    )


def with_granted(request: JsonObject) -> JsonObject:
    """The same request as if everything that soft forbids ask for were there."""
    context = request["context"]
    if not isinstance(context, dict):
        msg = "a request without context"
        raise TypeError(msg)
    return {**request, "context": {**context, "granted": True}}


def touches_own(plan: Plan, facts: ProjectFacts) -> tuple[str, ...]:
    """The keys of targets that belong to Interlock and that the plan would change, or read where they are private."""
    return tuple(
        sorted(
            {
                target.key
                for whole in plan.steps
                for step in with_undo(whole)
                for target in step.targets
                if _is_own(step, target, facts)
            }
        )
    )


def _principal(actor: Actor, project: Project, bounds: Bounds) -> tuple[JsonObject, JsonObject]:
    agent = project.agents.get(actor.name) if actor.kind == "agent" else None
    uid: JsonObject = {"type": PRINCIPALS[actor.kind], "id": actor.name}
    attributes: JsonObject = {
        "kind": actor.kind,
        "id": actor.id,
        "name": actor.name,
        "roles": _sorted(actor.roles),
        "autonomy": agent.autonomy if agent else "ask",
        "declared": is_declared(actor.name, project.people) if actor.kind == "person" else True,
    }
    if actor.on_behalf_of is not None:
        attributes["on_behalf_of"] = actor.on_behalf_of
    if actor.via is not None:
        attributes["via"] = actor.via
    for bound, codes in bounds.items():
        attributes[bound] = [*codes]
    roles: list[JsonValue] = [{"type": "Role", "id": role} for role in actor.roles]
    return uid, {"uid": uid, "attrs": attributes, "parents": roles}


def _with_code(context: JsonObject, bounds: Bounds, code: str) -> JsonObject:
    """Whoever is bound by codes is asked for one; to all others it would only cost time."""
    return {**context, "code": [*covering(code)]} if bounds else context


def is_declared(name: str, people: Mapping[str, object]) -> bool:
    """Whether a person may act: everybody who can log in where interlock.yaml names nobody, else those it names."""
    return not people or name in people


def _moment(now: datetime) -> JsonObject:
    utc = now.astimezone(UTC)
    return {"hour": utc.hour, "minute": utc.minute, "weekday": WEEKDAYS[utc.weekday()]}


def _circumstances(context: DecisionContext, window: WindowState) -> JsonObject:
    return {
        **_moment(context.now),
        "granted": False,
        "break_glass": context.break_glass,
        "frozen": context.frozen,
        "agents_paused": context.agents_paused,
        "held": context.held,
        "in_block_window": bool(window.blocking),
        "outside_allow_window": window.outside,
    }


def _plan_attributes(plan: Plan, facts: ProjectFacts) -> JsonObject:
    """One pass over the steps; this runs for every decision."""
    targets: set[str] = set()
    kinds: set[str] = set()
    operations: set[str] = set()
    summary = _Summary()
    for step in plan.steps:
        operations.update(step.operations)
        for target in step.targets:
            targets.add(target.key)
            kinds.add(target.kind)
        _add_step(summary, step)
        _add_reach(summary, step, facts)
    return {
        "targets": _sorted(targets),
        "target_kinds": _sorted(kinds),
        "target_classes": _sorted(summary.classes),
        "operations": _sorted(operations),
        "operation_kinds": _sorted({operation.partition(".")[0] for operation in operations}),
        "risk": RISKS[summary.risk_level],
        "risk_level": summary.risk_level,
        "changes": summary.changes,
        "opaque": summary.opaque,
        "discloses": DISCLOSURES[summary.disclosure_level],
        "undoable": summary.undoable,
        "protected": summary.protected,
        "reaches_protected": summary.opaque and bool(facts.protected) and not facts.project.isolated,
        "own": summary.own,
    }


def _add_step(summary: _Summary, step: Step) -> None:
    changes = step.changes or step.opaque
    risk_level, disclosure_level = _RISK_LEVELS[step.risk], _DISCLOSURE_LEVELS[step.discloses]
    summary.risk_level = max(summary.risk_level, risk_level)
    summary.disclosure_level = max(summary.disclosure_level, disclosure_level)
    if changes:
        summary.changes = True
        summary.undoable = summary.undoable and step.undo is not None


def _add_reach(summary: _Summary, whole: Step, facts: ProjectFacts) -> None:
    """What a step, or what would take it back, touches of that which is nobody's to touch."""
    following: Step | None = whole
    while following is not None:
        step, following = following, following.undo
        if step.opaque:
            summary.opaque = True
        recursive = is_recursive(step)
        for target in step.targets:
            # Most targets are of no interest to anybody, and one look says so.
            if facts.watched.match(target, recursive=recursive) is not None:
                _add_watched(summary, whole, step, target, facts)


def _add_watched(summary: _Summary, whole: Step, step: Step, target: Target, facts: ProjectFacts) -> None:
    changes = step.changes or step.opaque
    summary.own = summary.own or _is_own(step, target, facts)
    if changes and not summary.protected:
        summary.protected = facts.protected.match(target, recursive=is_recursive(step)) is not None
    if changes and step is whole:
        summary.classes.update(classes_of(target))


def _is_own(step: Step, target: Target, facts: ProjectFacts) -> bool:
    if facts.own_private.match(target, above=False) is not None:
        return True
    changes = step.changes or step.opaque
    return changes and facts.own_changed.match(target, recursive=is_recursive(step)) is not None


def _sorted(texts: Iterable[str]) -> list[JsonValue]:
    return cast("list[JsonValue]", sorted(texts))
