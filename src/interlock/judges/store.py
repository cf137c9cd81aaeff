"""All SQL of judging sessions: who asks about which rollout, and what its judge knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from interlock.core.errors import Conflict, Denied
from interlock.core.model import JsonObject
from interlock.engine.db import Connection, Database

OPEN_MAX = 100
SHOWN_MAX = 200

_COLUMNS = "number, judge, session, stable, begun_by, begun_at, asked_at, ended_at, ended_because, judgement, trouble"


@dataclass(frozen=True)
class Session:
    """One rollout that is judged, or was."""

    number: int
    judge: str
    session: str
    stable: str | None
    begun_by: str | None
    """Whose it is (`service:rollouts`); None for a row from before that was remembered: it is anybody's."""
    begun_at: datetime
    asked_at: datetime
    ended_at: datetime | None
    ended_because: str | None
    judgement: JsonObject | None
    trouble: str | None


@dataclass(frozen=True)
class Kept:
    """What is needed to go on: the judge's state, and until where was read."""

    state: JsonObject | None
    place: JsonObject


class SessionStore:
    """One row for each session; of one judge and one name only one is open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, judge: str, session: str, stable: str | None, now: datetime, *, by: str) -> Session:
        """The open one of this name, which was asked about now; where there is none, or it is of another stable
        version, a new one, which is whose `by` names. Raises Conflict where too many are open; Denied where the open
        one is of another stable version and somebody else's."""
        asked = {"judge": judge, "session": session, "stable": stable, "now": now, "by": by, "max": OPEN_MAX}
        async with self._database.transaction() as connection:
            await _execute(
                connection,
                """update judge_session set ended_at = %(now)s, ended_because = 'of another stable version'
                   where judge = %(judge)s and session = %(session)s and ended_at is null
                       and stable is distinct from %(stable)s and coalesce(begun_by, %(by)s) = %(by)s""",
                asked,
            )
            rows = await _execute(
                connection,
                f"""insert into judge_session (judge, session, stable, begun_by, begun_at, asked_at)
                    select %(judge)s, %(session)s, %(stable)s, %(by)s, %(now)s, %(now)s
                    where (select count(*) from judge_session where ended_at is null) < %(max)s
                        or exists (select 1 from judge_session
                                   where judge = %(judge)s and session = %(session)s and ended_at is null)
                    on conflict (judge, session) where ended_at is null
                        do update set asked_at = greatest(judge_session.asked_at, excluded.asked_at)
                        where judge_session.stable is not distinct from excluded.stable
                    returning {_COLUMNS}""",
                asked,
            )
        if rows:
            return Session(**rows[0])
        found = await self.find(judge, session)
        if found is not None and found.ended_at is None:
            msg = f"{session} is judged against another stable version, {found.stable}, for {found.begun_by}"
            raise Denied(msg, code="judge.not_yours", fix="ask with the same ?stable=, or about another session")
        msg = f"{OPEN_MAX} rollouts are being judged, which is all that are at once"
        raise Conflict(msg, code="judge.sessions", fix="wait until some of them are over: interlock judge list")

    async def find(self, judge: str, session: str) -> Session | None:
        """The newest one of this name, without asking about it."""
        query = f"""select {_COLUMNS} from judge_session where judge = %s and session = %s
                    order by number desc limit 1"""
        found = await self._rows(query, judge, session)
        return Session(**found[0]) if found else None

    async def newest(self, judge: str | None, limit: int = SHOWN_MAX) -> list[Session]:
        """Of one judge or of all, open ones first."""
        query = f"""select {_COLUMNS} from judge_session where %s::text is null or judge = %s
                    order by ended_at is not null, number desc limit %s"""
        return [Session(**row) for row in await self._rows(query, judge, judge, min(limit, SHOWN_MAX))]

    async def open(self) -> list[Session]:
        """All that are open, oldest first."""
        query = f"select {_COLUMNS} from judge_session where ended_at is null order by number limit %s"
        return [Session(**row) for row in await self._rows(query, OPEN_MAX)]

    async def kept(self, number: int) -> Kept:
        """What was kept last."""
        (row,) = await self._rows("select state, place from judge_session where number = %s", number)
        return Kept(row["state"], row["place"])

    async def keep(self, number: int, kept: Kept, judgement: JsonObject, trouble: str | None) -> None:
        """State, place and judgement in one statement: after a crash they are of one moment."""
        await self._rows(
            """update judge_session set state = %s, place = %s, judgement = %s, trouble = %s
               where number = %s and ended_at is null returning number""",
            *(json.dumps(kept.state), json.dumps(kept.place), json.dumps(judgement), trouble, number),
        )

    async def end(self, number: int, because: str, now: datetime) -> None:
        """It is over; its last judgement stays, what the judge knew is not needed any more."""
        await self._rows(
            """update judge_session set ended_at = %s, ended_because = %s, state = null, place = '{}'
               where number = %s and ended_at is null returning number""",
            *(now, because, number),
        )

    async def prune(self, before: datetime) -> None:
        """Forget those that ended long ago."""
        await self._rows("delete from judge_session where ended_at < %s returning number", before)

    async def _rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()


async def _execute(connection: Connection, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    cursor = await connection.execute(query.encode(), parameters)
    return await cursor.fetchall() if cursor.description is not None else []
