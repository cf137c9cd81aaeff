"""Writes the rows that differ as a CSV file that a spreadsheet may open without doing what a cell says."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from interlock.comparison.table_join import SharedColumn, TableJoin
from interlock.comparison.table_model import RowCounts

ROWS_MAX = 1000
"""Rows of each kind (changed, missing, new) that are written; all of them are counted."""
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,eE+-]*")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_differences(
    path: Path, join: TableJoin, keys: Sequence[str], compared: Sequence[SharedColumn], rows: RowCounts
) -> None:
    """One line for each cell that differs beyond its rule, and one for each row that only one side has. Mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*map(spreadsheet_text, keys), "what", "column", "stable", "candidate", "grade"])
        if rows.changed:
            for key, stable, candidate, beyond in join.some_rows(ROWS_MAX):
                for column, one, other, differs in zip(compared, stable, candidate, beyond, strict=True):
                    if differs:
                        grade = column.way.grade("changed")[0]
                        cells = (*key, "changed", column.name, one, other)
                        writer.writerow([*map(spreadsheet_text, cells), grade])
        for what, found in (
            ("missing", join.some_missing(ROWS_MAX) if rows.missing else []),
            ("new", join.some_added(ROWS_MAX) if rows.added else []),
            (
                "key occurs twice",
                join.some_repeated(ROWS_MAX) if rows.repeated_stable + rows.repeated_candidate else [],
            ),
        ):
            for key in found:
                writer.writerow([*map(spreadsheet_text, key), what, "", "", "", ""])


def spreadsheet_text(cell: str | None) -> str:
    """A cell that a spreadsheet shows and does not compute: what looks like a formula gets an apostrophe in front."""
    if cell is None:
        return ""
    if cell.startswith(_FORMULA) and _NUMBER.fullmatch(cell) is None:
        return "'" + cell
    return cell
