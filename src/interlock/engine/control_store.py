"""All SQL of freezes, pauses and adopted programs: what `arrange` may change."""

from __future__ import annotations

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

    async def adopt(self, run: int, by: str, program: JsonObject) -> None:
        """Make a program known, in place of an earlier one of its name."""
        async with self._database.connection() as connection:
            await connection.execute(
                """insert into adopted (name, program, path, sha256, adopted_by, run)
                   values (%(name)s, %(schema)s, %(path)s, %(sha256)s, %(by)s, %(run)s)
                   on conflict (name) do update set program = excluded.program, path = excluded.path,
                       sha256 = excluded.sha256, adopted_by = excluded.adopted_by, adopted_at = now(),
                       run = excluded.run""",
                {**program, "schema": Jsonb(program["schema"]), "by": by, "run": run},
            )

    async def forget(self, name: str) -> int:
        """Make a program unknown again."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("delete from adopted where name = %s", (name,))
        return cursor.rowcount

    async def adopted(self) -> tuple[JsonObject, ...]:
        """Every adopted program's schema, by name."""
        async with self._database.connection() as connection:
            rows = await (await connection.execute("select program from adopted order by name")).fetchall()
        return tuple(row["program"] for row in rows)
