"""What a refusal tells besides its reason: which target it was about, and what the actor may do instead."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from datetime import datetime

from interlock.core.actor import Actor
from interlock.core.decision import Outcome
from interlock.core.plan import Plan, Target
from interlock.core.role import code_of_action
from interlock.engine.policy.facts import ProjectFacts
from interlock.engine.policy.lint import Rule
from interlock.engine.policy.protected import protected_targets
from interlock.engine.policy.request import touches_own
from interlock.engine.policy.windows import next_change_time
from interlock.lib.clock import rfc3339

SHOWN_MAX = 3
COMMAND_CHARACTERS_MAX = 200

_LOOKS: dict[str, Callable[[Target], tuple[str, ...]]] = {
    "unit": lambda target: ("systemctl", "status", target.id),
    "container": lambda target: ("docker", "logs", "--tail", "100", (*target.names, target.id)[0]),
    "file": lambda target: ("ls", "-l", target.id),
}
"""Target kind -> a command that only looks at it."""


def detail_of(word: str, plan: Plan, facts: ProjectFacts, now: datetime) -> str:
    """What a @details word stands for in this decision; the empty string where there is nothing to tell."""
    if word == "protected":
        matches = protected_targets(plan, facts.protected)
        return _several(f"{match.target.key} is covered by {match.pattern}" for match in matches)
    if word == "own":
        return _several(touches_own(plan, facts))
    if word == "opaque":
        return _several(step.summary for step in plan.steps if step.opaque)
    if word == "code":
        return code_of_action(plan.action)
    return window_detail(facts, now) if word == "window" else ""


def window_detail(facts: ProjectFacts, now: datetime) -> str:
    """Which window stands in the way and when changes are allowed next."""
    state = facts.calendar.at(now)
    if state.open:
        return ""
    next_time = next_change_time(facts.calendar.windows, now)
    when = f"next at {rfc3339(next_time)[:16]}Z" if next_time else "no window opens in the next two weeks"
    what = f"window {', '.join(state.blocking)}" if state.blocking else "outside every window for changes"
    return f"{what}; {when}"


def instead_of(actor: Actor, plan: Plan, rules: Iterable[Rule], outcome: Outcome) -> tuple[str, ...]:
    """What the actor may do instead: what the policies advise, then how to look, then whom to ask.

    A rule that steps aside for an approval speaks of waiting for one, so it is heard only where the Run waits.
    """
    waits = outcome == "needs_approval"
    found = [rule.instead for rule in rules if rule.instead and (waits or rule.requirement is None)]
    if actor.kind != "person" and plan.changes:
        looks = [_LOOKS[target.kind](target) for target in plan.targets if target.kind in _LOOKS and _is_plain(target)]
        found += [f"look: interlock exec -- {shlex.join(look)}" for look in looks[: SHOWN_MAX - 1]]
        argv = plan.args.get("argv")
        if outcome == "forbid" and isinstance(argv, list) and argv:
            command = shlex.join(str(word) for word in argv)
            if len(command) <= COMMAND_CHARACTERS_MAX:
                found.append(f"tell a person, who may decide to run: interlock exec -- {command}")
    return tuple(dict.fromkeys(found))


def _is_plain(target: Target) -> bool:
    """Whether an identity can be shown on one line as it is."""
    return target.id.isprintable() and len(target.id) <= COMMAND_CHARACTERS_MAX


def _several(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(found[:SHOWN_MAX]) + more
