"""What the small door of another machine allows: little, whoever asks and whatever was approved elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from interlock.core.errors import Denied
from interlock.core.model import Frozen
from interlock.core.plan import Plan, Step
from interlock.core.project import Roots, TargetPattern
from interlock.engine.policy.protected import Patterns, protected_targets, resolve_paths

NEVER_CHANGED: tuple[str, ...] = (
    *("file:/etc/interlock/**", "file:/etc/ssh/**", "file:/root/.ssh/**", "file:/home/*/.ssh/**"),
    *("unit:ssh*", "unit:sshd*", "unit:interlock*"),
)
"""What decides who comes in here, and what he may do then."""


class DoorPolicy(Frozen):
    """All of /etc/interlock/door.yaml. Without that file only what changes nothing and discloses nothing runs.

    `discloses: content` lets the contents of files beneath `roots.read`, logs and messages be read; a secret never is.
    `changes` lists programs whose described changes may run, and `file.write` and `file.remove`: these reach what lies
    beneath `roots.write`, and show what they replace, so that they need `discloses: content` too. `protected` is never
    touched, as in interlock.yaml.
    """

    version: Literal[1] = 1
    discloses: Literal["nothing", "content"] = "nothing"
    changes: tuple[str, ...] = ()
    roots: Roots = Roots()
    protected: tuple[TargetPattern, ...] = ()
    timeout_seconds_max: float = 3600.0


def require_allowed(plan: Plan, policy: DoorPolicy, realpath: Callable[[str], str]) -> None:
    """Raises Denied for what this machine does not allow."""
    for step in plan.steps:
        refusal = _why_not(str(step.params.get("program") or plan.action), step, policy)
        if refusal is not None:
            raise _denied(*refusal)
    patterns = Patterns(resolve_paths((*policy.protected, *NEVER_CHANGED), realpath))
    met = next((found for found in protected_targets(plan, patterns) if plan.steps[found.step].changes), None)
    if met is not None:
        why = f"{met.target.key} is protected ({met.pattern})"
        raise _denied(why, "ask a person who works there")


def _why_not(program: str, step: Step, policy: DoorPolicy) -> tuple[str, str] | None:
    """Why, and what to do instead."""
    if step.opaque:
        return f"nobody knows what {program} does", "describe the command there, or run it yourself"
    if step.discloses == "secret":
        return "it would show a secret", "look there yourself"
    if step.discloses == "content" and policy.discloses == "nothing":
        return "it would show contents", "its administrator sets `discloses: content`"
    if step.changes and program not in policy.changes:
        return f"{program} may change nothing", f"its administrator lists {program} under `changes`"
    return None


def _denied(why: str, instead: str) -> Denied:
    msg = f"the door of this machine does not allow it: {why}"
    return Denied(msg, code="door.refused", fix=f"{instead} (/etc/interlock/door.yaml)")
