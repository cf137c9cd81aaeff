"""All SQL of freezes, pauses and adopted programs: what `arrange` may change."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from interlock.core.model import JsonObject
from interlock.engine.db import Database


class ControlStore:
    """Writes on behalf of a Run; each write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_freeze(self, run: int, by: str, order: JsonObject) -> int:
        """Put an order in force; the same Run does it once."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                """insert into change_freeze (scope, pattern, reason, set_by, until, run)
                   values (%(scope)s, %(pattern)s, %(reason)s, %(by)s,
                           now() + make_interval(mins => %(minutes)s), %(run)s)
                   on conflict (run, scope, pattern) do nothing""",
                {**order, "by": by, "run": run},
            )
        return cursor.rowcount

    async def lift_freeze(self, by: str, scope: str, pattern: str, reason: str | None = None) -> int:
        """End the orders of exactly this pattern, and of this reason where one is given; returns how many."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                """update change_freeze set lifted_by = %s, lifted_at = now()
                   where scope = %s and pattern = %s and lifted_at is null
                       and (%s::text is null or reason = %s)""",
                (by, scope, pattern, reason, reason),
            )
        return cursor.rowcount

    async def adopt(self, row: JsonObject, mac: str) -> None:
        """Keep an adopted program, in place of an earlier one of its name."""
        async with self._database.connection() as connection:
            await connection.execute(
                """insert into adopted (name, program, path, sha256, adopted_by, run, mac)
                   values (%(name)s, %(program)s, %(path)s, %(sha256)s, %(adopted_by)s, %(run)s, %(mac)s)
                   on conflict (name) do update set program = excluded.program, path = excluded.path,
                       sha256 = excluded.sha256, adopted_by = excluded.adopted_by, adopted_at = now(),
                       run = excluded.run, mac = excluded.mac""",
                {**row, "program": Jsonb(row["program"]), "mac": mac},
            )

    async def forget(self, name: str) -> int:
        """Make a program unknown again."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("delete from adopted where name = %s", (name,))
        return cursor.rowcount

    async def adopted(self) -> list[dict[str, Any]]:
        """Every row of adopted programs, by name, whoever wrote it."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select name, program, path, sha256, adopted_by, run, mac from adopted order by name"
            )
            return await cursor.fetchall()
