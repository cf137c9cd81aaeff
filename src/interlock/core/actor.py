"""Who asks: a person, a service, an agent, or Interlock itself."""

from __future__ import annotations

from typing import Literal

from interlock.core.model import Frozen

ActorKind = Literal["person", "service", "agent", "system"]


class Actor(Frozen):
    """An authenticated identity.

    `roles` are the names given in interlock.yaml (`operator`, `sre-lead`).
    `on_behalf_of` is the id of the person an agent works for; an agent never has more rights than its policies
    give to agents, whoever it works for.
    `via` is the id of the token that it came with, if it did; `scopes` are the codes that this token is kept to, None
    where it is kept to none.
    """

    kind: ActorKind
    name: str
    roles: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    via: str | None = None
    scopes: tuple[str, ...] | None = None

    @property
    def id(self) -> str:
        """The stable id, `person:alice`: what evidence and idempotency keys are scoped to."""
        return f"{self.kind}:{self.name}"

    @property
    def principals(self) -> frozenset[str]:
        """Every id this actor may not approve for: himself and whom he works for."""
        return frozenset({self.id, *([self.on_behalf_of] if self.on_behalf_of else [])})


SYSTEM = Actor(kind="system", name="interlock")
