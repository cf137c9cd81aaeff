"""All SQL of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, LiteralString

from interlock.core.token import Token
from interlock.engine.db import Database

LISTED_MAX = 1000

_COLUMNS: LiteralString = (
    "id, name, kind, actor, on_behalf_of, scopes, sha256, created_by, created_at, expires_at, revoked_at, last_used_at"
)


class TokenStore:
    """The rows of `token`; none is ever deleted, so that evidence that names one can be understood."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_id(self, identity: str) -> Token | None:
        """The token of that id."""
        query: LiteralString = f"select {_COLUMNS} from token where id = %s"
        async with self._database.connection() as connection:
            row = await (await connection.execute(query, (identity,))).fetchone()
        return _token(row) if row is not None else None

    async def all(self) -> tuple[Token, ...]:
        """The newest `LISTED_MAX`, newest first."""
        query: LiteralString = f"select {_COLUMNS} from token order by created_at desc, id limit %s"
        async with self._database.connection() as connection:
            rows = await (await connection.execute(query, (LISTED_MAX,))).fetchall()
        return tuple(map(_token, rows))

    async def add(self, token: Token, run: int) -> bool:
        """Keep a new one; False when its id is taken by another Run's. The same Run keeps it once."""
        async with self._database.transaction() as connection:
            await connection.execute(
                """insert into token (id, name, kind, actor, on_behalf_of, scopes, sha256, created_by, created_at,
                                      expires_at, run)
                   values (%(id)s, %(name)s, %(kind)s, %(actor)s, %(on_behalf_of)s, %(scopes)s, %(sha256)s,
                           %(created_by)s, %(created_at)s, %(expires_at)s, %(run)s)
                   on conflict (id) do nothing""",
                {**token.model_dump(), "scopes": list(token.scopes), "run": run},
            )
            row = await (await connection.execute("select run from token where id = %s", (token.id,))).fetchone()
        return row is not None and row["run"] == run

    async def revoke(self, identity: str, by: str) -> int:
        """End it now; returns how many were ended, which is 0 where it had been revoked before."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "update token set revoked_at = now(), revoked_by = %s where id = %s and revoked_at is null",
                (by, identity),
            )
        return cursor.rowcount

    async def used(self, identity: str, hour: datetime) -> None:
        """Note the hour of its last use."""
        async with self._database.connection() as connection:
            await connection.execute(
                """update token set last_used_at = %(hour)s
                   where id = %(id)s and (last_used_at is null or last_used_at < %(hour)s)""",
                {"id": identity, "hour": hour},
            )


def _token(row: Mapping[str, Any]) -> Token:
    return Token(**{**row, "scopes": tuple(row["scopes"])})
