"""All SQL of the views: reads of Interlock's own tables, always bounded."""

from __future__ import annotations

from typing import Any

from interlock.core.run import RunState
from interlock.engine.db import Database

RUNS_MAX = 500
RECENT = 5

_LINE = """number, state, state_reason, state_code, actor_id, action, summary, risk, changes, created_at, due_at,
    expires_at, closed_at, reason, undo_of, retry_of"""

_FILTERS = {"action": "and action = %(action)s", "actor": "and actor_id = %(actor)s"}
_BEYOND = 2**63 - 1

_PAGE = f"select {_LINE} from run where number < %(before)s order by number desc limit %(limit)s"

# From each state the newest of those that are wanted, by an index that holds them in this order, and the newest of
# these: however rare they are among all that ever happened, no other Run is looked at. `state = wanted.state` would say
# the same as the two comparisons, but then `order by number` is enough, and the planner, which cannot know the state,
# may go through every Run there is by its number in the hope of meeting some.
_PAGE_OF = """select {line} from run join (
    select newest.number from unnest(%(states)s::text[]) as wanted (state) cross join lateral (
        select number from run
        where run.state >= wanted.state and (run.state, number) < (wanted.state, %(before)s::bigint) {filters}
        order by run.state desc, number desc limit %(limit)s) as newest
    order by newest.number desc limit %(limit)s) as page using (number)
order by number desc"""


class ViewStore:
    """Reads for people and programs; writes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def runs(
        self,
        *,
        states: list[str] | None = None,
        action: str | None = None,
        actor: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Newest first; `before` is the number to go on from."""
        given = {"action": action, "actor": actor}
        query = _PAGE
        if states is not None or action is not None or actor is not None:
            filters = " ".join(_FILTERS[name] for name, value in given.items() if value is not None)
            query = _PAGE_OF.format(line=_LINE, filters=filters)
        parameters = {
            **given,
            "before": before if before is not None else _BEYOND,
            "states": states if states is not None else [state.value for state in RunState],
            "limit": min(limit, RUNS_MAX),
        }
        async with self._database.connection() as connection:
            # Planned for its own limit each time: a plan for any limit would read the table from end to end.
            return await (await connection.execute(query.encode(), parameters, prepare=False)).fetchall()

    async def attention(self, *, limit: int = 100) -> list[dict[str, Any]]:
        """Runs that wait for somebody or that nobody understands, oldest first."""
        query = f"""select {_LINE} from run where state in ('waiting', 'unresolved') order by number limit %(limit)s"""
        return await self._rows(query, {"limit": limit})

    async def counts(self) -> dict[str, int]:
        """Open Runs by state, and what is left to seal."""
        rows = await self._rows(
            """select state, count(*) as count from run
               where state in ('waiting', 'queued', 'running', 'unresolved') group by state""",
            {},
        )
        return {row["state"]: row["count"] for row in rows}

    async def log_state(self) -> dict[str, Any]:
        """How far the evidence is sealed."""
        rows = await self._rows(
            """select (select count(*) from (select 1 from unsealed limit 10000) as bounded) as unsealed,
                      (select size from checkpoint order by size desc limit 1) as sealed,
                      (select at from checkpoint order by size desc limit 1) as sealed_at""",
            {},
        )
        return rows[0]

    async def holders(self, targets: list[str], number: int) -> list[dict[str, Any]]:
        """Which other open Runs have or want these targets, earliest first."""
        return await self._rows(
            """select target, run, holding from run_target
               where target = any(%(targets)s) and run <> %(number)s order by not holding, run limit 20""",
            {"targets": targets, "number": number},
        )

    async def approvals_and_ending(self, number: int) -> tuple[list[dict[str, Any]], str | None]:
        """Every verdict on a Run, used or not, and the evidence of its last step that was done, if there is one.

        One question for both: everybody who asks for something waits for this answer.
        """
        rows = await self._rows(
            """select id, approver, kind, verdict, reason, roles, at, used_at, null as line from approval
               where run = %(number)s
               union all
               (select null, null, null, null, null, null, null, null, line from evidence
                where run = %(number)s and kind = 'done' order by seq desc limit 1)
               order by id nulls last""",
            {"number": number},
        )
        line = next((row["line"] for row in rows if row["id"] is None), None)
        columns = ("approver", "kind", "verdict", "reason", "roles", "at", "used_at")
        return [{name: row[name] for name in columns} for row in rows if row["id"] is not None], line

    async def _rows(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()
