"""What can be read of judges: what each says of a rollout, and which rollouts are being judged."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from interlock.core.actor import Actor
from interlock.core.errors import Denied, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.rollout_judge import JudgeName, SessionName
from interlock.core.view import View
from interlock.judges.answer import answer_of
from interlock.judges.sessions import Sessions
from interlock.judges.store import Session
from interlock.lib.clock import Clock


class JudgeArgs(Frozen):
    """One rollout: the judge, and what tells this rollout from the next; `stable` where the judge needs it."""

    judge: JudgeName
    session: SessionName
    stable: SessionName | None = None
    purpose: Literal["ask", "look", "end"] = "ask"
    """To ask begins the judging where it has not begun, and keeps it going; to look does neither; to end ends it."""


class JudgesArgs(Frozen):
    """All judges, or one of them."""

    judge: JudgeName | None = None
    limit: int = Field(default=20, ge=1, le=200)


class _OfSessions(View):
    """Reads from the sessions."""

    discloses: ClassVar[Discloses] = "content"

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock


class JudgeView(_OfSessions):
    """The verdict. Whoever asks first begins the judging, which is Interlock's own work: it reads metrics at declared
    destinations, and changes nothing outside."""

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "What a judge says of a rollout that somebody else drives: success, failure, inconclusive."
    Args: ClassVar[type[Frozen]] = JudgeArgs

    def subject(self, args: JudgeArgs) -> str:
        """Each judge for itself: the code `view:judge.NAME` suffices."""
        return f"{self.name}.{args.judge}"

    async def read(self, actor: Actor, args: JudgeArgs) -> JsonObject:
        """Raises NotFound, Invalid, Conflict (too many are judged), Denied (to end what somebody else began)."""
        sessions, now = self._sessions, self._clock.now()
        declared = sessions.declared(args.judge)
        if args.purpose == "ask":
            found: Session | None = await sessions.ask(args.judge, args.session, args.stable, actor.id)
        else:
            found = await sessions.store.find(args.judge, args.session)
        if found is None:
            msg = f"{args.judge} was never asked about {args.session}"
            raise NotFound(msg, code="judge.session_unknown", fix="interlock judge list")
        if args.purpose == "end" and found.ended_at is None:
            if found.begun_by not in {None, actor.id}:
                msg = f"{args.session} was begun by {found.begun_by}, who alone ends it"
                raise Denied(msg, code="judge.not_yours", fix="it ends by itself when nobody asks any more")
            await sessions.store.end(found.number, "who drives it said that it is over", now)
            found = await sessions.store.find(args.judge, args.session) or found
        return answer_of(found, declared, now)


class JudgesView(_OfSessions):
    """All of them."""

    name: ClassVar[str] = "judges"
    summary: ClassVar[str] = "Judges of rollouts that others drive, and the rollouts that they are asked about."
    Args: ClassVar[type[Frozen]] = JudgesArgs

    async def read(self, actor: Actor, args: JudgesArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a name that is none."""
        sessions, now = self._sessions, self._clock.now()
        names = sorted(sessions.known()) if args.judge is None else [args.judge]
        declared = {name: sessions.declared(name) for name in names}
        rows = await sessions.store.newest(args.judge, args.limit)
        judges: list[JsonValue] = [
            {
                "judge": name,
                "reads": ", ".join(each.destinations),
                "every_seconds": each.every_seconds,
                "open": sum(row.judge == name and row.ended_at is None for row in rows),
            }
            for name, each in declared.items()
        ]
        found: list[JsonValue] = [answer_of(row, declared.get(row.judge), now) for row in rows]
        return {"judges": judges, "sessions": found}
