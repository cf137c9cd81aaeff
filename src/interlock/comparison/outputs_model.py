"""What a comparison of two folders of outputs found, file by file, and what of it stops a release."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from interlock.comparison.table_model import TableComparison
from interlock.core.comparison import ComparisonRules, Difference
from interlock.core.model import Frozen

FileKind = Literal["table", "document", "text", "binary", "link", "other"]
DIFFERENCES_SHOWN_MAX = 50
DIFF_LINES_MAX = 200


class FileComparison(Frozen):
    """One file of the outputs, by its path below their folder.

    `table` is set for tables, `differences` for documents and texts, `diff` (unified, at most `DIFF_LINES_MAX` lines)
    for texts. Digests are SHA-256.
    """

    path: str
    kind: FileKind
    identical: bool = False
    """Byte for byte."""
    stable_sha256: str | None = None
    candidate_sha256: str | None = None
    table: TableComparison | None = None
    differences: tuple[Difference, ...] = ()
    more: int = 0
    """Differences that were found and are not shown."""
    diff: str | None = None
    noisy: tuple[str, ...] = ()
    """Fields and columns in which the stable version differs from itself."""
    blocks: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()


class OutputComparison(Frozen):
    """All files of two folders.

    `pairs` counts what was held against each other (rows of tables, and every other file as one), `disagreeing` how
    many of these differ in something that blocks; `agreement_bound` is the lower bound of the agreeing share, 0 to 1.
    """

    files: tuple[FileComparison, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    pairs: int = 0
    disagreeing: int = 0
    agreement_bound: float = 0.0
    blocks: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    proposed_rules: str | None = None
    """YAML for `comparison.rules`: what would excuse the noise of the stable version itself."""
    seconds: float = Field(default=0.0, ge=0)

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns and fields whose differences count, by file."""
        found = [f"{file.path}: {name}" for file in self.files if file.table for name in file.table.differing_columns]
        found += [f"{file.path}: {each.field or each.path}" for file in self.files for each in file.differences]
        return tuple(dict.fromkeys(found))


class OutputTask(Frozen):
    """What the comparing process is asked: folders, rules, bounds, and where to write what it found."""

    stable: str
    candidate: str
    again: str | None = None
    """The stable version's second run on the same input, from which noise is learned."""
    rules: ComparisonRules = ComparisonRules()
    work: str
    """An empty folder for what does not fit into memory."""
    today: date
    differences: str | None = None
    """Where differing rows are written as CSV: a folder."""
    result: str
    """Where the OutputComparison is written as JSON."""
    memory_bytes: int = Field(default=256 * 1024 * 1024, ge=32 * 1024 * 1024)
    threads: int = Field(default=2, ge=1, le=64)
