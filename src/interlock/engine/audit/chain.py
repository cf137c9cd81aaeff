"""Walks the evidence of one Run after the other and says which row does not follow from the one before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from interlock.core.evidence import GENESIS, EvidenceKind
from interlock.engine.audit.findings import Findings
from interlock.lib.canonical import canonical_bytes

_FIELDS = {"at", "data", "kind", "prev", "run", "seq", "v"}
_KINDS = frozenset(EvidenceKind)
QUICK = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


@dataclass
class RunTale:
    """What a Run's evidence says of it, to be held against the tables.

    `asked`, `closed` (None while the Run is open) and each of `verdicts` are the data of those rows; the first two with
    the time of their row as `at`.
    """

    run: int
    rows: int = 0
    hash: str = GENESIS
    index: int = -1
    digest: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    closed: dict[str, Any] | None = None


class ChainWalk:
    """Takes rows in the order of (run, seq); each has run, seq, kind, line, hash, index (or None) and unsealed."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._tale: RunTale | None = None
        self.rows = 0

    def take(self, rows: Iterable[Mapping[str, Any]]) -> list[RunTale]:
        """Check some more rows; returns the Runs that ended among them."""
        ended = []
        for row in rows:
            tale = self._tale
            if tale is None or tale.run != row["run"]:
                if tale is not None:
                    ended.append(tale)
                tale = self._tale = RunTale(row["run"])
            self._check(tale, row)
            self.rows += 1
        return ended

    def finish(self) -> list[RunTale]:
        """No more rows come: the last Run, if there was any."""
        return [] if self._tale is None else [self._tale]

    def _check(self, tale: RunTale, row: Mapping[str, Any]) -> None:
        seq, line = row["seq"], row["line"]
        raw = line.encode()
        if sha256(b"\x00" + raw).hexdigest() != row["hash"]:
            self._add("row.hash", "the line is not the one this row's hash was made from", row)
        if seq != tale.rows + 1:
            self._add("row.missing", f"row {tale.rows + 1} is missing: after it comes row {seq}", row)
        value = _parse(line)
        if value is None:
            self._add("row.line", "the line is not canonical JSON with the seven fields of evidence", row)
        else:
            self._check_fields(tale, row, value)
        self._check_place(tale, row)
        tale.rows, tale.hash = seq, row["hash"]

    def _check_fields(self, tale: RunTale, row: Mapping[str, Any], value: dict[str, Any]) -> None:
        kind = row["kind"]
        if (value["run"], value["seq"], value["kind"]) != (row["run"], row["seq"], kind) or value["v"] != 1:
            self._add("row.columns", "the columns beside the line say something else than the line", row)
        if kind not in _KINDS:
            self._add("row.kind", f"there is no evidence of kind {kind!r}", row)
        if value["prev"] != tale.hash:
            what = (
                "this first row names a row before it" if row["seq"] == 1 else "it does not follow from the row before"
            )
            self._add("row.prev", what, row)
        if tale.closed is not None and kind != EvidenceKind.NOTED:
            self._add("row.after_closed", f"{kind!r} comes after the Run was closed", row)
        self._gather(tale, row, value)

    def _gather(self, tale: RunTale, row: Mapping[str, Any], value: dict[str, Any]) -> None:
        """Keep what the tables must agree with."""
        kind, data = row["kind"], value["data"]
        if row["seq"] == 1:
            self._check_first(tale, row, data | {"at": value["at"]})
        elif kind == EvidenceKind.DECIDED and row["seq"] == 2:  # noqa: PLR2004
            tale.decided = data
            if data.get("digest") != tale.digest:
                self._add("row.digest", "what was decided on is not what was asked", row)
        elif kind == EvidenceKind.APPROVED:
            tale.verdicts.append(data)
        elif kind == EvidenceKind.CLOSED:
            tale.closed = data | {"at": value["at"]}

    def _check_first(self, tale: RunTale, row: Mapping[str, Any], data: dict[str, Any]) -> None:
        if row["kind"] != EvidenceKind.ASKED:
            self._add("run.asked", f"the Run begins with {row['kind']!r}; what was asked is missing", row)
        elif not isinstance(data.get("digest"), str):
            self._add("run.asked", "what was asked names no digest", row)
        else:
            tale.asked, tale.digest = data, data["digest"]

    def _check_place(self, tale: RunTale, row: Mapping[str, Any]) -> None:
        index = row["index"]
        if index is None:
            if not row["unsealed"]:
                self._add("row.unnumbered", "the row is neither in the tree nor waiting to be", row)
            return
        if row["unsealed"]:
            self._add("row.twice", f"the row is leaf {index} and waits to become one", row)
        if index <= tale.index:
            self._add("leaf.order", f"leaf {index} stands before that of the row before it ({tale.index})", row)
        tale.index = index

    def _add(self, code: str, message: str, row: Mapping[str, Any]) -> None:
        where = f"Run {row['run']}, row {row['seq']}: {message}"
        self._findings.add(code, where, run=row["run"], seq=row["seq"], index=row["index"])


def _parse(line: str) -> dict[str, Any] | None:
    """The line as an object with exactly the seven fields; None when it is anything else, or not canonical."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or value.keys() != _FIELDS or not isinstance(value["data"], dict):
            return None
        # The C encoder gives the canonical form of nearly every line at a tenth of the cost of the exact one, for which
        # every number is a double.
        if QUICK.encode(value) != line and canonical_bytes(json.loads(line, parse_int=float)) != line.encode():
            return None
    except (ValueError, RecursionError):
        return None
    return value
