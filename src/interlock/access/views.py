"""What is known of tokens, never their hashes, and of everybody who may come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from interlock.core.actor import Actor
from interlock.core.model import Frozen, JsonObject
from interlock.core.project import Agent, Person, Project, Service
from interlock.core.token import BearerKind, Token
from interlock.core.view import View
from interlock.engine.policy.codes import bounds_of
from interlock.engine.token_store import TokenStore
from interlock.lib.clock import Clock


@dataclass(frozen=True)
class AccessDesk:
    """What these views read from."""

    store: TokenStore
    project: Callable[[], Project]
    clock: Clock


class TokensArgs(Frozen):
    """`actor` is KIND:NAME; `state`: those that open something, or all."""

    actor: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    state: Literal["good", "all"] = "good"


class Nothing(Frozen):
    """No arguments."""


class TokensView(View):
    """The tokens there are."""

    name: ClassVar[str] = "tokens"
    summary: ClassVar[str] = "Tokens: whom each stands for, what for, until when, and the hour of its last use."
    Args: ClassVar[type[Frozen]] = TokensArgs

    def __init__(self, desk: AccessDesk) -> None:
        self._desk = desk

    async def read(self, actor: Actor, args: TokensArgs) -> JsonObject:
        """Newest first. People see all of them, others their own."""
        now = self._desk.clock.now()
        shown: list[JsonObject] = []
        for token in await self._desk.store.all():
            whose = f"{token.kind}:{token.actor}"
            if (actor.kind != "person" and whose != actor.id) or args.actor not in {None, whose}:
                continue
            if args.state == "all" or token.is_good_at(now):
                state = "good" if token.is_good_at(now) else "revoked" if token.revoked_at else "expired"
                shown.append(_shown(token, whose, state))
        return {"tokens": [*shown]}


class ActorsView(View):
    """Everybody."""

    name: ClassVar[str] = "actors"
    summary: ClassVar[str] = "People, services and agents: their roles, what their codes let them do, their tokens."
    Args: ClassVar[type[Frozen]] = Nothing

    def __init__(self, desk: AccessDesk) -> None:
        self._desk = desk

    async def read(self, actor: Actor, args: Nothing) -> JsonObject:  # noqa: ARG002
        """As interlock.yaml declares them now. `codes` is null for whom no codes bind."""
        project, now = self._desk.project(), self._desk.clock.now()
        good = Counter((token.kind, token.actor) for token in await self._desk.store.all() if token.is_good_at(now))
        kinds: tuple[tuple[BearerKind, Mapping[str, Person | Service | Agent]], ...] = (
            ("person", project.people),
            ("service", project.services),
            ("agent", project.agents),
        )
        found = [
            _actor(kind, name, each, project, good[kind, name])
            for kind, all_of in kinds
            for name, each in all_of.items()
        ]
        return {"you": actor.id, "actors": [*found]}


def _actor(
    kind: BearerKind, name: str, declared: Person | Service | Agent, project: Project, tokens: int
) -> JsonObject:
    owner = declared.on_behalf_of if isinstance(declared, Agent) else None
    on_behalf_of = f"person:{owner.removeprefix('person:')}" if owner is not None else None
    actor = Actor(kind=kind, name=name, roles=declared.roles, on_behalf_of=on_behalf_of)
    bounds = bounds_of(actor, project)
    return {
        "id": actor.id,
        "kind": kind,
        "name": name,
        "user": declared.user,
        "on_behalf_of": actor.on_behalf_of,
        "roles": [*actor.roles],
        "codes": [*bounds["codes"]] if "codes" in bounds else None,
        "owner_codes": [*bounds["owner_codes"]] if "owner_codes" in bounds else None,
        "tokens": tokens,
    }


def _shown(token: Token, whose: str, state: str) -> JsonObject:
    """A token without its hash."""
    return {
        "id": token.id,
        "name": token.name,
        "actor": whose,
        "on_behalf_of": token.on_behalf_of,
        "scopes": [*token.scopes],
        "state": state,
        "created_by": token.created_by,
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat(),
        "revoked_at": token.revoked_at.isoformat() if token.revoked_at is not None else None,
        "last_used_at": token.last_used_at.isoformat() if token.last_used_at is not None else None,
    }
