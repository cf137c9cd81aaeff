"""Rebuilds the Merkle tree leaf by leaf and holds every signed checkpoint, and what others kept, against it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from interlock.core.checkpoint import Checkpoint, link_of
from interlock.engine.audit.findings import Findings
from interlock.engine.audit.store import CheckpointRow
from interlock.lib.clock import rfc3339
from interlock.lib.merkle import Frontier
from interlock.lib.note import NoteError, VerifierKey, open_note

LeafRow = tuple[int, int, int, str | None]
"""index, run, seq, and the hash of that row of evidence, None when there is no such row."""


@dataclass(frozen=True)
class Kept:
    """What somebody kept from earlier: roots by size, and leaf hashes (hexadecimal) by index."""

    roots: Mapping[int, str]
    leaves: Mapping[int, str]


class TreeWalk:
    """Takes leaves in order, together with the checkpoints that end among them."""

    def __init__(self, findings: Findings, key: VerifierKey, kept: Kept | None = None) -> None:
        self._findings = findings
        self._key = key
        self._kept = kept or Kept({}, {})
        self._frontier = Frontier()
        self._broken = False
        self._covered = 0
        self._before: Checkpoint | None = None
        self._note: str | None = None
        self.checkpoints = 0
        self.leaves = 0

    @property
    def root(self) -> str:
        """The root of all leaves so far."""
        return self._frontier.root().hex()

    @property
    def note(self) -> str | None:
        """The newest checkpoint so far."""
        return self._note

    def take(self, leaves: Iterable[LeafRow], checkpoints: Sequence[CheckpointRow]) -> None:
        """Add some more leaves, and check the checkpoints that cover no leaf beyond them."""
        due = deque(checkpoints)
        append, kept_leaves, kept_roots = self._frontier.append, self._kept.leaves, self._kept.roots
        for leaf in leaves:
            index, run, seq, told = leaf
            if index != self.leaves:
                self._lose(f"leaf {self.leaves} is missing: after it comes leaf {index}", "leaf.missing", leaf)
            self.leaves = index + 1
            if told is None:
                self._lose(f"row {seq} of Run {run}, leaf {index}, is missing", "leaf.lost", leaf)
            elif not self._broken:
                append(_hash_bytes(told))
            if index in kept_leaves and kept_leaves[index] != told:
                self._lose(f"leaf {index} is not the one in the receipt", "since.leaf", leaf)
            if index + 1 in kept_roots:
                self._compare_kept_root(index + 1)
            while due and due[0].size <= self.leaves:
                self._check(due.popleft())

    def finish(self, beyond: Sequence[CheckpointRow]) -> None:
        """No more leaves come; `beyond` are (the first) checkpoints that cover more leaves than there are."""
        for row in beyond:
            self._check(row)
            message = f"a checkpoint covers {row.size} rows, and only {self.leaves} are left: the end was cut off"
            self._findings.add("log.truncated", message, size=row.size)
        if self.leaves > self._covered and not beyond:
            message = f"leaves {self._covered} to {self.leaves - 1} stand in the tree, and no checkpoint covers them"
            self._findings.add("leaf.unsigned", message, index=self._covered)
        for size in self._kept.roots:
            if size > self.leaves:
                message = f"the log had {size} rows when the earlier checkpoint was cut, now it has {self.leaves}"
                self._findings.add("since.truncated", message, size=size)

    def _lose(self, message: str, code: str, leaf: LeafRow) -> None:
        """From here on no root can be computed."""
        index, run, seq, _ = leaf
        self._findings.add(code, message, run=run, seq=seq, index=index)
        self._broken = True

    def _compare_kept_root(self, size: int) -> None:
        if self._broken or self.root != self._kept.roots[size]:
            message = f"the first {size} rows are not those of the earlier checkpoint: history was rewritten"
            self._findings.add("since.root", message, size=size)

    def _check(self, row: CheckpointRow) -> None:
        self.checkpoints += 1
        checkpoint = self._read(row)
        if checkpoint is not None:
            self._check_link(row, checkpoint)
            self._check_tree(row, checkpoint)
        self._before, self._note, self._covered = checkpoint, row.note, row.size

    def _read(self, row: CheckpointRow) -> Checkpoint | None:
        try:
            checkpoint = Checkpoint.parse(open_note(row.note, self._key))
        except NoteError as error:
            self._add("checkpoint.signature", str(error), row)
            return None
        except ValueError as error:
            self._add("checkpoint.text", str(error), row)
            return None
        told = (checkpoint.origin, checkpoint.size, checkpoint.root, checkpoint.epoch, checkpoint.at)
        if told != (self._key.name, row.size, row.root, row.epoch, rfc3339(row.at)):
            self._add("checkpoint.columns", "the columns beside the note say something else than the note", row)
        return checkpoint

    def _check_link(self, row: CheckpointRow, checkpoint: Checkpoint) -> None:
        if checkpoint.prev != link_of(self._note):
            self._add("checkpoint.prev", "it does not follow from the checkpoint before it", row)
        before = self._before
        if before is not None and checkpoint.epoch != before.epoch + (checkpoint.home != before.home):
            self._add("checkpoint.epoch", "its epoch does not follow from the checkpoint before it", row)

    def _check_tree(self, row: CheckpointRow, checkpoint: Checkpoint) -> None:
        if self._broken or checkpoint.size != self._frontier.size:
            return
        if checkpoint.root != self.root:
            message = f"rows of leaves {self._covered} to {row.size - 1} are not those that were sealed"
            self._add("checkpoint.root", message, row)
            self._broken = True
        elif row.nodes != tuple(node.hex() for node in self._frontier.nodes):
            self._add("checkpoint.frontier", "the frontier kept beside the note is not that of the tree", row)

    def _add(self, code: str, message: str, row: CheckpointRow) -> None:
        self._findings.add(code, f"checkpoint of {row.size} rows: {message}", size=row.size)


def _hash_bytes(text: str) -> bytes:
    """The 32 bytes of a stored hash; of anything else, bytes that give a wrong root."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return text.encode()
