"""Asks Interlock's own database what the doctor wants to know; reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from interlock.engine.audit import store as audit_store
from interlock.engine.db import SERVER_VERSION_MIN, Connection, newest_revision

APPEND_ONLY = ("evidence", "leaf", "checkpoint")
RIGHTS = ("UPDATE", "DELETE", "TRUNCATE")


@dataclass(frozen=True)
class DatabaseFacts:
    """What the database says of itself and of the role that asks.

    `excess` are rights on append-only tables that the role should not have, as `UPDATE on evidence`; `unguarded` are
    those of these tables without the trigger that refuses changes. `unsealed` counts rows that no checkpoint covers.
    """

    version: int
    revision: str | None
    revision_known: str
    now: datetime
    role: str
    superuser: bool
    excess: tuple[str, ...]
    unguarded: tuple[str, ...]
    connections: int
    connections_max: int
    unsealed: int
    sealed_at: datetime | None
    note: str | None
    newest_evidence_at: datetime | None


async def read_facts(connection: Connection) -> DatabaseFacts:
    """One look. A database without our tables has `revision` None, and nothing to say about the log."""
    row = await _row(
        connection,
        """select current_setting('server_version_num')::int as version, clock_timestamp() as now, current_user as role,
                  (select rolsuper from pg_roles where rolname = current_user) as superuser,
                  (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
                  current_setting('max_connections')::int as connections_max,
                  to_regclass('schema_version') is not null as made""",
    )
    common = {name: row[name] for name in ("version", "now", "role", "superuser", "connections", "connections_max")}
    if not row["made"]:
        return DatabaseFacts(
            **common,
            revision=None,
            revision_known=newest_revision(),
            excess=(),
            unguarded=(),
            unsealed=0,
            sealed_at=None,
            note=None,
            newest_evidence_at=None,
        )
    revision = await _row(connection, "select version_num from schema_version")
    excess = await connection.execute(
        """select privilege || ' on ' || name as excess
           from unnest(%(tables)s::text[]) as name, unnest(%(rights)s::text[]) as privilege
           where has_table_privilege(current_user, name, privilege)""",
        {"tables": list(APPEND_ONLY), "rights": list(RIGHTS)},
    )
    unguarded = await connection.execute(
        """select name from unnest(%(tables)s::text[]) as name
           where not exists (select from pg_trigger where tgrelid = name::regclass and not tgisinternal
                             and tgenabled in ('O', 'A'))""",
        {"tables": list(APPEND_ONLY)},
    )
    newest = await _row(connection, "select max(created_at) as at from run")
    last = await audit_store.last_checkpoint(connection)
    return DatabaseFacts(
        **common,
        revision=revision["version_num"],
        revision_known=newest_revision(),
        excess=tuple(each["excess"] for each in await excess.fetchall()),
        unguarded=tuple(each["name"] for each in await unguarded.fetchall()),
        unsealed=await audit_store.count_unsealed(connection),
        sealed_at=last.at if last is not None else None,
        note=last.note if last is not None else None,
        newest_evidence_at=newest["at"],
    )


def too_old(facts: DatabaseFacts) -> bool:
    """Whether Interlock needs a newer server."""
    return facts.version < SERVER_VERSION_MIN


async def _row(connection: Connection, query: str) -> dict[str, Any]:
    found = await (await connection.execute(query.encode())).fetchone()
    return found or {}
