"""All SQL of policy sets that were put in force, and of what replays came to."""

from __future__ import annotations

import json

from interlock.core.errors import Stale
from interlock.core.model import JsonObject
from interlock.engine.db import Database
from interlock.engine.policy.applied import AppliedSet, sources_from_json, sources_to_json

REPLAYS_KEPT = 200

_NEWEST = """
select f.digest, f.pinned, s.sources from policy_in_force f join policy_set s on s.digest = f.digest
order by f.id desc limit 1
"""

# One after another, so that what a set was planned against is still what it replaces.
_ONE_BY_ONE = "select pg_advisory_xact_lock(hashtextextended('interlock.policy_in_force', 0))"


class PolicyStore:
    """Texts are kept for ever, and which of them is in force is only ever added to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def in_force(self) -> AppliedSet | None:
        """The newest; None before the first. Raises Permanent when its texts are not the ones that were kept."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_NEWEST.encode())).fetchone()
        if row is None:
            return None
        return AppliedSet(row["digest"], sources_from_json(row["sources"], row["digest"]), row["pinned"])

    async def kept(self, digest: str) -> AppliedSet | None:
        """A set that was in force once. Raises as `in_force`."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("select sources from policy_set where digest = %s", (digest,))
            row = await cursor.fetchone()
        return None if row is None else AppliedSet(digest, sources_from_json(row["sources"], digest), pinned=True)

    async def put(self, applied: AppliedSet, before: AppliedSet, run: int, by: str) -> None:
        """Keep both sets and put one in force, in one transaction; what is so already is left as it is.

        Raises Stale when the newest row says neither: another set was put in force meanwhile.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_ONE_BY_ONE.encode())
            row = await (await connection.execute(_NEWEST.encode())).fetchone()
            if row is not None and row["pinned"] and row["digest"] not in {applied.digest, before.digest}:
                msg = f"another set was put in force meanwhile: {row['digest'][:12]}"
                raise Stale(msg, code="policy.other_set", fix="ask again")
            for each in (before, applied):
                await connection.execute(
                    "insert into policy_set (digest, sources) values (%s, %s) on conflict (digest) do nothing",
                    (each.digest, sources_to_json(each.sources)),
                )
            if row is None or (row["digest"], row["pinned"]) != (applied.digest, applied.pinned):
                await connection.execute(
                    "insert into policy_in_force (digest, pinned, run, set_by) values (%s, %s, %s, %s)",
                    (applied.digest, applied.pinned, run, by),
                )

    async def keep_replay(self, digest: str, summary: JsonObject) -> int:
        """The number under which a replay of the texts with this digest is found; the oldest ones are forgotten."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "insert into policy_replay (digest, summary) values (%s, %s::jsonb) returning id",
                (digest, json.dumps(summary)),
            )
            row = await cursor.fetchone()
            if row is None:
                msg = "an insert that returns gave no row"
                raise RuntimeError(msg)
            await connection.execute("delete from policy_replay where id <= %s", (row["id"] - REPLAYS_KEPT,))
        return int(row["id"])

    async def replay(self, number: int) -> tuple[str, JsonObject] | None:
        """Digest of the texts, and what it came to."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("select digest, summary from policy_replay where id = %s", (number,))
            row = await cursor.fetchone()
        return None if row is None else (row["digest"], row["summary"])
