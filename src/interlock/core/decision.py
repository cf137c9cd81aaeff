"""Permit, forbid or needs-approval, with the reasons and the exact inputs that led there."""

from __future__ import annotations

from typing import Literal

from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Risk

Outcome = Literal["permit", "forbid", "needs_approval"]
Effect = Literal["permit", "forbid", "approve", "confirm"]


class Reason(Frozen):
    """One policy that took part in a decision: its @id, its @reason, what it did, the @risk it guards against."""

    policy: str
    reason: str
    effect: Effect
    risk: Risk = "none"


class Requirement(Frozen):
    """What one soft forbid asks for before it steps aside.

    `approvals`: how many distinct people other than the asker, each with one of `roles` (any person when empty).
    `confirmations`: how many times the asker himself must say yes.
    """

    policy: str
    approvals: int = 0
    confirmations: int = 0
    roles: tuple[str, ...] = ()


class Decision(Frozen):
    """The answer, and all that is needed to decide the same again.

    `request` and `entities` are what was given to the policy engine, word for word; `policy_set` is the SHA-256 of the
    policies, schema and preset in force. `instead` lists what the actor may do in place of what was refused.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...]
    requirements: tuple[Requirement, ...] = ()
    request: JsonObject = {}
    entities: tuple[JsonObject, ...] = ()
    policy_set: str = ""
    instead: tuple[str, ...] = ()
