"""The sealer: gives settled evidence rows their place in the Merkle tree and signs how far the log has come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from interlock.core.checkpoint import Checkpoint, link_of
from interlock.core.errors import Permanent
from interlock.engine.audit import store as audit_store
from interlock.engine.audit.store import CheckpointRow
from interlock.engine.db import Connection
from interlock.lib.clock import rfc3339
from interlock.lib.merkle import Frontier
from interlock.lib.note import NoteError, SigningKey, open_note, sign_note

BATCH_ROWS_MAX = 20_000


@dataclass(frozen=True)
class Sealed:
    """What one call did: how many rows it sealed, how long the log is now, its newest signed checkpoint."""

    rows: int
    size: int
    note: str | None


async def seal(connection: Connection, key: SigningKey, now: datetime, rows_max: int = BATCH_ROWS_MAX) -> Sealed | None:
    """Seal up to `rows_max` rows in one transaction; call it again until it seals none.

    None when another process is sealing at this moment. A row waits while any transaction that is older than it runs.

    Raises:
        Permanent: The log was changed behind Interlock's back; nothing is signed on top of that.
    """
    async with connection.transaction():
        if not await audit_store.try_lock(connection):
            return None
        last = await audit_store.last_checkpoint(connection)
        frontier, before = _verified(last, key)
        if (leaves := await audit_store.leaf_count(connection)) != frontier.size:
            msg = f"the log has {leaves} numbered rows, its last checkpoint says {frontier.size}"
            raise _tampered(msg)
        home = await audit_store.home(connection)
        if before is None or before.home != home:
            await audit_store.forget_transactions(connection, only_future=before is None)
        rows = await audit_store.number_rows(connection, frontier.size, rows_max)
        if not rows:
            return Sealed(0, frontier.size, last.note if last else None)
        await asyncio.to_thread(_append, frontier, rows)
        checkpoint = Checkpoint(
            origin=key.name,
            size=frontier.size,
            root=frontier.root().hex(),
            prev=link_of(last.note if last else None),
            at=rfc3339(now),
            epoch=0 if before is None else before.epoch + (before.home != home),
            home=home,
        )
        note = sign_note(checkpoint.text(), key)
        nodes = tuple(node.hex() for node in frontier.nodes)
        await audit_store.insert_checkpoint(
            connection,
            CheckpointRow(checkpoint.size, checkpoint.root, note, nodes, now.astimezone(UTC), checkpoint.epoch),
        )
    return Sealed(len(rows), checkpoint.size, note)


async def after_restore(connection: Connection) -> int:
    """Free rows whose transaction numbers belong to the cluster a dump was made in; returns how many rows wait.

    The sealer does this by itself when it finds the log in another place than its last checkpoint names. `restore`
    calls it so that it is done before anything else.
    """
    async with connection.transaction():
        return await audit_store.forget_transactions(connection)


def _verified(last: CheckpointRow | None, key: SigningKey) -> tuple[Frontier, Checkpoint | None]:
    """The state to go on from, when it is what this key signed."""
    if last is None:
        return Frontier(), None
    try:
        checkpoint = Checkpoint.parse(open_note(last.note, key.verifier))
        frontier = last.frontier()
    except NoteError as error:
        msg = f"the checkpoint of {last.size} rows is not one that this key signed: {error}"
        raise _tampered(msg) from error
    except ValueError as error:
        msg = f"the checkpoint of {last.size} rows is damaged: {error}"
        raise _tampered(msg) from error
    if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root().hex()):
        msg = f"the checkpoint of {last.size} rows and what was kept beside it do not agree"
        raise _tampered(msg)
    return frontier, checkpoint


def _append(frontier: Frontier, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if not row["fits"]:
            what = "is missing" if row["leaf"] is None else "was changed before it was sealed"
            msg = f"row {row['seq']} of Run {row['run']} {what}"
            raise _tampered(msg)
        frontier.append(row["leaf"])


def _tampered(message: str) -> Permanent:
    return Permanent(message, code="audit.tampered", fix="interlock audit verify")
