"""All SQL of accepted tools."""

from __future__ import annotations

import asyncio

from psycopg.types.json import Jsonb

from interlock.core.mcp_server import AcceptedTool, ToolDescription
from interlock.core.model import JsonObject
from interlock.engine.db import Database
from interlock.engine.shapes import json_row

BRIDGE_SECONDS = 30.0


class ToolStore:
    """Reads and writes the table `outside_tool`; each write may be repeated by the same Run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, server: str, tool: str) -> AcceptedTool | None:
        """The tool as it was accepted; None where it was not."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select server, tool, digest, description from outside_tool where server = %s and tool = %s",
                (server, tool),
            )
            row = await cursor.fetchone()
        return None if row is None else AcceptedTool.model_validate(row)

    async def accept(self, run: int, by: str, accepted: AcceptedTool) -> None:
        """In place of whatever was accepted before."""
        async with self._database.connection() as connection:
            await connection.execute(
                """insert into outside_tool (server, tool, digest, description, accepted_by, run)
                   values (%s, %s, %s, %s, %s, %s)
                   on conflict (server, tool) do update set digest = excluded.digest,
                       description = excluded.description, accepted_by = excluded.accepted_by,
                       accepted_at = now(), run = excluded.run""",
                (
                    accepted.server,
                    accepted.tool,
                    accepted.digest,
                    Jsonb(accepted.description.model_dump(mode="json")),
                    by,
                    run,
                ),
            )

    async def forget(self, server: str, tool: str, digest: str) -> int:
        """Only if it is still that one; returns how many."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "delete from outside_tool where server = %s and tool = %s and digest = %s", (server, tool, digest)
            )
        return cursor.rowcount

    async def listed(self) -> list[JsonObject]:
        """All of them, by name, with who accepted each and when."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select server, tool, digest, description, accepted_by, accepted_at, run from outside_tool"
                " order by server, tool"
            )
            rows = await cursor.fetchall()
        return [json_row(row) for row in rows]


class LiveAcceptedTools:
    """Implements `core.mcp_server.AcceptedTools` for Actions, from their threads."""

    def __init__(self, database: Database) -> None:
        self._store = ToolStore(database)
        self._loop = asyncio.get_running_loop()

    def find(self, server: str, tool: str) -> AcceptedTool | None:
        """As it is in the table now."""
        found = asyncio.run_coroutine_threadsafe(self._store.find(server, tool), self._loop)
        return found.result(BRIDGE_SECONDS)


def described(payload: JsonObject, server: str, tool: str) -> AcceptedTool | None:
    """What was accepted before, from the JSON of an undo step."""
    earlier = payload.get("earlier")
    if not isinstance(earlier, dict):
        return None
    description = ToolDescription.model_validate(earlier)
    return AcceptedTool(server=server, tool=tool, digest=description.digest, description=description)
