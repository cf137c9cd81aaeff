"""A row of a Run's hash chain: what happened, as canonical JSON, tied to the row before it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

from interlock.core.model import Frozen, JsonObject
from interlock.lib.canonical import canonical_bytes
from interlock.lib.clock import rfc3339

GENESIS = "0" * 64
DATA_BYTES_MAX = 16 * 1024


class EvidenceKind(StrEnum):
    """What a row says happened."""

    ASKED = "asked"
    DECIDED = "decided"
    APPROVED = "approved"
    STARTED = "started"
    DONE = "done"
    CHECKED = "checked"
    UNDONE = "undone"
    CLOSED = "closed"
    NOTED = "noted"


class Evidence(Frozen):
    """One sealed line. `hash` is SHA-256 over 0x00 and the line: a leaf of RFC 6962's tree as well."""

    run: int
    seq: int
    kind: EvidenceKind
    line: str
    hash: str


def evidence_line(run: int, seq: int, kind: EvidenceKind, at: datetime, data: JsonObject, previous: str) -> Evidence:
    """Make the row that follows `previous` (`GENESIS` for the first).

    Raises:
        ValueError: `data` is larger than `DATA_BYTES_MAX`; bodies belong into blobs.
    """
    line = canonical_bytes(
        {
            "at": rfc3339(at),
            "data": data,
            "kind": kind.value,
            "prev": previous,
            "run": run,
            "seq": seq,
            "v": 1,
        }
    )
    if len(line) > DATA_BYTES_MAX:
        msg = f"evidence of {len(line)} bytes is over {DATA_BYTES_MAX}; put the body into a blob and its digest here"
        raise ValueError(msg)
    return Evidence(run=run, seq=seq, kind=kind, line=line.decode(), hash=leaf_hash(line))


def leaf_hash(line: bytes) -> str:
    """SHA-256(0x00 || line), RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x00" + line).hexdigest()


class Chain:
    """The growing end of one Run's evidence, in the hands of whoever may write it now."""

    def __init__(self, run: int, *, seq: int = 0, head: str = GENESIS) -> None:
        self.run = run
        self.seq = seq
        self.head = head

    @classmethod
    def after(cls, run: int, rows: tuple[Evidence, ...]) -> Chain:
        """The chain as it stands behind `rows`, which are all rows of the Run in order."""
        return cls(run, seq=rows[-1].seq, head=rows[-1].hash) if rows else cls(run)

    def extend(self, kind: EvidenceKind, at: datetime, data: JsonObject) -> Evidence:
        """Make the next row. It counts only once it is committed: a failed write must drop this object."""
        row = evidence_line(self.run, self.seq + 1, kind, at, data, self.head)
        self.seq, self.head = row.seq, row.hash
        return row
