"""A plan and what would become of it."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.core.decision import Decision
from interlock.core.plan import Plan


@dataclass(frozen=True)
class Proposal:
    """Shown to whoever asked; nothing was recorded and nothing was done."""

    plan: Plan
    digest: str
    decision: Decision

    @property
    def needs_only_asker(self) -> bool:
        """Whether nobody but the asker himself has to say yes."""
        return not any(requirement.approvals for requirement in self.decision.requirements)
