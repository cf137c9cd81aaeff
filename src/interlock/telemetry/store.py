"""All SQL of metrics and health: one statement, over the open Runs and the ends of indexes, never over evidence."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.engine.db import Database

# Open Runs are bounded (`limits.open_runs_max`); every other part reads one end of an index. The ages are the
# database's own, so that a clock that is wrong here does not show as age there.
_TAKE = """
with open_run as materialized (
    select action, state, count(*) as count from run
    where state in ('waiting', 'queued', 'running', 'unresolved') group by action, state)
select
    (select coalesce(json_agg(json_build_array(action, state, count)), '[]') from open_run) as open,
    (select extract(epoch from now() - created_at)::float8 from run
        where state = 'waiting' order by number limit 1) as waiting_age,
    (select extract(epoch from now() - due_at)::float8 from run
        where state = 'queued' and due_at <= now() order by due_at limit 1) as queue_age,
    (select count(*) from (select 1 from unsealed limit 10000) as bounded) as unsealed,
    sealed.size as sealed,
    extract(epoch from now() - sealed.at)::float8 as checkpoint_age
from (select 1) as always left join (select size, at from checkpoint order by size desc limit 1) as sealed on true
"""


@dataclass(frozen=True)
class Tables:
    """What the tables say of the door now. `open`: action, state, how many. Ages in seconds, 0 where there is none."""

    open: tuple[tuple[str, str, int], ...]
    waiting_age: float
    queue_age: float
    unsealed: int
    sealed: int
    checkpoint_age: float

    @property
    def seal_lag(self) -> float:
        """For how long rows may have waited for a checkpoint; 0 when none waits."""
        return self.checkpoint_age if self.unsealed else 0.0


class VitalStore:
    """Reads; writes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self) -> Tables:
        """Raises Transient."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_TAKE.encode())).fetchone()
        if row is None:
            msg = "a select from one row gave none"
            raise RuntimeError(msg)
        return Tables(
            open=tuple((action, state, count) for action, state, count in row["open"]),
            waiting_age=max(0.0, row["waiting_age"] or 0.0),
            queue_age=max(0.0, row["queue_age"] or 0.0),
            unsealed=row["unsealed"],
            sealed=row["sealed"] or 0,
            checkpoint_age=max(0.0, row["checkpoint_age"] or 0.0),
        )

    @property
    def pool(self) -> dict[str, int]:
        """The pool's own numbers, as psycopg_pool names them; what has not happened yet may be missing."""
        return self._database.pool_statistics
