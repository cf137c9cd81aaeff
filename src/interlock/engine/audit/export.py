"""Writes the log, or one Run of it, as an archive that anybody can verify without Interlock."""

from __future__ import annotations

import asyncio
import base64
from importlib import resources
from pathlib import Path

from interlock.core.checkpoint import Checkpoint
from interlock.core.errors import Conflict, Permanent
from interlock.core.model import Frozen, JsonObject
from interlock.engine.audit import store as audit_store
from interlock.engine.audit.archive import ArchiveDraft
from interlock.engine.audit.receipt import leaf_hashes, make_receipt
from interlock.engine.audit.store import CheckpointRow
from interlock.engine.audit.verify import Witness
from interlock.engine.db import Connection
from interlock.lib.canonical import canonical_bytes
from interlock.lib.merkle import Frontier, Tree
from interlock.lib.note import NoteError, SigningKey, open_note

ENTRIES_PER_FILE = 100_000
PROOF_LEAVES_MAX = 2_000_000
_READMES = ("README.md", "README.zh-CN.md", "README.zh-TW.md")
_FIX = "interlock audit verify"


class Exported(Frozen):
    """An archive that was written: where, its SHA-256, how many rows it holds, and the checkpoint it reaches to."""

    path: str
    sha256: str
    rows: int
    checkpoint: Checkpoint


async def export_log(
    connection: Connection, key: SigningKey, folder: Path, *, since: Witness | None = None
) -> Exported:
    """Write `interlock-audit-<size>.tar.gz` with the whole log, or only what came after `since`.

    The same log gives the same bytes. It holds what is sealed; it does not verify, that is for those who receive it.
    The connection must not be in a transaction.

    Raises:
        Conflict: Nothing is sealed yet, or `since` is not a checkpoint of this log as it stands.
        Permanent: The log is damaged so that it cannot be written down; `audit verify` says where.
    """
    with ArchiveDraft.within(folder) as draft:
        async with audit_store.snapshot(connection):
            last = await audit_store.last_checkpoint(connection)
            if last is None:
                msg = "nothing is sealed yet, so there is nothing to export"
                raise Conflict(msg, code="audit.nothing_to_export", fix="try again in a few seconds")
            start = Frontier() if since is None else (await _kept_row(connection, since)).frontier()
            if since is not None:
                told = {"frontier": [node.hex() for node in start.nodes], "note": since.note, "size": start.size}
                draft.add("audit/start.json", canonical_bytes(told) + b"\n")
            await _write_entries(connection, draft, start.size, last.size)
            await _write_closed(connection, draft, start.size, last.size)
            await _write_checkpoints(connection, draft, start.size, last.size)
        span = f"{start.size}-{last.size}" if start.size else f"{last.size}"
        facts: JsonObject = {"kind": "log", "start": start.size}
        target = folder / f"interlock-audit-{span}.tar.gz"
        return await asyncio.to_thread(_finish, draft, key, facts, last.note, target, last.size - start.size)


async def export_run(
    connection: Connection, key: SigningKey, folder: Path, run: int, *, since: Witness | None = None
) -> Exported:
    """Write `interlock-audit-run-<run>-<size>.tar.gz`: the Run's receipt, and how it relates to `since`.

    Raises: what `make_receipt` and `export_log` raise.
    """
    with ArchiveDraft.within(folder) as draft:
        async with audit_store.snapshot(connection):
            receipt = await make_receipt(connection, run)
            notes = {_read(note, key).size: note for note in receipt.checkpoints}
            draft.add("audit/receipt.json", receipt.encode().encode())
            if since is not None:
                proofs = [
                    await _consistency(connection, since, size) for size in notes if size != since.checkpoint.size
                ]
                draft.add("audit/consistency.json", canonical_bytes(proofs) + b"\n")
        newest = max(notes)
        target = folder / f"interlock-audit-run-{run}-{newest}.tar.gz"
        facts: JsonObject = {"kind": "run", "run": run}
        return await asyncio.to_thread(_finish, draft, key, facts, notes[newest], target, len(receipt.rows))


def _read(note: str, key: SigningKey) -> Checkpoint:
    try:
        return Checkpoint.parse(open_note(note, key.verifier))
    except NoteError as error:
        msg = f"a checkpoint of the log is not one that this key signed: {error}"
        raise Permanent(msg, code="audit.tampered", fix=_FIX) from error


async def _kept_row(connection: Connection, since: Witness) -> CheckpointRow:
    """The log's own row for a checkpoint that somebody kept."""
    row = await audit_store.checkpoint_at_or_before(connection, since.checkpoint.size)
    if row is None or row.note != since.note:
        msg = f"the log has no such checkpoint of {since.checkpoint.size} rows any more"
        raise Conflict(msg, code="audit.since_unknown", fix="interlock audit verify --since FILE")
    return row


async def _consistency(connection: Connection, since: Witness, size: int) -> JsonObject:
    """That the shorter of two checkpoints is the beginning of the longer one."""
    await _kept_row(connection, since)
    old, new = sorted((since.checkpoint.size, size))
    if new - old > PROOF_LEAVES_MAX:
        msg = f"the Run and the checkpoint lie {new - old} rows apart, a proof may span {PROOF_LEAVES_MAX}"
        raise Conflict(msg, code="audit.too_far", fix="export the whole log with --since instead")
    before = await audit_store.checkpoint_at_or_before(connection, old)
    try:
        start = Frontier() if before is None else before.frontier()
        tree = Tree(await leaf_hashes(connection, start.size, new), start)
        path = await asyncio.to_thread(tree.consistency_proof, old)
    except ValueError as error:
        msg = f"the log is damaged before leaf {new}: {error}"
        raise Permanent(msg, code="audit.tampered", fix=_FIX) from error
    return {"from": old, "path": [base64.b64encode(node).decode() for node in path], "to": new}


async def _write_entries(connection: Connection, draft: ArchiveDraft, start: int, end: int) -> None:
    """The lines in leaf order, `ENTRIES_PER_FILE` to a file, each named after its first leaf."""
    for first in range(start, end, ENTRIES_PER_FILE):
        span = {"start": first, "end": min(first + ENTRIES_PER_FILE, end)}
        expected = first
        with draft.open(f"audit/entries/{first:012d}.jsonl") as file:
            async for rows in audit_store.rows_in_chunks(connection, audit_store.ENTRIES, span):
                lines = [row["line"] for row in rows if row["line"] is not None]
                await asyncio.to_thread(file.write, "".join(f"{line}\n" for line in lines).encode())
                expected += len(lines)
        if expected != span["end"]:
            msg = f"of the leaves {first} to {span['end'] - 1} some are missing"
            raise Permanent(msg, code="audit.tampered", fix=_FIX)


async def _write_closed(connection: Connection, draft: ArchiveDraft, start: int, end: int) -> None:
    """One line for each Run that was closed, in that order: what became of it, and the hash of its last row."""
    with draft.open("audit/runs.jsonl") as file:
        span = {"start": start, "end": end}
        async for rows in audit_store.rows_in_chunks(connection, audit_store.CLOSED, span):
            await asyncio.to_thread(file.write, b"".join(canonical_bytes(row) + b"\n" for row in rows))


async def _write_checkpoints(connection: Connection, draft: ArchiveDraft, start: int, end: int) -> None:
    """All signed notes in one file: a log that is sealed every second has too many for a file each."""
    with draft.open("audit/checkpoints.jsonl") as file:
        span = {"start": start, "end": end}
        async for rows in audit_store.rows_in_chunks(connection, audit_store.CHECKPOINTS, span):
            await asyncio.to_thread(file.write, b"".join(canonical_bytes(row) + b"\n" for row in rows))


def _finish(draft: ArchiveDraft, key: SigningKey, facts: JsonObject, note: str, target: Path, rows: int) -> Exported:
    """Add what every export has, sign it, pack it."""
    checkpoint = _read(note, key)
    ours = resources.files("interlock.engine.audit")
    draft.add("checkpoint.note", note.encode())
    draft.add("public-key.vkey", key.verifier.encode().encode() + b"\n")
    draft.add("verify.py", ours.joinpath("verify_bundle.py").read_bytes())
    for name in _READMES:
        draft.add(name, ours.joinpath("export_readme", name).read_bytes())
    draft.sign(key, {**facts, "format": 1, "origin": key.name, "root": checkpoint.root, "size": checkpoint.size})
    return Exported(path=str(target), sha256=draft.pack(target), rows=rows, checkpoint=checkpoint)
