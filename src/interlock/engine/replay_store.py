"""All SQL of policy replay: recorded decisions, page by page, as text that goes on to another process unread."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from interlock.engine.db import Database

PAGE_ROWS = 500

_COUNT = """
select count(*) as count, coalesce(min(number), 0) as first, coalesce(max(number), 0) as last from run
where created_at >= %(since)s and created_at < %(until)s
"""

_PAGE = """
select number, json_build_array(number, actor_id, action, summary, decision)::text as line from run
where number > %(after)s and number <= %(upto)s and created_at >= %(since)s and created_at < %(until)s
order by number limit %(rows)s
"""


class DecisionPage(NamedTuple):
    """One JSON list of `[number, actor, action, summary, decision]`, how many they are, and the last number."""

    text: str
    size: int
    last: int


class ReplayStore:
    """Reads what was decided; changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, since: datetime, until: datetime) -> tuple[int, int, int]:
        """How many Runs were asked for in [since, until), and the lowest and the highest number of them."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_COUNT, {"since": since, "until": until})).fetchone()
        if row is None:
            msg = "an aggregate gave no row"
            raise RuntimeError(msg)
        return row["count"], row["first"], row["last"]

    async def page(self, since: datetime, until: datetime, *, after: int, upto: int) -> DecisionPage | None:
        """The next `PAGE_ROWS` after a number; None when there are no more. None is looked for behind `upto`."""
        parameters = {"since": since, "until": until, "after": after, "upto": upto, "rows": PAGE_ROWS}
        async with self._database.connection() as connection:
            rows = await (await connection.execute(_PAGE, parameters)).fetchall()
        if not rows:
            return None
        # json_build_array writes no line break of its own, and those within texts are escaped.
        return DecisionPage(f"[{','.join([row['line'] for row in rows])}]", len(rows), rows[-1]["number"])
