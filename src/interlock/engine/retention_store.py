"""All SQL of retention: outputs and events are pruned, Runs and evidence never."""

from __future__ import annotations

from interlock.engine.db import Database

ROWS_AT_ONCE = 10_000


class RetentionStore:
    """Deletes in bounded pieces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, *, bodies_days: int, events_days: int) -> int:
        """Delete output and events older than so many days; returns how many rows."""
        pruned = 0
        for query, days in (
            (
                """delete from output where ctid in (select ctid from output
                   where at < now() - make_interval(days => %(days)s) limit %(limit)s)""",
                bodies_days,
            ),
            (
                """delete from event where id in (select id from event
                   where at < now() - make_interval(days => %(days)s) limit %(limit)s)""",
                events_days,
            ),
        ):
            while True:
                async with self._database.connection() as connection:
                    cursor = await connection.execute(query, {"days": days, "limit": ROWS_AT_ONCE})
                pruned += cursor.rowcount
                if cursor.rowcount < ROWS_AT_ONCE:
                    break
        return pruned
