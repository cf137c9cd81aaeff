"""Compares two tables row by row by their keys, in a bounded amount of memory however large they are.

The stable table is read once for its keys and one hash a row; the candidate is read once against that, which leaves
the rows whose hash differs; those alone are fetched from the stable table and compared cell by cell, as text. Two rows
that differ have the same 64-bit hash once in 10^19 pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from interlock.comparison.evidence import Counts, agreement_lower_bound, log_paired_evidence, log_threshold
from interlock.comparison.rules import ReadyRules, graver
from interlock.comparison.table_differences import write_differences
from interlock.comparison.table_join import CellCounts, SharedColumn, TableJoin
from interlock.comparison.table_model import (
    CellExample,
    ColumnResult,
    ControlTotal,
    TableComparison,
    TableKind,
)
from interlock.comparison.table_rules import column_way, literal
from interlock.comparison.table_schema import schema_differences
from interlock.comparison.table_sources import TableSource, open_table, unreadable
from interlock.comparison.table_totals import control_totals
from interlock.comparison.table_words import conclude
from interlock.core.comparison import ComparisonRules, Grade
from interlock.core.errors import Invalid, Transient

MEMORY_BYTES = 256 * 1024 * 1024
TEMPORARY_BYTES_MAX = 64 * 1024 * 1024 * 1024
THREADS = 2
EXAMPLE_COLUMNS_MAX = 50


@dataclass(frozen=True)
class TableLimits:
    """Bounds of one comparison. DuckDB keeps to `memory_bytes` and goes to disk beyond; Python comes on top of that."""

    memory_bytes: int = MEMORY_BYTES
    temporary_bytes: int = TEMPORARY_BYTES_MAX
    threads: int = THREADS


LIMITS = TableLimits()
NO_NOISE: Mapping[str, int] = {}
NOISE_FALSE_ALARM = 0.01
"""Probability of blaming the candidate for a column that is as noisy in the stable version."""


def compare_tables(
    stable: Path,
    candidate: Path,
    kind: TableKind,
    rules: ComparisonRules,
    *,
    folder: Path,
    today: date,
    limits: TableLimits = LIMITS,
    differences: Path | None = None,
    noise: Mapping[str, int] = NO_NOISE,
) -> TableComparison:
    """Hold the candidate's table against the stable version's.

    Args:
        stable: The file of the version that users have.
        candidate: The file of the other one.
        kind: What both files are.
        rules: What counts; `keys` name the rows, and are guessed where there are none.
        folder: An empty folder for what does not fit into memory; it is not emptied afterwards.
        today: Rules may expire.
        limits: Bounds of memory, disk and threads.
        differences: Where the first differing rows are written as CSV.
        noise: By column, in how many cells the stable version differed from itself on the same input.

    Raises:
        Invalid: One of them cannot be read as a table (`comparison.unreadable`), or the rules name a key that the
            stable table does not have (`comparison.key`).
        Transient: The memory and disk allowed are not enough.
    """
    begun = time.monotonic()
    ready = ReadyRules(rules, today)
    with _connect(folder, (stable, candidate), limits) as connection:
        try:
            one = open_table(stable, kind, folder, "stable", connection)
            other = open_table(candidate, kind, folder, "candidate", connection)
            found = _Comparison(connection, kind, one, other, ready, noise).run(differences)
        except duckdb.OutOfMemoryException as error:
            msg = f"the tables are too large for the memory and disk allowed: {str(error).splitlines()[0][:200]}"
            raise Transient(msg, code="comparison.too_large", fix="make room on the disk") from error
        except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
            raise _told(error, stable, candidate) from error
    return found.model_copy(update={"seconds": time.monotonic() - begun})


def _connect(folder: Path, files: tuple[Path, ...], limits: TableLimits) -> duckdb.DuckDBPyConnection:
    """A database in memory that reaches nothing else, loads nothing, and cannot be told otherwise."""
    spill = folder / "spill"
    spill.mkdir(mode=0o700, exist_ok=True)
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "memory_limit": f"{limits.memory_bytes}B",
            "max_temp_directory_size": f"{limits.temporary_bytes}B",
            "temp_directory": str(spill),
            "threads": str(limits.threads),
            "preserve_insertion_order": "false",
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    # Which side is the smaller one is known here; the optimizer knows nothing of files that it did not sniff at.
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    connection.execute(f"SET allowed_directories = [{literal(f'{folder.resolve()}/')}]")
    connection.execute(f"SET allowed_paths = [{', '.join(literal(str(path.resolve())) for path in files)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _told(error: duckdb.Error, stable: Path, candidate: Path) -> Invalid:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return unreadable(candidate if "/candidate." in text else stable, " ".join(lines[:3])[:300])


class _Comparison:
    """One comparison on one connection."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        kind: TableKind,
        stable: TableSource,
        candidate: TableSource,
        rules: ReadyRules,
        noise: Mapping[str, int],
    ) -> None:
        self._connection = connection
        self._noise = noise
        self._kind = kind
        self._stable = stable
        self._candidate = candidate
        self._rules = rules
        self._shared = [
            SharedColumn(
                name, number, candidate.names.index(name), column_way(name, rules, typed_json=stable.typed_json)
            )
            for number, name in enumerate(stable.names)
            if name in candidate.names
        ]
        self._keys, self._guessed = self._find_keys()
        keys = {column.name for column in self._keys}
        self._compared = [each for each in self._shared if each.name not in keys and not each.way.is_ignored]
        by_name = {each.name: each for each in self._shared}
        self._summed = [by_name[name] for name in rules.declared.control_totals if name in by_name]

    def run(self, differences: Path | None) -> TableComparison:
        """All of it, in order."""
        join = TableJoin(self._connection, self._stable, self._candidate, self._keys, self._compared, self._summed)
        rows = join.pair()
        cells = [CellCounts(0, 0, 0, 0)] * len(self._compared)
        disagreeing = 0
        if rows.changed:
            join.fetch_differing()
            beyond, disagreeing = join.changed_beyond(
                [at for at, column in enumerate(self._compared) if column.way.grade("changed")[0] == "block"]
            )
            cells = join.count_cells()
            rows = rows.model_copy(update={"changed": beyond, "excused": rows.changed - beyond})
        if differences is not None:
            write_differences(differences, join, [each.name for each in self._keys], self._compared, rows)
        found = TableComparison(
            kind=self._kind,
            keys=tuple(column.name for column in self._keys),
            keys_guessed=self._guessed,
            rows=rows,
            columns=self._columns(join, cells, rows.paired),
            schema_differences=schema_differences(self._stable, self._candidate, self._rules),
            totals=self._totals(),
            missing_examples=tuple(join.some_missing()) if rows.missing else (),
            added_examples=tuple(join.some_added()) if rows.added else (),
            repeated_examples=tuple(join.some_repeated()) if rows.repeated_stable + rows.repeated_candidate else (),
            disagreeing=disagreeing,
            agreement_bound=self._bound(rows.paired, disagreeing) if self._keys else None,
            key_fields_found=tuple(sorted({each.way.key for each in self._shared if each.way.key is not None})),
            seconds=0.0,
        )
        blocks, warns = conclude(found, self._rules)
        return found.model_copy(update={"blocks": blocks, "warns": warns})

    def _find_keys(self) -> tuple[Sequence[SharedColumn], bool]:
        """Raises: Invalid when the stable table lacks a declared key.

        A key that the candidate lacks is a column that is gone, and leaves nothing to pair rows by.
        """
        declared = self._rules.declared.keys
        unknown = [name for name in declared if name not in self._stable.names]
        if unknown:
            msg = f"the key {unknown[0]!r} is no column of the stable version's table"
            fix = f"name columns of it under `keys`: {', '.join(self._stable.names[:20])}"
            raise Invalid(msg, code="comparison.key", fix=fix)
        if declared:
            found = [each for each in self._shared if each.name in declared]
            return (found, False) if len(found) == len(declared) else ((), False)
        guess = next((each for each in self._shared if self._names_rows(each)), None)
        return ((guess,), True) if guess is not None else ((), False)

    def _names_rows(self, column: SharedColumn) -> bool:
        """Whether each row of both tables has another value in it."""
        for source, number in ((self._stable, column.stable), (self._candidate, column.candidate)):
            sql = f"SELECT count(*), count(DISTINCT c{number}) FROM {source.sql}"
            rows, values = self._connection.execute(sql).fetchall()[0]
            if rows != values:
                return False
        return True

    def _columns(self, join: TableJoin, cells: Sequence[CellCounts], paired: int) -> tuple[ColumnResult, ...]:
        made = []
        exampled = 0
        for at, (column, counts) in enumerate(zip(self._compared, cells, strict=True)):
            rows = join.some_cells(at) if counts.beyond and exampled < EXAMPLE_COLUMNS_MAX else []
            exampled += bool(rows)
            grade, reason = _grade(column, counts)
            made.append(
                ColumnResult(
                    name=column.name,
                    compare=column.way.rule.compare if column.way.rule is not None else "exact",
                    grade=grade,
                    reason=reason,
                    key_field=column.way.key is not None,
                    different=counts.different,
                    beyond=counts.beyond,
                    types_changed=counts.types_changed,
                    noise=self._noise.get(column.name, 0),
                    is_noise=_is_noise(counts.beyond, self._noise.get(column.name, 0)),
                    within_budget=counts.beyond * 100 <= column.way.budget_percent * paired,
                    agreement_bound=self._bound(paired, counts.beyond) if column.way.key is not None else None,
                    examples=tuple(CellExample(key=row[:-2], stable=row[-2], candidate=row[-1]) for row in rows),
                )
            )
        return tuple(made)

    def _bound(self, pairs: int, disagreeing: int) -> float:
        return agreement_lower_bound(Counts(pairs, disagreeing), self._rules.declared.confidence_percent / 100)

    def _totals(self) -> tuple[ControlTotal, ...]:
        names = [each.name for each in self._summed]
        found = {
            each.column: each for each in control_totals(self._connection, names, typed_json=self._stable.typed_json)
        }
        lacking = ControlTotal(column="", stable=None, candidate=None, trouble="not both tables have this column")
        return tuple(
            found.get(name) or lacking.model_copy(update={"column": name})
            for name in self._rules.declared.control_totals
        )


def _is_noise(differing: int, noise: int) -> bool:
    """Whether the candidate may differ no more often than the stable version from itself.

    Rows that differ in both runs are not told apart here and count on both sides, which only asks for more evidence.
    """
    if not noise:
        return False
    return log_paired_evidence(differing + noise, differing) < log_threshold(1, NOISE_FALSE_ALARM)


def _grade(column: SharedColumn, counts: CellCounts) -> tuple[Grade, str]:
    """The gravest of what happened to the column's cells."""
    grade, reason = column.way.grade("changed")
    for happened, kind in ((counts.types_changed, "type"), (counts.removed, "removed")):
        if happened:
            graver_one, why = column.way.grade(kind)  # type: ignore[arg-type]
            if graver(graver_one, grade) != grade:
                grade, reason = graver_one, why
    return grade, reason
