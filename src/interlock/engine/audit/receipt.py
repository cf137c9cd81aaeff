"""A receipt: what happened in one Run, with the proof that a signed checkpoint covers each row of it."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from interlock.core.checkpoint import Checkpoint
from interlock.core.errors import Invalid, NotFound, Permanent, Transient
from interlock.core.evidence import GENESIS, leaf_hash
from interlock.core.model import Frozen
from interlock.engine.audit import store as audit_store
from interlock.engine.audit.store import CheckpointRow
from interlock.engine.db import Connection
from interlock.lib.merkle import Frontier, Tree, verify_inclusion
from interlock.lib.note import VerifierKey, open_note


class ReceiptRow(Frozen):
    """One row: its line, its leaf number, and its inclusion proof (base64) in the checkpoint of `size` rows."""

    index: int = Field(ge=0)
    line: str
    size: int = Field(ge=1)
    path: tuple[str, ...]


class Receipt(Frozen):
    """All rows of a Run up to `head` (the hash of the last), and the first checkpoints that cover them."""

    type: Literal["urn:interlock:receipt:v1"] = "urn:interlock:receipt:v1"
    run: int
    head: str
    rows: tuple[ReceiptRow, ...]
    checkpoints: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """Raises Invalid."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            msg = f"this is not a receipt: {error.errors()[0]['msg']}"
            raise Invalid(msg, code="receipt.form", fix="interlock audit receipt N > run-N.json writes one") from error

    def encode(self) -> str:
        """The same receipt always gives the same text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


async def make_receipt(connection: Connection, run: int) -> Receipt:
    """The receipt of a Run as it stands in the log.

    Each row is proven in the first checkpoint that covers it, so that the cost does not grow with the log.

    Raises:
        NotFound: There is no evidence of such a Run.
        Transient: Not every row is sealed yet.
        Permanent: The log is damaged.
    """
    rows = await audit_store.run_leaves(connection, run)
    if not rows:
        msg = f"there is no evidence of a Run {run}"
        raise NotFound(msg, code="run.unknown", fix="interlock log")
    if any(row["index"] is None for row in rows):
        msg = f"the newest evidence of Run {run} is not sealed yet"
        raise Transient(msg, code="audit.unsealed", fix="try again in a few seconds")
    trees: list[tuple[CheckpointRow, Tree]] = []
    proven = []
    for row in rows:
        if not trees or row["index"] >= trees[-1][0].size:
            trees.append(await _tree_over(connection, row["index"]))
        checkpoint, tree = trees[-1]
        path = tuple(base64.b64encode(node).decode() for node in tree.inclusion_proof(row["index"]))
        proven.append(ReceiptRow(index=row["index"], line=row["line"], size=checkpoint.size, path=path))
    notes = tuple(checkpoint.note for checkpoint, _ in trees)
    return Receipt(run=run, head=rows[-1]["hash"], rows=tuple(proven), checkpoints=notes)


async def _tree_over(connection: Connection, index: int) -> tuple[CheckpointRow, Tree]:
    """The first checkpoint that covers a leaf, and the tree below it from the checkpoint before it on."""
    checkpoint = await audit_store.checkpoint_over(connection, index)
    before = await audit_store.checkpoint_at_or_before(connection, index)
    if checkpoint is None:
        msg = f"no checkpoint covers leaf {index}"
        raise Permanent(msg, code="audit.tampered", fix="interlock audit verify")
    try:
        start = Frontier() if before is None else before.frontier()
        leaves = await leaf_hashes(connection, start.size, checkpoint.size)
        return checkpoint, Tree(leaves, start)
    except ValueError as error:
        msg = f"the log is damaged before leaf {checkpoint.size}: {error}"
        raise Permanent(msg, code="audit.tampered", fix="interlock audit verify") from error


async def leaf_hashes(connection: Connection, start: int, end: int) -> list[bytes]:
    """The hashes of leaves start to end - 1. Raises ValueError when one is missing or is no hash."""
    found: list[bytes] = []
    async with connection.transaction():
        async for chunk in audit_store.rows_in_chunks(connection, audit_store.HASHES, {"start": start, "end": end}):
            found.extend(bytes.fromhex(row["hash"] or "") for row in chunk)
    if len(found) != end - start or any(len(leaf) != 32 for leaf in found):  # noqa: PLR2004
        msg = f"of the leaves {start} to {end - 1} some are missing"
        raise ValueError(msg)
    return found


def verify_receipt(receipt: Receipt, key: VerifierKey) -> Checkpoint:
    """Check that this key's log holds exactly this Run; needs nothing but the two.

    Returns: the newest checkpoint of the receipt.

    Raises:
        Permanent: `receipt.tampered`, with the row that does not fit.
    """
    try:
        signed = [Checkpoint.parse(open_note(note, key)) for note in receipt.checkpoints]
        problem = _problem(receipt, {checkpoint.size: checkpoint for checkpoint in signed})
    except ValueError as error:
        problem = f"a checkpoint in it: {error}"
        signed = []
    if problem is not None:
        msg = f"this receipt is not what the log gave: {problem}"
        raise Permanent(msg, code="receipt.tampered")
    return max(signed, key=lambda checkpoint: checkpoint.size)


def _problem(receipt: Receipt, checkpoints: dict[int, Checkpoint]) -> str | None:
    previous, index = GENESIS, -1
    for seq, row in enumerate(receipt.rows, start=1):
        value = _line_fields(row.line)
        if (value.get("run"), value.get("seq"), value.get("prev")) != (receipt.run, seq, previous):
            return f"row {seq} does not follow from the row before it"
        checkpoint = checkpoints.get(row.size)
        if checkpoint is None or row.index <= index:
            return f"row {seq} has no place in a checkpoint of the receipt"
        previous, index = leaf_hash(row.line.encode()), row.index
        path = [_hash(node) for node in row.path]
        if not verify_inclusion(bytes.fromhex(previous), index, row.size, path, bytes.fromhex(checkpoint.root)):
            return f"row {seq} is not leaf {index} of the log that was signed"
    if previous != receipt.head or not receipt.rows:
        return "its head is not the hash of its last row"
    return None


def _line_fields(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _hash(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
