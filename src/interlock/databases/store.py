"""All SQL of `sql.*` in Interlock's own tables: which transaction of a guarded database an effect was."""

from __future__ import annotations

from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.db import Database

_INTEND = """insert into sql_effect (key, run, database, system, xid, before_sha256, after_sha256, rows)
    values (%(key)s, %(run)s, %(database)s, %(system)s, %(xid)s, %(before)s, %(after)s, %(rows)s)
    on conflict (key) do update set system = excluded.system, xid = excluded.xid, rows = excluded.rows,
        before_sha256 = excluded.before_sha256, after_sha256 = excluded.after_sha256, at = now()"""
_RECALL = """select database, system, xid, before_sha256 as before, after_sha256 as after, rows from sql_effect
    where key = %(key)s"""


class EffectStore:
    """Written before a guarded database commits, so that after a crash its own word says what became of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def intend(self, run: Run, payload: JsonObject) -> JsonObject:
        """Arrangement `sql.intend`: this effect is about to be committed, as this transaction.

        An earlier attempt's is replaced: whoever begins another has seen that it was not committed.
        """
        values = {"run": run.number, "before": None, "after": None, **payload}
        async with self._database.transaction() as connection:
            await connection.execute(_INTEND, values)
        return {}

    async def recall(self, run: Run, payload: JsonObject) -> JsonObject:  # noqa: ARG002 - the shape of them all
        """Arrangement `sql.recall`: what was written of an effect, under `found`; null when nothing was."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_RECALL, {"key": payload["key"]})).fetchone()
        return {"found": dict(row) if row is not None else None}
