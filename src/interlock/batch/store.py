"""All SQL of batch jobs: which version invocations get, what comparisons found, and how invocations ended."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting
from interlock.core.errors import Conflict
from interlock.core.model import JsonObject
from interlock.engine.db import Connection, Database

LISTED_MAX = 500
WORDS_MAX = 4000


class BatchStore:
    """Each change is one transaction, with the event that tells of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def routing(self, workload: str) -> BatchRouting | None:
        """None before the first version."""
        rows = await self._rows("select document from batch_routing where workload = %s", workload)
        return BatchRouting.model_validate(rows[0]["document"]) if rows else None

    async def routings(self) -> tuple[BatchRouting, ...]:
        """Of all batch jobs, by name."""
        rows = await self._rows("select document from batch_routing order by workload limit %s", LISTED_MAX)
        return tuple(BatchRouting.model_validate(row["document"]) for row in rows)

    async def route(self, new: BatchRouting, before: int | None, word: str, data: JsonObject) -> bool:
        """Put a routing in force if the one before has this epoch (None: there was none); the same Run does it once.

        Raises: Conflict when it was changed meanwhile.
        """
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """insert into batch_routing (workload, epoch, run, document, changed_at)
                   values (%(workload)s, %(epoch)s, %(run)s, %(document)s, %(at)s)
                   on conflict (workload) do update set epoch = excluded.epoch, run = excluded.run,
                       document = excluded.document, changed_at = excluded.changed_at
                   where batch_routing.epoch = %(before)s""",
                {
                    "workload": new.workload,
                    "epoch": new.epoch,
                    "run": new.run,
                    "document": new.model_dump_json(),
                    "at": new.changed_at,
                    "before": before,
                },
            )
            if cursor.rowcount:
                await _tell(connection, f"batch.{word}", new.workload, data, new.run)
                return True
            query = "select run from batch_routing where workload = %s"
            row = await (await connection.execute(query, (new.workload,))).fetchone()
        if row is not None and row["run"] == new.run:
            return False
        msg = f"which version {new.workload} gets was changed meanwhile"
        raise Conflict(msg, code="batch.moved", fix="ask again, and read the new plan")

    async def compared(self, found: BatchComparison) -> None:
        """Write down what a comparison found; the same Run does it once."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """insert into batch_comparison (run, workload, stable, candidate, document, at)
                   values (%s, %s, %s, %s, %s, %s) on conflict (run) do nothing""",
                (
                    found.run,
                    found.workload,
                    found.stable.identity,
                    found.candidate.identity,
                    found.model_dump_json(),
                    found.at,
                ),
            )
            if cursor.rowcount:
                data: JsonObject = {"verdict": found.verdict, "candidate": found.candidate.version}
                data |= {"blocks": list(found.blocks[:5]), "fields": list(found.fields[:20])}
                await _tell(connection, "batch.compared", found.workload, data, found.run)

    async def comparisons(self, workload: str, limit: int) -> tuple[BatchComparison, ...]:
        """Newest first."""
        query = "select document from batch_comparison where workload = %s order by run desc limit %s"
        rows = await self._rows(query, workload, min(limit, LISTED_MAX))
        return tuple(BatchComparison.model_validate(row["document"]) for row in rows)

    async def invoked(self, found: BatchInvocation, epoch: int, *, failed: bool | None) -> BatchRouting | None:
        """Write down how an invocation ended, and count: `failed` of the newest version, None when it had no part.

        The same Run does it once; what was planned under an earlier routing counts no more. Returns the routing after.
        """
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                """insert into batch_invocation (run, workload, document, at) values (%s, %s, %s, %s)
                   on conflict (run) do nothing""",
                (found.run, found.workload, found.model_dump_json(), found.at),
            )
            query = "select document from batch_routing where workload = %s for update"
            row = await (await connection.execute(query, (found.workload,))).fetchone()
            routing = BatchRouting.model_validate(row["document"]) if row is not None else None
            if not cursor.rowcount or routing is None:
                return routing
            if failed is not None and routing.epoch == epoch:
                routing = routing.model_copy(update={"failures": routing.failures + 1 if failed else 0})
                await connection.execute(
                    "update batch_routing set document = %s where workload = %s",
                    (routing.model_dump_json(), found.workload),
                )
            data: JsonObject = {"version": found.version, "ok": found.ok, "fell_back": found.fell_back}
            data |= {"words": found.words[:WORDS_MAX], "failures": routing.failures}
            word = "ran" if found.ok and not found.fell_back else "failed"
            await _tell(connection, f"batch.{word}", found.workload, data, found.run)
            return routing

    async def invocations(self, workload: str, limit: int) -> tuple[BatchInvocation, ...]:
        """Newest first."""
        query = "select document from batch_invocation where workload = %s order by run desc limit %s"
        rows = await self._rows(query, workload, min(limit, LISTED_MAX))
        return tuple(BatchInvocation.model_validate(row["document"]) for row in rows)

    async def prune(self, before: datetime) -> None:
        """Forget invocations that ended long ago; comparisons stay, for they are what a version was let in by."""
        async with self._database.connection() as connection:
            await connection.execute("delete from batch_invocation where at < %s", (before,))

    async def _rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()


async def _tell(connection: Connection, kind: str, workload: str, data: JsonObject, run: int) -> None:
    """In the transaction that made it true."""
    await connection.execute(
        "insert into event (kind, labels, data, run) values (%s, %s, %s, %s)",
        (kind, json.dumps({"workload": workload}), json.dumps(data), run),
    )
