"""Whether the freezes in force concern a plan or an actor; pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from interlock.core.actor import Actor
from interlock.core.freeze import Freeze
from interlock.core.plan import Plan
from interlock.engine.policy.protected import Patterns, protected_targets


def freeze_of(plan: Plan, freezes: Iterable[Freeze]) -> Freeze | None:
    """The first freeze that covers something the plan would change; an opaque plan may change anything."""
    for freeze in freezes:
        if freeze.scope != "targets":
            continue
        if freeze.pattern == "*" or plan.opaque or protected_targets(plan, Patterns((freeze.pattern,))):
            return freeze
    return None


def told(freeze: Freeze) -> str:
    """What an order says to whom it stops: who gave it, until when, and why."""
    until = f" until {freeze.until:%Y-%m-%d %H:%M} UTC" if freeze.until is not None else ""
    if freeze.scope == "agents":
        return f"agents are paused by {freeze.set_by}{until}: {freeze.reason}; they may read, and change nothing"
    what = "changes" if freeze.pattern == "*" else f"changes of {freeze.pattern}"
    return f"{what} are frozen by {freeze.set_by}{until}: {freeze.reason}"


def glass_of(actor: Actor, plan: Plan, freezes: Iterable[Freeze]) -> Freeze | None:
    """The glass this person broke that covers everything the plan would change, or None."""
    if actor.kind != "person":
        return None
    changed = {target.key for step in plan.steps if step.changes for target in step.targets}
    for freeze in freezes:
        if freeze.scope != "glass" or freeze.set_by != actor.id or not changed:
            continue
        covered = {match.target.key for match in protected_targets(plan, Patterns((freeze.pattern,)))}
        if changed <= covered:
            return freeze
    return None


def pause_of(actor: Actor, freezes: Iterable[Freeze]) -> Freeze | None:
    """The first pause that concerns this agent; None for anybody else."""
    if actor.kind != "agent":
        return None
    return next((each for each in freezes if each.scope == "agents" and fnmatchcase(actor.name, each.pattern)), None)
