"""`token.create` and `token.revoke`: who may come in without an account of his own, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Denied, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.role import Code, covering
from interlock.core.token import Token
from interlock.engine.actors import declared_actor

DAYS_MAX = 366
SCOPES_MAX = 50
ID = r"^[a-z2-7]{12}$"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}"
_MOMENT = datetime.fromtimestamp(0, UTC)


class CreateArgs(Frozen):
    """`hash` is the SHA-256 (hex) of the secret's text, which whoever asks made and keeps; nobody else ever sees it.

    `actor` is whom the token stands for; without `scopes` it may do all that its actor may, for `days` days.
    """

    id: str = Field(pattern=ID)
    name: str = Field(pattern=rf"^{_NAME}$")
    actor: str = Field(pattern=rf"^(person|service|agent):{_NAME}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Code, ...] = Field(default=(), max_length=SCOPES_MAX)
    days: int = Field(default=90, ge=1, le=DAYS_MAX)
    on_behalf_of: str | None = Field(default=None, pattern=rf"^person:{_NAME}$")


class RevokeArgs(Frozen):
    """The id of the token, as `tokens` lists it."""

    id: str = Field(pattern=ID)


def token_of(params: JsonObject, created_by: str, created_at: datetime, expires_at: datetime) -> Token:
    """The token that the step of a plan describes."""
    kind, _, actor = str(params["actor"]).partition(":")
    return Token.model_validate(
        {
            "id": params["id"],
            "name": params["name"],
            "kind": kind,
            "actor": actor,
            "on_behalf_of": params["on_behalf_of"],
            "scopes": params["scopes"],
            "sha256": params["hash"],
            "created_by": created_by,
            "created_at": created_at,
            "expires_at": expires_at,
        }
    )


def _approves_everything(scopes: tuple[str, ...]) -> bool:
    """Whether a bearer with these scopes can say yes in a person's name to what is worst, as he can without any."""
    return not scopes or not set(covering("approve:high")).isdisjoint(scopes)


def _revoke_step(identity: str, summary: str) -> Step:
    return Step(
        verb="revoke",
        summary=summary,
        params={"id": identity},
        targets=(Target(kind="token", id=identity),),
        risk="low",
        operations=("token.revoke",),
        repeatable=True,
        irreversible="a token that was revoked stays revoked; make a new one",
    )


class _OfTokens(Action):
    """Changes the table of tokens, by the verb of its step."""

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write it. Raises NotFound, Conflict, Denied."""
        data = context.arrange(f"token.{step.verb}", step.params)
        if step.verb == "revoke" and data["count"] == 0:
            return StepResult(ok=True, summary="it had been revoked before", data=data)
        return StepResult(ok=True, summary=step.summary, data=data)


class CreateToken(_OfTokens):
    """A way in for whoever has no account here."""

    name: ClassVar[str] = "token.create"
    summary: ClassVar[str] = "Let the bearer of a token ask as a person, service or agent that is declared."
    example: ClassVar[JsonObject] = {
        "id": "abcdefgh2345",
        "name": "ci",
        "actor": "service:deploy",
        "hash": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "scopes": ["run:unit.restart", "view:runs"],
        "days": 30,
    }
    Args: ClassVar[type[Frozen]] = CreateArgs

    def read_facts(self, args: CreateArgs) -> JsonObject:
        """The roles that its bearer will have. Raises NotFound where interlock.yaml declares nobody of that name."""
        supposed = token_of(args.model_dump(mode="json"), "", _MOMENT, _MOMENT)
        try:
            actor = declared_actor(self.ports.project(), supposed)
        except Denied as error:
            raise NotFound(error.message, code="actor.undeclared", fix="declare it in interlock.yaml first") from error
        return {"roles": list(actor.roles), "on_behalf_of": actor.on_behalf_of}

    def plan(self, args: CreateArgs, facts: JsonObject) -> Plan:
        """One step, which can be taken back."""
        kind, _, actor = args.actor.partition(":")
        may = f"only {', '.join(args.scopes)}" if args.scopes else "all that he may"
        summary = f"make the token {args.name} ({args.id}) for {args.actor}, good for {args.days} days and {may}"
        step = Step(
            verb="create",
            summary=summary[:500],
            params=args.model_dump(mode="json"),
            targets=(Target(kind=kind, id=actor), Target(kind="token", id=args.id)),
            risk="high" if kind == "person" and _approves_everything(args.scopes) else "medium",
            operations=("token.create",),
            repeatable=True,
            undo=_revoke_step(args.id, f"revoke the token {args.name} ({args.id})"),
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )


class RevokeToken(_OfTokens):
    """The end of a token, at once."""

    name: ClassVar[str] = "token.revoke"
    summary: ClassVar[str] = "Let a token open nothing any more."
    example: ClassVar[JsonObject] = {"id": "abcdefgh2345"}
    Args: ClassVar[type[Frozen]] = RevokeArgs

    def plan(self, args: RevokeArgs, facts: JsonObject) -> Plan:  # noqa: ARG002
        """One step."""
        step = _revoke_step(args.id, f"revoke the token {args.id}")
        return Plan(action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,))
