"""All SQL of releases: their rows, their timelines, and what was seen of both versions while they were on their way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from interlock.core.errors import Conflict, NotFound
from interlock.core.model import JsonObject
from interlock.core.workload import ServiceWorkload
from interlock.engine.db import Connection, Database
from interlock.releases.model import Next, Note, Release, applied, fresh

SHOWN_MAX = 200
TIMELINE_MAX = 500
TICKS_MAX = 5000
"""Of one release: about 80 minutes of seconds. When they are exceeded every second one is dropped."""

_COLUMNS = """number, name, state, stable, candidate, spec, identities, salt, snapshot, step, epoch, settled, attempt,
    watched_seconds, looked_at, was, goal, cause, reason, evidence, told, started_by, run, created_at, state_at,
    closed_at, warm_until"""


@dataclass(frozen=True)
class Judged:
    """What the judge knew when it was last written down, and up to which moment (seconds since 1970) it had read."""

    state: JsonObject | None
    read_until_seconds: float


class ReleaseStore:
    """Reads and writes releases of services; each change is one transaction, with its timeline and its event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, row: JsonObject, run: int, now: datetime) -> int:
        """Record a release; the same Run does it once. Raises Conflict with the number of one that is on its way."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"""insert into releases (name, kind, state, stable, candidate, spec, identities, salt, snapshot,
                        started_by, run, created_at, state_at, looked_at)
                    select %(name)s, 'service', 'preparing', %(stable)s, %(candidate)s, %(spec)s, %(identities)s,
                        %(salt)s, %(snapshot)s, %(started_by)s, %(run)s, %(now)s, %(now)s, %(now)s
                    where not exists (select 1 from releases where run = %(run)s)
                    on conflict (name) where closed_at is null do nothing
                    returning {_COLUMNS}""".encode(),
                {
                    **{key: row[key] for key in ("name", "stable", "candidate", "salt", "started_by")},
                    **{key: json.dumps(row[key]) for key in ("spec", "identities", "snapshot")},
                    "run": run,
                    "now": now,
                },
            )
            made = await cursor.fetchone()
            if made is not None:
                release = _release(made)
                came = f"from {release.stable} to" if release.stable is not None else "first version:"
                note = Note(word="started", text=f"{came} {release.candidate}, asked for by {release.started_by}")
                await _tell(connection, release, (note,), now, run=run)
                return release.number
            query = "select number, run from releases where name = %s and (closed_at is null or run = %s)"
            found = await (await connection.execute(query, (row["name"], run))).fetchall()
        mine = [each["number"] for each in found if each["run"] == run]
        if mine:
            return int(mine[0])
        number = found[0]["number"] if found else 0
        msg = f"release {number} of {row['name']} is on its way already"
        raise Conflict(msg, code="release.active", fix=f"interlock release status {row['name']}")

    async def get(self, number: int) -> Release:
        """Raises NotFound."""
        rows = await self._rows(f"select {_COLUMNS} from releases where kind = 'service' and number = %s", number)
        if not rows:
            msg = f"there is no release {number}"
            raise NotFound(msg, code="release.unknown", fix="interlock release status")
        return _release(rows[0])

    async def active(self, name: str | None = None) -> list[Release]:
        """Those that are not over, of all services or of one."""
        query = f"""select {_COLUMNS} from releases
            where kind = 'service' and closed_at is null and (%s::text is null or name = %s) order by number"""
        return [_release(row) for row in await self._rows(query, name, name)]

    async def newest(self, name: str | None = None, limit: int = 20) -> list[Release]:
        """The newest ones."""
        query = f"""select {_COLUMNS} from releases
            where kind = 'service' and (%s::text is null or name = %s) order by number desc limit %s"""
        return [_release(row) for row in await self._rows(query, name, name, min(limit, SHOWN_MAX))]

    async def cooling(self, now: datetime) -> list[Release]:
        """Those that are over and of which a version that users do not have may be stopped now."""
        query = f"""select {_COLUMNS} from releases r
            where kind = 'service' and warm_until is not null and (warm_until <= %s
                or exists (select 1 from releases n where n.name = r.name and n.number > r.number
                               and n.state = 'released'))
            order by number limit 20"""
        return [_release(row) for row in await self._rows(query, now)]

    async def revocable(self, name: str) -> Release | None:
        """The one that a rollback would take back."""
        active = await self.active(name)
        if active:
            return active[0]
        # What failed or was aborted changed nothing about who has what; one that was rolled back did.
        query = f"""select {_COLUMNS} from releases
            where kind = 'service' and name = %s and state not in ('failed', 'aborted') order by number desc limit 1"""
        found = [_release(row) for row in await self._rows(query, name)]
        return found[0] if found and found[0].revocable else None

    async def cooled(self, number: int) -> None:
        """Nothing of it is left to stop."""
        await self._execute("update releases set warm_until = null where number = %s", number)

    async def move(self, release: Release, following: Next, now: datetime, *, run: int | None = None) -> Release:
        """Put a decision in force, if the release still stands where it was decided.

        Raises:
            Conflict: Somebody else moved it meanwhile; look again.
        """
        new = applied(release, following, now)
        if new == release and not fresh(release, following.notes):
            return release
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """update releases set state = %(state)s, step = %(step)s, epoch = %(epoch)s, attempt = %(attempt)s,
                       watched_seconds = %(watched_seconds)s, looked_at = %(looked_at)s, was = %(was)s,
                       goal = %(goal)s, cause = %(cause)s, reason = %(reason)s, evidence = %(evidence)s,
                       told = %(told)s, state_at = %(state_at)s, closed_at = %(closed_at)s,
                       warm_until = %(warm_until)s
                   where number = %(number)s and epoch = %(before)s and state = %(was_state)s""",
                {
                    **{key: getattr(new, key) for key in _MOVED},
                    "evidence": json.dumps(new.evidence),
                    "told": json.dumps(new.told),
                    "number": release.number,
                    "before": release.epoch,
                    "was_state": release.state,
                },
            )
            if cursor.rowcount == 0:
                msg = f"release {release.number} was moved meanwhile"
                raise Conflict(msg, code="release.moved", fix=f"interlock release status {release.name}")
            await _tell(connection, new, fresh(release, following.notes), now, run=run)
        return new

    async def settle(self, release: Release, now: datetime) -> None:
        """The effects of this epoch happened."""
        await self._execute(
            "update releases set settled = %s, looked_at = %s where number = %s and epoch = %s",
            release.epoch,
            now,
            release.number,
            release.epoch,
        )

    async def try_again(self, release: Release) -> None:
        """The effects of this epoch are asked for anew, under new keys."""
        await self._execute(
            "update releases set attempt = %s where number = %s and epoch = %s",
            release.attempt + 1,
            release.number,
            release.epoch,
        )

    async def looked(self, release: Release, watched_seconds: float, now: datetime) -> None:
        """Write down how long the step was watched."""
        await self._execute(
            "update releases set watched_seconds = %s, looked_at = %s where number = %s and epoch = %s",
            watched_seconds,
            now,
            release.number,
            release.epoch,
        )

    async def note(self, release: Release, note: Note, now: datetime, *, run: int | None = None) -> None:
        """Add a line to the timeline."""
        async with self._database.transaction() as connection:
            await _tell(connection, release, (note,), now, run=run)

    async def say_once(self, release: Release, note: Note, now: datetime) -> None:
        """Add a line to the timeline, unless it was said where the release stands."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """update releases set told = told || %s
                   where number = %s and epoch = %s and not told ? %s""",
                (json.dumps([note.word]), release.number, release.epoch, note.word),
            )
            if cursor.rowcount:
                await _tell(connection, release, (note,), now)

    async def was_ordered(self, number: int, run: int) -> bool:
        """Whether a Run gave its order to a release already."""
        return bool(await self._rows("select 1 from release_timeline where release = %s and run = %s", number, run))

    async def timeline(self, number: int, after: int = 0, limit: int = TIMELINE_MAX) -> list[dict[str, Any]]:
        """The lines behind `after`, oldest first."""
        return await self._rows(
            """select id, at, word, text, data, run from release_timeline where release = %s and id > %s
               order by id limit %s""",
            number,
            after,
            min(limit, TIMELINE_MAX),
        )

    async def judged(self, number: int) -> Judged:
        """What the judge had written down last."""
        (row,) = await self._rows("select judge, read_until from releases where number = %s", number)
        return Judged(row["judge"], float(row["read_until"]))

    async def keep(self, number: int, judged: Judged, ticks: Sequence[JsonObject]) -> None:
        """Write down what the judge knows, and what was seen since the last time."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "update releases set judge = %s, read_until = %s where number = %s",
                (json.dumps(judged.state), judged.read_until_seconds, number),
            )
            for tick in ticks:
                await connection.execute(
                    """insert into release_ticks (release, at_seconds, data) values (%s, %s, %s)
                       on conflict (release, at_seconds) do nothing""",
                    (number, tick["at_seconds"], json.dumps(tick)),
                )
            await connection.execute(
                """delete from release_ticks where release = %(number)s and at_seconds in (
                       select at_seconds from (
                           select at_seconds, row_number() over (order by at_seconds) as place, count(*) over () as many
                           from release_ticks where release = %(number)s) numbered
                       where many > %(max)s and place %% 2 = 0)""",
                {"number": number, "max": TICKS_MAX},
            )

    async def ticks(self, number: int) -> list[JsonObject]:
        """What was seen, oldest first."""
        query = "select data from release_ticks where release = %s order by at_seconds limit %s"
        return [row["data"] for row in await self._rows(query, number, TICKS_MAX * 2)]

    async def prune(self, before: datetime) -> None:
        """Drop what was seen during releases that ended long ago; they and their timelines stay."""
        await self._execute(
            "delete from release_ticks where release in (select number from releases where closed_at < %s)", before
        )

    async def _rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()

    async def _execute(self, query: str, *parameters: Any) -> int:
        async with self._database.connection() as connection:
            return (await connection.execute(query.encode(), parameters)).rowcount


_MOVED = (
    *("state", "step", "epoch", "attempt", "watched_seconds", "looked_at", "was", "goal", "cause", "reason"),
    *("state_at", "closed_at", "warm_until"),
)


def _release(row: dict[str, Any]) -> Release:
    spec, told = row.pop("spec"), row.pop("told")
    return Release(workload=ServiceWorkload.model_validate(spec), told=tuple(told), **row)


async def _tell(
    connection: Connection, release: Release, notes: Sequence[Note], now: datetime, *, run: int | None = None
) -> None:
    """A line of the timeline and an event for each note, in the transaction that made them true."""
    for note in notes:
        await connection.execute(
            "insert into release_timeline (release, at, word, text, data, run) values (%s, %s, %s, %s, %s, %s)",
            (release.number, now, note.word, note.text[:4000], json.dumps(note.data), run),
        )
        labels = {"workload": release.name, "release": str(release.number), "candidate": release.candidate}
        labels |= {"stable": release.stable} if release.stable is not None else {}
        data: JsonObject = {"release": release.number, "text": note.text, "state": release.state}
        data |= {"cause": release.cause} if release.cause is not None else {}
        if note.word in {"rolled_back", "frozen", "failed"}:
            why = release.reason or note.text
            data["follow_up"] = f"find out why {release.candidate} of {release.name} was not good enough: {why}"[:500]
        await connection.execute(
            "insert into event (kind, labels, data, run) values (%s, %s, %s, %s)",
            (f"release.{note.word}", json.dumps(labels), json.dumps(data), run),
        )
