"""One person's yes or no to one Run with one digest by one asker."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from interlock.core.decision import Requirement
from interlock.core.model import Frozen

ApprovalKind = Literal["approval", "confirmation"]
REASON_CHARACTERS_MAX = 2000


class Approval(Frozen):
    """A verdict, bound to the Run, the plan's digest, the asker and an expiry; it is used once.

    `kind` is `confirmation` when the asker speaks for himself: it never counts as another person's approval.
    """

    run: int
    digest: str
    asker: str
    approver: str
    roles: tuple[str, ...]
    kind: ApprovalKind
    verdict: bool
    reason: str | None
    at: datetime
    expires_at: datetime


def missing(
    requirements: tuple[Requirement, ...],
    approvals: tuple[Approval, ...],
    *,
    run: int,
    digest: str,
    asker: str,
    asker_principals: frozenset[str],
    now: datetime,
) -> tuple[Requirement, ...]:
    """What is still asked for, given verified verdicts; empty when all requirements are met.

    A verdict counts only if it says yes, names this Run, digest and asker, and has not expired. Approvals of the asker
    (or of the person he works for) are ignored; distinct people are counted once.
    """
    valid = [
        approval
        for approval in approvals
        if approval.verdict
        and approval.run == run
        and approval.digest == digest
        and approval.asker == asker
        and now < approval.expires_at
    ]
    confirmations = sum(1 for approval in valid if approval.kind == "confirmation" and approval.approver == asker)
    others = [
        approval for approval in valid if approval.kind == "approval" and approval.approver not in asker_principals
    ]
    left = []
    for requirement in requirements:
        people = {
            approval.approver
            for approval in others
            if not requirement.roles or set(requirement.roles) & set(approval.roles)
        }
        approvals_left = max(0, requirement.approvals - len(people))
        confirmations_left = max(0, requirement.confirmations - confirmations)
        if approvals_left or confirmations_left:
            left.append(
                requirement.model_copy(update={"approvals": approvals_left, "confirmations": confirmations_left})
            )
    return tuple(left)
