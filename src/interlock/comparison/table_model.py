"""What a comparison of two tables found: rows, columns, control totals, and what of it stops a release."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from interlock.core.comparison import Comparator, Difference, Grade
from interlock.core.model import Frozen

TableKind = Literal["csv", "ndjson", "json", "parquet"]
Side = Literal["stable", "candidate"]

EXAMPLES_MAX = 5
CELL_CHARACTERS_MAX = 200


class CellExample(Frozen):
    """One cell that differs: the row's key, and both texts, cut at `CELL_CHARACTERS_MAX`; None where there is none."""

    key: tuple[str | None, ...]
    stable: str | None
    candidate: str | None


class ColumnResult(Frozen):
    """How one column differs over the rows that both tables have.

    `different` counts cells whose text differs; `beyond` those of them that the column's rule does not excuse.
    `within_budget` says that so few may differ, so that the grade does not count.
    """

    name: str
    compare: Comparator
    grade: Grade
    reason: str
    """The rule's, or what the default says."""
    key_field: bool = False
    different: int = 0
    beyond: int = 0
    types_changed: int = 0
    """Cells of JSON that became another kind of value: a number a text, say."""
    noise: int = 0
    """In so many cells the stable version differs from itself, run twice on the same input."""
    is_noise: bool = False
    """The candidate differs no more often than that proves."""
    within_budget: bool = False
    agreement_bound: float | None = None
    """Of key fields: at least this share of rows agrees, at the declared confidence; 0 to 1."""
    examples: tuple[CellExample, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether its grade counts."""
        return self.beyond > 0 and not self.within_budget and self.grade != "ignore"

    @property
    def blocks(self) -> bool:
        """Whether it stops a release."""
        return self.counts and self.grade == "block" and not self.is_noise


class ControlTotal(Frozen):
    """A sum over a whole column, exact: every row counts, also those that the other table lacks.

    `stable` and `candidate` are decimal texts. `unreadable` cells are no plain numbers; they are left out and said.
    """

    column: str
    stable: str | None
    candidate: str | None
    unreadable_stable: int = 0
    unreadable_candidate: int = 0
    trouble: str | None = None

    @property
    def equal(self) -> bool:
        """Whether both sums are known, are the same, and were made of numbers only or of the same number of others."""
        readable = self.trouble is None and self.unreadable_stable == self.unreadable_candidate
        return readable and self.stable is not None and self.stable == self.candidate


class RowCounts(Frozen):
    """How many rows each table has, and how they pair.

    Rows whose key occurs twice on either side are never paired: `repeated_*` counts them. `without_key_*` counts rows
    with a key column missing. `excused`: they differ in text, and every difference is one that rules excuse.
    """

    stable: int
    candidate: int
    identical: int = 0
    excused: int = 0
    changed: int = 0
    missing: int = 0
    added: int = 0
    repeated_stable: int = 0
    repeated_candidate: int = 0
    without_key_stable: int = 0
    without_key_candidate: int = 0

    @property
    def paired(self) -> int:
        """Rows that both have."""
        return self.identical + self.excused + self.changed


class TableComparison(Frozen):
    """All that was found between two tables.

    `blocks` and `warns` are sentences for people, each about one thing; any of `blocks` stops a release.
    """

    kind: TableKind
    keys: tuple[str, ...]
    keys_guessed: bool = False
    rows: RowCounts
    columns: tuple[ColumnResult, ...]
    schema_differences: tuple[Difference, ...] = ()
    totals: tuple[ControlTotal, ...] = ()
    missing_examples: tuple[tuple[str | None, ...], ...] = ()
    added_examples: tuple[tuple[str | None, ...], ...] = ()
    repeated_examples: tuple[tuple[str | None, ...], ...] = ()
    disagreeing: int = 0
    """Paired rows that differ in a column whose differences block."""
    agreement_bound: float | None = None
    """At least this share of rows agrees in all that blocks, at the declared confidence; 0 to 1."""
    key_fields_found: tuple[int, ...] = ()
    """Which of the declared key fields, by number, are columns here."""
    blocks: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    seconds: float = Field(ge=0)

    @property
    def differing_columns(self) -> tuple[str, ...]:
        """The columns whose differences count, those that block first."""
        found = [each for each in self.columns if each.counts]
        return tuple(each.name for each in sorted(found, key=lambda each: each.grade != "block"))
