"""All SQL of schedules and their instants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.event import Event
from interlock.core.meter import Meter, Unmetered
from interlock.core.model import JsonObject
from interlock.core.run import FINAL_STATES
from interlock.core.schedule import Schedule
from interlock.engine.db import Connection, Database
from interlock.engine.metrics import SCHEDULE_INSTANTS
from interlock.schedules.model import InstantState, Last, Standing, Waiting

LOCK_CLASS = 0x5C4E_D01E
SHOWN_MAX = 200
SCHEDULES_MAX = 3000
"""Declared ones and open one-offs, which are bounded themselves, and some that are no longer declared."""
WAITING_MAX = 500
PRUNED_AT_ONCE = 10_000

_FINAL = ", ".join(f"'{state.value}'" for state in sorted(FINAL_STATES))
_STANDING = f"""select s.name, s.one_off, s.spec, s.timing_digest, s.declared, s.cursor_at, s.skip_until, s.missed,
       s.actor, s.paused_by, s.paused_reason, s.paused_until, to_jsonb(last) as last,
       exists (select 1 from schedule_instant i where i.schedule = s.name and i.closed_at is null
               and (i.state <> 'submitted' and greatest(i.due_at, i.retry_at) <= %(now)s
                    or i.state = 'submitted'
                       and exists (select 1 from run r where r.number = i.run and r.state in ({_FINAL})))) as owed
    from schedule s left join lateral (
        select instant, state, run, reason, code, count, closed_at from schedule_instant i
        where i.schedule = s.name and i.closed_at is not null order by instant desc limit 1) last on true"""
_SPEAK = "insert into event (kind, labels, data, run) values (%(kind)s, %(labels)s, %(data)s, %(run)s)"


@dataclass(frozen=True)
class Change:
    """What becomes of an instant. `event` is told with it; `run` is kept where it was known before."""

    instant: datetime
    state: InstantState
    at: datetime
    reason: str | None = None
    code: str | None = None
    run: int | None = None
    event: Event | None = None


@dataclass(frozen=True)
class Ended:
    """An instant whose Run came to its end."""

    instant: datetime
    run: int
    state: str
    reason: str | None
    code: str | None


class ScheduleStore:
    """Reads and writes schedules; each write is one transaction, with the event that tells of it."""

    def __init__(self, database: Database, meter: Meter | None = None) -> None:
        self._database = database
        self._meter: Meter = meter if meter is not None else Unmetered()

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[bool]:
        """Whether this process may work on a schedule now; the server frees it when the process dies.

        The lock belongs to a connection and not to a transaction: one that is open for long would hold up the sealer.
        """
        async with self._database.connection() as connection:
            query = "select pg_try_advisory_lock(%s, hashtext(%s)) as held"
            row = await (await connection.execute(query, (LOCK_CLASS, name))).fetchone()
            held = row is not None and bool(row["held"])
            try:
                yield held
            finally:
                if held:
                    await connection.execute("select pg_advisory_unlock(%s, hashtext(%s))", (LOCK_CLASS, name))

    async def standings(self, now: datetime, name: str | None = None) -> list[Standing]:
        """Every schedule that is declared or has instants open, or one by its name, with what became of its last."""
        query = f"""{_STANDING} where (%(name)s::text is null and (s.declared or exists (
                select 1 from schedule_instant i where i.schedule = s.name and i.closed_at is null)))
                or s.name = %(name)s order by s.name limit {SCHEDULES_MAX}"""
        rows = await self._rows(query, {"now": now, "name": name})
        return [_standing(row) for row in rows]

    async def declare(self, name: str, schedule: Schedule, digest: str, now: datetime) -> None:
        """Record what interlock.yaml says now. Where its instants are others than before, they count from now on."""
        await self._execute(
            """insert into schedule (name, one_off, spec, timing_digest, cursor_at)
               values (%(name)s, false, %(spec)s, %(digest)s, %(now)s)
               on conflict (name) do update set one_off = false, actor = null, spec = excluded.spec, declared = true,
                   timing_digest = excluded.timing_digest,
                   cursor_at = case when schedule.declared and schedule.timing_digest = excluded.timing_digest
                                    then schedule.cursor_at else excluded.cursor_at end""",
            {"name": name, "spec": schedule.model_dump_json(by_alias=True), "digest": digest, "now": now},
        )

    async def forget(self, name: str, now: datetime, reason: str) -> None:
        """A schedule that is no longer declared asks for nothing more; what waited is cancelled."""
        async with self._database.transaction() as connection:
            await connection.execute("update schedule set declared = false where name = %s", (name,))
            await connection.execute(
                """update schedule_instant set state = 'cancelled', closed_at = %s, reason = %s
                   where schedule = %s and state in ('due', 'queued')""",
                (now, reason, name),
            )

    async def advance(
        self,
        standing: Standing,
        to: datetime,
        coming: Sequence[Waiting],
        gone: tuple[Change, int, Waiting] | None = None,
        *,
        resumed: bool = False,
        events: Sequence[Event] = (),
    ) -> bool:
        """Move the cursor, and record the instants that it passed: those that came, and all that are `gone` as one row.

        `resumed`: the pause is over. Returns False, and does nothing, when somebody else moved it meanwhile.
        """
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """update schedule set cursor_at = %(to)s, missed = missed + %(missed)s,
                       skip_until = case when %(resumed)s then paused_until else skip_until end,
                       paused_by = case when %(resumed)s then null else paused_by end,
                       paused_at = case when %(resumed)s then null else paused_at end,
                       paused_reason = case when %(resumed)s then null else paused_reason end,
                       paused_until = case when %(resumed)s then null else paused_until end
                   where name = %(name)s and cursor_at = %(from)s and paused_by is not distinct from %(paused_by)s""",
                {
                    "name": standing.name,
                    "from": standing.cursor_at,
                    "to": to,
                    "missed": gone[1] if gone is not None and gone[0].state == "missed" else 0,
                    "resumed": resumed,
                    "paused_by": standing.paused_by,
                },
            )
            if cursor.rowcount == 0:
                return False
            for waiting in coming:
                await _insert(connection, standing.name, waiting, None, 1)
            if gone is not None:
                change, count, waiting = gone
                await _insert(connection, standing.name, waiting, change, count)
                await _tell(connection, change.event)
                self._meter.count(SCHEDULE_INSTANTS, change.state, by=count)
            for event in events:
                await _tell(connection, event)
        return True

    async def waiting(self, name: str) -> list[Waiting]:
        """The instants that were not asked for yet, oldest first."""
        rows = await self._rows(
            f"""select instant, due_at, state, actor, ask, attempts, retry_at, reason as tried from schedule_instant
                where schedule = %(name)s and state in ('due', 'queued') order by instant limit {WAITING_MAX}""",
            {"name": name},
        )
        return [
            Waiting(**{**row, "actor": Actor.model_validate(row["actor"]), "ask": Ask.model_validate(row["ask"])})
            for row in rows
        ]

    async def submitted(self, name: str) -> tuple[list[Ended], int]:
        """The instants whose Runs have ended since, and how many Runs are still open."""
        rows = await self._rows(
            f"""select i.instant, i.run, r.state, r.state_reason as reason, r.state_code as code,
                       r.state in ({_FINAL}) as final
                from schedule_instant i join run r on r.number = i.run
                where i.schedule = %(name)s and i.state = 'submitted' order by i.instant limit {WAITING_MAX}""",
            {"name": name},
        )
        ended = [Ended(**{key: row[key] for key in Ended.__dataclass_fields__}) for row in rows if row["final"]]
        return ended, len(rows) - len(ended)

    async def change(self, name: str, changes: Sequence[Change]) -> None:
        """Carry out verdicts; an instant that is over stays as it is."""
        async with self._database.transaction() as connection:
            for change in changes:
                final = change.state not in ("due", "queued", "submitted")
                cursor = await connection.execute(
                    """update schedule_instant set state = %(state)s, reason = %(reason)s, code = %(code)s,
                           run = coalesce(%(run)s, run), closed_at = %(closed_at)s
                       where schedule = %(name)s and instant = %(instant)s and closed_at is null""",
                    {
                        "name": name,
                        "instant": change.instant,
                        "state": change.state,
                        "reason": change.reason,
                        "code": change.code,
                        "run": change.run,
                        "closed_at": change.at if final else None,
                    },
                )
                if cursor.rowcount:
                    self._meter.count(SCHEDULE_INSTANTS, change.state)
                if cursor.rowcount and change.event is not None:
                    await _tell(connection, change.event)
                if cursor.rowcount and change.state == "missed":
                    await connection.execute("update schedule set missed = missed + 1 where name = %s", (name,))

    async def begin_attempt(self, name: str, instant: datetime) -> None:
        """Write down that an instant is about to be asked for."""
        await self._execute(
            "update schedule_instant set attempts = attempts + 1 where schedule = %(name)s and instant = %(instant)s",
            {"name": name, "instant": instant},
        )

    async def put_off(self, name: str, instant: datetime, retry_at: datetime, reason: str) -> None:
        """Try an instant again later."""
        await self._execute(
            """update schedule_instant set retry_at = %(retry_at)s, reason = %(reason)s
               where schedule = %(name)s and instant = %(instant)s and closed_at is null""",
            {"name": name, "instant": instant, "retry_at": retry_at, "reason": reason},
        )

    async def is_token_good(self, identity: str, now: datetime) -> bool:
        """Whether the token that somebody ordered a one-off with would still let him in."""
        rows = await self._rows(
            "select 1 from token where id = %(id)s and revoked_at is null and expires_at > %(now)s",
            {"id": identity, "now": now},
        )
        return bool(rows)

    async def history(self, name: str, limit: int) -> list[dict[str, Any]]:
        """The newest instants of a schedule, with the state of their Runs."""
        return await self._rows(
            """select i.instant, i.due_at, i.state, i.run, r.state as run_state, i.reason, i.code, i.count, i.attempts,
                      i.closed_at
               from schedule_instant i left join run r on r.number = i.run
               where i.schedule = %(name)s order by i.instant desc limit %(limit)s""",
            {"name": name, "limit": min(limit, SHOWN_MAX)},
        )

    async def prune(self, before: datetime) -> None:
        """Drop instants that ended long ago, but each schedule's newest; let go of one-offs that ended so long ago."""
        await self._execute(
            """update schedule s set declared = false where one_off and declared
                   and not exists (select 1 from schedule_instant i where i.schedule = s.name and i.closed_at is null)
                   and exists (select 1 from schedule_instant i
                               where i.schedule = s.name and i.closed_at < %(before)s)""",
            {"before": before},
        )
        dropped = PRUNED_AT_ONCE
        while dropped == PRUNED_AT_ONCE:
            dropped = await self._execute(
                """delete from schedule_instant where (schedule, instant) in (
                       select i.schedule, i.instant from schedule_instant i where i.closed_at < %(before)s and exists (
                           select 1 from schedule_instant n where n.schedule = i.schedule and n.instant > i.instant)
                       limit %(limit)s)""",
                {"before": before, "limit": PRUNED_AT_ONCE},
            )

    async def once(self, name: str, schedule: Schedule, digest: str, actor: Actor, run: int, now: datetime) -> bool:
        """Record a one-off; the same Run does it once. Returns False when the name is taken."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                """insert into schedule (name, one_off, spec, timing_digest, cursor_at, actor, run)
                   values (%(name)s, true, %(spec)s, %(digest)s, %(now)s, %(actor)s, %(run)s)
                   on conflict (name) do update set one_off = true, spec = excluded.spec, declared = true,
                       timing_digest = excluded.timing_digest, actor = excluded.actor, run = excluded.run, missed = 0,
                       cursor_at = excluded.cursor_at, skip_until = null, paused_by = null, paused_reason = null,
                       paused_at = null, paused_until = null, paused_run = null
                   where schedule.run is distinct from excluded.run
                       and (not schedule.declared or schedule.one_off and (schedule.spec ->> 'at')::timestamptz
                            <= schedule.cursor_at)
                       and not exists (select 1 from schedule_instant i
                                       where i.schedule = excluded.name and i.closed_at is null)""",
                {
                    "name": name,
                    "spec": schedule.model_dump_json(by_alias=True),
                    "digest": digest,
                    "actor": actor.model_dump_json(),
                    "run": run,
                    "now": now,
                },
            )
            if cursor.rowcount:
                return True
            row = await (await connection.execute("select run from schedule where name = %s", (name,))).fetchone()
        return row is not None and row["run"] == run

    async def pause(self, name: str, by: str, order: JsonObject, run: int, now: datetime) -> int:
        """Ask for nothing until somebody resumes it; the same Run does it once. Returns how many were paused."""
        return await self._execute(
            """update schedule set paused_by = %(by)s, paused_reason = %(reason)s, paused_at = %(now)s,
                   paused_until = %(now)s::timestamptz + make_interval(mins => %(minutes)s), paused_run = %(run)s
               where name = %(name)s and declared and paused_run is distinct from %(run)s""",
            {"name": name, "by": by, "reason": order["reason"], "minutes": order["minutes"], "run": run, "now": now},
        )

    async def resume(self, name: str, now: datetime) -> int:
        """Ask again from now on; what fell into the pause is left out."""
        return await self._execute(
            """update schedule set paused_by = null, paused_reason = null, paused_at = null, paused_until = null,
                   skip_until = least(%(now)s::timestamptz, coalesce(paused_until, %(now)s::timestamptz))
               where name = %(name)s and paused_by is not null""",
            {"name": name, "now": now},
        )

    async def tell(self, event: Event) -> None:
        """Write one event."""
        async with self._database.connection() as connection:
            await _tell(connection, event)

    async def _rows(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()

    async def _execute(self, query: str, parameters: dict[str, Any]) -> int:
        async with self._database.connection() as connection:
            return (await connection.execute(query.encode(), parameters)).rowcount


def _standing(row: dict[str, Any]) -> Standing:
    last, actor = row.pop("last"), row.pop("actor")
    return Standing(
        schedule=Schedule.model_validate(row.pop("spec"), by_alias=True),
        actor=Actor.model_validate(actor) if actor is not None else None,
        last=_last(last) if last is not None else None,
        **row,
    )


def _last(row: dict[str, Any]) -> Last:
    moments = {name: datetime.fromisoformat(row[name]) for name in ("instant", "closed_at")}
    return Last(**{**row, **moments})


async def _insert(connection: Connection, name: str, waiting: Waiting, change: Change | None, count: int) -> None:
    """An instant that is there already was dealt with: by a process whose clock was ahead."""
    await connection.execute(
        """insert into schedule_instant (schedule, instant, due_at, state, actor, ask, count, reason, code, closed_at)
           values (%(name)s, %(instant)s, %(due_at)s, %(state)s, %(actor)s, %(ask)s, %(count)s, %(reason)s, %(code)s,
                   %(closed_at)s)
           on conflict (schedule, instant) do nothing""",
        {
            "name": name,
            "instant": waiting.instant,
            "due_at": waiting.due_at,
            "state": change.state if change is not None else waiting.state,
            "actor": waiting.actor.model_dump_json(),
            "ask": waiting.ask.model_dump_json(),
            "count": count,
            "reason": change.reason if change is not None else None,
            "code": change.code if change is not None else None,
            "closed_at": change.at if change is not None else None,
        },
    )


async def _tell(connection: Connection, event: Event | None) -> None:
    if event is not None:
        run = event.data.get("run")
        body = {"kind": event.kind, "labels": json.dumps(event.labels), "data": json.dumps(event.data), "run": run}
        await connection.execute(_SPEAK, body)
