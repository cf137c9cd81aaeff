"""All SQL of what Runs print: encrypted pieces, bounded for each Run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from interlock.engine.db import Database

PIECES_MAX = 20_000


class Cipher(Protocol):
    """Seals pieces of output for the disk."""

    def seal(self, body: bytes) -> bytes:
        """Encrypt."""
        ...

    def open(self, body: bytes) -> bytes:
        """Decrypt. Raises Permanent when it was changed."""
        ...


@dataclass(frozen=True)
class Piece:
    """Some output, in order of `seq` (from 1)."""

    seq: int
    text: str


class OutputStore:
    """Keeps and gives back what Runs printed."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher

    async def append(self, run: int, text: str) -> None:
        """Add a piece behind the others."""
        body = text.encode()
        async with self._database.connection() as connection:
            await connection.execute(
                # It is on disk at the latest with the commit that closes the Run, which waits for all before it.
                """with quick as materialized (select set_config('synchronous_commit', 'off', true) as off)
                   insert into output (run, seq, bytes, body)
                   select %(run)s, coalesce(max(seq), 0) + 1, %(bytes)s, %(body)s
                   from quick left join output on run = %(run)s""",
                {"run": run, "bytes": len(body), "body": self._cipher.seal(body)},
            )

    async def read(self, run: int, after: int = 0, limit: int = PIECES_MAX) -> tuple[Piece, ...]:
        """Pieces behind number `after`, in order."""
        async with self._database.connection() as connection:
            rows = await (
                await connection.execute(
                    "select seq, body from output where run = %s and seq > %s order by seq limit %s",
                    (run, after, limit),
                )
            ).fetchall()
        return tuple(Piece(row["seq"], self._cipher.open(row["body"]).decode()) for row in rows)

    async def size(self, run: int) -> int:
        """Bytes kept of a Run's output."""
        async with self._database.connection() as connection:
            row = await (
                await connection.execute("select coalesce(sum(bytes), 0) as bytes from output where run = %s", (run,))
            ).fetchone()
        return int(row["bytes"])  # type: ignore[index]
