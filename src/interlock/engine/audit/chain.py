"""Walks the evidence of one Run after the other and says which row does not follow from the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from interlock.core.evidence import GENESIS, EvidenceKind
from interlock.engine.audit.findings import Findings
from interlock.lib.canonical import read_canonical

_FIELDS = {"at", "data", "kind", "prev", "run", "seq", "v"}
_KINDS = frozenset(kind.value for kind in EvidenceKind)

ChainRow = tuple[int, int, str, str, str, int | None, bool]
"""run, seq, kind, line, hash, index (None while it is no leaf), and whether it waits to become one."""


@dataclass(slots=True)
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
    """Takes rows in the order of (run, seq)."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._tale: RunTale | None = None
        self.rows = 0

    def take(self, rows: Sequence[ChainRow]) -> list[RunTale]:
        """Check some more rows; returns the Runs that ended among them."""
        ended = []
        tale = self._tale
        for row in rows:
            if tale is None or tale.run != row[0]:
                if tale is not None:
                    ended.append(tale)
                tale = self._tale = RunTale(row[0])
            self._check(tale, row)
        self.rows += len(rows)
        return ended

    def finish(self) -> list[RunTale]:
        """No more rows come: the last Run, if there was any."""
        return [] if self._tale is None else [self._tale]

    def _check(self, tale: RunTale, row: ChainRow) -> None:
        _, seq, _, line, told, index, waits = row
        raw = line.encode()
        if sha256(b"\x00" + raw).hexdigest() != told:
            self._add("row.hash", "the line is not the one this row's hash was made from", row)
        if seq != tale.rows + 1:
            self._add("row.missing", f"row {tale.rows + 1} is missing: after it comes row {seq}", row)
        value = _parse(raw)
        if value is None:
            self._add("row.line", "the line is not canonical JSON with the seven fields of evidence", row)
        else:
            self._check_fields(tale, row, value)
        if index is None or waits or index <= tale.index:
            self._complain_of_place(tale, row)
        if index is not None:
            tale.index = index
        tale.rows, tale.hash = seq, told

    def _check_fields(self, tale: RunTale, row: ChainRow, value: dict[str, Any]) -> None:
        run, seq, kind, *_ = row
        if value["run"] != run or value["seq"] != seq or value["kind"] != kind or value["v"] != 1:
            self._add("row.columns", "the columns beside the line say something else than the line", row)
        if kind not in _KINDS:
            self._add("row.kind", f"there is no evidence of kind {kind!r}", row)
        if value["prev"] != tale.hash:
            what = "this first row names a row before it" if seq == 1 else "it does not follow from the row before"
            self._add("row.prev", what, row)
        if tale.closed is not None and kind != EvidenceKind.NOTED:
            self._add("row.after_closed", f"{kind!r} comes after the Run was closed", row)
        self._gather(tale, row, value)

    def _gather(self, tale: RunTale, row: ChainRow, value: dict[str, Any]) -> None:
        """Keep what the tables must agree with."""
        _, seq, kind, *_ = row
        data = value["data"]
        if seq == 1:
            self._check_first(tale, row, data | {"at": value["at"]})
        elif kind == EvidenceKind.DECIDED and seq == 2:  # noqa: PLR2004
            tale.decided = data
            if data.get("digest") != tale.digest:
                self._add("row.digest", "what was decided on is not what was asked", row)
        elif kind == EvidenceKind.APPROVED:
            tale.verdicts.append(data)
        elif kind == EvidenceKind.CLOSED:
            tale.closed = data | {"at": value["at"]}

    def _check_first(self, tale: RunTale, row: ChainRow, data: dict[str, Any]) -> None:
        kind = row[2]
        if kind != EvidenceKind.ASKED:
            self._add("run.asked", f"the Run begins with {kind!r}; what was asked is missing", row)
        elif not isinstance(data.get("digest"), str):
            self._add("run.asked", "what was asked names no digest", row)
        else:
            tale.asked, tale.digest = data, data["digest"]

    def _complain_of_place(self, tale: RunTale, row: ChainRow) -> None:
        """Say what is wrong with where a row stands in the tree; nothing when it only waits to become a leaf."""
        *_, index, waits = row
        if index is None:
            if not waits:
                self._add("row.unnumbered", "the row is neither in the tree nor waiting to be", row)
            return
        if waits:
            self._add("row.twice", f"the row is leaf {index} and waits to become one", row)
        if index <= tale.index:
            self._add("leaf.order", f"leaf {index} stands before that of the row before it ({tale.index})", row)

    def _add(self, code: str, message: str, row: ChainRow) -> None:
        run, seq, *_, index, _ = row
        self._findings.add(code, f"Run {run}, row {seq}: {message}", run=run, seq=seq, index=index)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The line as an object with exactly the seven fields; None when it is anything else, or not canonical."""
    try:
        value = read_canonical(line)
    except ValueError:
        return None
    fits = isinstance(value, dict) and value.keys() == _FIELDS and isinstance(value["data"], dict)
    return value if fits else None
