"""Pairs the rows of two tables by their keys in SQL, and leaves what differs in tables of its own.

Every name in this SQL is a position (`c3`, `k0`) or a table of ours: nothing that the files hold is part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb

from interlock.comparison.rules import Way
from interlock.comparison.table_model import CELL_CHARACTERS_MAX, EXAMPLES_MAX, RowCounts
from interlock.comparison.table_rules import exact_number_sql, excuse_sql, json_kind_sql, json_text_sql
from interlock.comparison.table_sources import TableSource

COLUMNS_AT_ONCE = 50
"""Aggregates over so many columns in one statement."""
SAMPLE_ROWS = 2000
MANY_SHARE = 0.25
"""Where more of a sample's rows differ it is worth finding out which columns do."""
BUSY_SHARE = 0.05
"""A column that differs in this part of a sample's rows is carried along as it is."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class SharedColumn:
    """A column that both tables have: its number in each, and what counts for it."""

    name: str
    stable: int
    candidate: int
    way: Way


@dataclass(frozen=True)
class CellCounts:
    """How many cells of one column differ, how many of them beyond what its rule excuses, and in which way."""

    different: int
    beyond: int
    types_changed: int
    removed: int


class DifferingRow(NamedTuple):
    """A row that differs: its key, its cells on both sides in the order of the compared columns, and which of these
    differ beyond their rules."""

    key: Row
    stable: Sequence[str | None]
    candidate: Sequence[str | None]
    beyond: Sequence[bool]


class TableJoin:
    """Two tables on one connection.

    Columns that differ in many rows (a time stamp, say) are *busy*: their cells are carried along as they are, where
    those of all others are a hash first. Which ones are is found out from a sample, and matters for speed alone.

    Its own tables: `s` holds keys, hash, summed cells and busy cells (`x3`) of each row of the stable version; `c`
    those of the candidate, its busy cells as `y3` beside the stable ones, and its other cells where the hash differs;
    `r` keys that occur twice; `m` keys that the candidate lacks; `d` the cells of both sides where the hash differs,
    as lists; `u` all rows that differ.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        stable: TableSource,
        candidate: TableSource,
        keys: Sequence[SharedColumn],
        compared: Sequence[SharedColumn],
        summed: Sequence[SharedColumn],
    ) -> None:
        self._connection = connection
        self._stable = stable
        self._candidate = candidate
        self._keys = tuple(keys)
        self._compared = tuple(compared)
        self._summed = tuple(summed)
        self._json = stable.typed_json
        self._busy: tuple[int, ...] = ()
        self._names = ", ".join(f"k{number}" for number in range(len(self._keys)))
        self._keyed = " AND ".join(f"k{number} IS NOT NULL" for number in range(len(self._keys)))

    def pair(self) -> RowCounts:
        """Read both tables and pair their rows; `changed` counts every row that differs in text."""
        self._read_stable()
        if not self._keys:
            self._read_candidate_alone()
            return self._count_whole_rows()
        self._run(f"CREATE TEMP TABLE r AS {self._repeated_in('s')}")
        self._busy = self._find_busy()
        if self._busy:
            self._run("DROP TABLE s")
            self._read_stable()
        self._read_candidate()
        return self._count()

    def _run(self, sql: str) -> list[Row]:
        return self._connection.execute(sql).fetchall()

    def _number(self, sql: str) -> int:
        return int(self._run(sql)[0][0])

    # Cells, keys and hashes as SQL ------------------------------------------------------------------------------------

    def _cell(self, alias: str, number: int) -> str:
        """A cell as text; what a JSON object lacks was written as nothing."""
        return f"nullif({alias}.c{number}, '')" if self._json else f"{alias}.c{number}"

    def _key(self, alias: str, number: int) -> str:
        return f"nullif({self._cell(alias, number)}, 'null')" if self._json else self._cell(alias, number)

    def _keys_of(self, alias: str) -> str:
        numbers = ((each.stable if alias == "a" else each.candidate) for each in self._keys)
        return ", ".join(f"{self._key(alias, number)} AS k{at}" for at, number in enumerate(numbers))

    def _sums_of(self, alias: str) -> str:
        numbers = ((each.stable if alias == "a" else each.candidate) for each in self._summed)
        return "".join(f", {self._cell(alias, number)} AS v{at}" for at, number in enumerate(numbers))

    def _numbers_of(self, alias: str, columns: Iterable[SharedColumn]) -> list[int]:
        return [each.stable if alias == "a" else each.candidate for each in columns]

    def _hash(self, alias: str) -> str:
        cells = ", ".join(self._cell(alias, number) for number in self._numbers_of(alias, self._calm))
        return f"hash({cells})" if cells else "0::UBIGINT"

    def _list(self, alias: str, columns: Iterable[SharedColumn]) -> str:
        cells = ", ".join(self._cell(alias, number) for number in self._numbers_of(alias, columns))
        return f"[{cells}]::VARCHAR[]"

    @property
    def _calm(self) -> list[SharedColumn]:
        return [column for at, column in enumerate(self._compared) if at not in self._busy]

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read_stable(self) -> None:
        keys = f"{self._keys_of('a')}, " if self._keys else ""
        busy = "".join(f", {self._cell('a', self._compared[at].stable)} AS x{at}" for at in self._busy)
        self._run(
            f"CREATE TEMP TABLE s AS SELECT {keys}{self._hash('a')} AS h{self._sums_of('a')}{busy} "
            f"FROM {self._stable.sql} a"
        )

    def _repeated_in(self, table: str) -> str:
        return f"SELECT {self._names} FROM {table} WHERE {self._keyed} GROUP BY {self._names} HAVING count(*) > 1"

    def _find_busy(self) -> tuple[int, ...]:
        """Columns that differ in many of the candidate's first rows; none where few of these rows differ at all."""
        cells = self._list("b", self._compared)
        self._run(
            f"CREATE TEMP TABLE t AS SELECT {self._keys_of('b')}, {self._hash('b')} AS h, {cells} AS b "
            f"FROM {self._candidate.sql} b LIMIT {SAMPLE_ROWS}"
        )
        once = self._without_repeated("s")
        # The sample is what the hash table is built of: it stands on the right.
        differing = self._number(f"SELECT count(*) FROM {once} s JOIN t USING ({self._names}) WHERE s.h <> t.h")
        rows = self._number("SELECT count(*) FROM t")
        if differing <= MANY_SHARE * rows:
            return ()
        counts = ", ".join(
            f"count(*) FILTER ({self._cell('a', column.stable)} IS DISTINCT FROM t.b[{at + 1}])"
            for at, column in enumerate(self._compared)
        )
        found = self._run(f"SELECT {counts} FROM {self._stable.sql} a JOIN t ON {self._paired('a', 't')}")[0]
        return tuple(at for at, count in enumerate(found) if count > BUSY_SHARE * rows)

    def _paired(self, alias: str, table: str) -> str:
        numbers = self._numbers_of(alias, self._keys)
        return " AND ".join(f"{self._key(alias, number)} = {table}.k{at}" for at, number in enumerate(numbers))

    def _read_candidate_alone(self) -> None:
        self._run(
            f"CREATE TEMP TABLE c AS SELECT {self._hash('b')} AS h{self._sums_of('b')} FROM {self._candidate.sql} b"
        )

    def _read_candidate(self) -> None:
        busy = "".join(f", s.x{at}, {self._cell('b', self._compared[at].candidate)} AS y{at}" for at in self._busy)
        self._run(
            f"CREATE TEMP TABLE c AS SELECT {self._keys_of('b')}, s.h IS NOT NULL AS found, "
            f"CASE WHEN s.h <> {self._hash('b')} THEN {self._list('b', self._calm)} END AS cells"
            f"{self._sums_of('b')}{busy} "
            f"FROM {self._candidate.sql} b LEFT JOIN {self._without_repeated('s')} s ON {self._paired('b', 's')}"
        )
        once = self._without_repeated("s")
        found = f"{once} ANTI JOIN c USING ({self._names}) WHERE {self._keyed}"
        self._run(f"CREATE TEMP TABLE m AS SELECT {self._names} FROM {found}")
        if self._candidate_repeats():
            self._run(f"INSERT INTO r {self._repeated_in('c')} EXCEPT SELECT {self._names} FROM r")

    def _candidate_repeats(self) -> bool:
        """Whether a key occurs twice in the candidate, known without grouping all of its rows.

        Each key of the stable version is found or missing: as many found rows as found keys means none found twice.
        """
        keys = self._number(f"SELECT count(*) FROM {self._without_repeated('s')} WHERE {self._keyed}")
        found, missing = self._number("SELECT count(*) FROM c WHERE found"), self._number("SELECT count(*) FROM m")
        new = f"(SELECT * FROM c WHERE NOT found AND {self._keyed})"
        groups = self._number(f"SELECT count(*) FROM (SELECT DISTINCT {self._names} FROM {new})")
        return found != keys - missing or groups != self._number(f"SELECT count(*) FROM {new}")

    def _without_repeated(self, table: str) -> str:
        """Rows of a table whose key occurs once; nearly always all of them, and then nothing is joined."""
        if not self._number("SELECT count(*) FROM r"):
            return table
        return f"(SELECT * FROM {table} ANTI JOIN r USING ({self._names}))"

    # Rows -------------------------------------------------------------------------------------------------------------

    def _count(self) -> RowCounts:
        stable, unkeyed_stable = self._run(f"SELECT count(*), count(*) FILTER (NOT ({self._keyed})) FROM s")[0]
        candidate, unkeyed = self._run(f"SELECT count(*), count(*) FILTER (NOT ({self._keyed})) FROM c")[0]
        paired = f"{self._without_repeated('c')} WHERE found AND {self._keyed}"
        both, changed = self._run(f"SELECT count(*), count(*) FILTER ({self._differs}) FROM {paired}")[0]
        repeated = [self._number(f"SELECT count(*) FROM {table} SEMI JOIN r USING ({self._names})") for table in "sc"]
        return RowCounts(
            stable=stable,
            candidate=candidate,
            identical=both - changed,
            changed=changed,
            missing=stable - unkeyed_stable - repeated[0] - both,
            added=candidate - unkeyed - repeated[1] - both,
            repeated_stable=repeated[0],
            repeated_candidate=repeated[1],
            without_key_stable=unkeyed_stable,
            without_key_candidate=unkeyed,
        )

    @property
    def _differs(self) -> str:
        """Whether a row of `c` differs from its stable one in text."""
        return " OR ".join(("cells IS NOT NULL", *(f"x{at} IS DISTINCT FROM y{at}" for at in self._busy)))

    def _count_whole_rows(self) -> RowCounts:
        """Without keys a row is what it holds: counted are rows that the other side has not, or not as often."""
        stable, candidate = self._number("SELECT count(*) FROM s"), self._number("SELECT count(*) FROM c")
        missing = self._number("SELECT count(*) FROM (SELECT h FROM s EXCEPT ALL SELECT h FROM c)")
        added = candidate - (stable - missing)
        return RowCounts(stable=stable, candidate=candidate, identical=stable - missing, missing=missing, added=added)

    def some_missing(self, count: int = EXAMPLES_MAX) -> list[Row]:
        """Keys of rows that the candidate lacks, the first in order."""
        return self._some(lambda: f"{self._without_repeated('m')}", count)

    def some_added(self, count: int = EXAMPLES_MAX) -> list[Row]:
        """Keys of rows that only the candidate has."""
        return self._some(lambda: f"{self._without_repeated('c')} WHERE NOT found AND {self._keyed}", count)

    def some_repeated(self, count: int = EXAMPLES_MAX) -> list[Row]:
        """Keys that occur twice."""
        return self._some(lambda: "r", count)

    def _some(self, rows: Callable[[], str], count: int) -> list[Row]:
        if not self._keys:
            return []
        return self._run(f"SELECT {self._shown_keys} FROM {rows()} ORDER BY {self._names} LIMIT {count}")

    @property
    def _shown_keys(self) -> str:
        return ", ".join(f"left(k{number}, {CELL_CHARACTERS_MAX})" for number in range(len(self._keys)))

    # Cells that differ ------------------------------------------------------------------------------------------------

    def fetch_differing(self) -> None:
        """Fetch the stable cells of rows whose hash differs, and make `u` of all rows that differ."""
        cells = self._list("a", self._calm)
        differing = f"(SELECT * FROM {self._without_repeated('c')} WHERE found AND cells IS NOT NULL)"
        kept = ", ".join(f"b.k{at}" for at in range(len(self._keys)))
        self._run(
            f"CREATE TEMP TABLE d AS SELECT {kept}, {cells} AS a, b.cells AS b "
            f"FROM {self._stable.sql} a JOIN {differing} b ON {self._paired('a', 'b')}"
            if self._number(f"SELECT count(*) FROM {differing}")
            else f"CREATE TEMP TABLE d AS SELECT {self._names}, cells AS a, cells AS b FROM c WHERE false"
        )
        if not self._busy:
            self._run("CREATE TEMP VIEW u AS SELECT * FROM d")
            return
        carried = "".join(f", c.x{at}, c.y{at}" for at in self._busy)
        self._run(
            f"CREATE TEMP VIEW u AS SELECT {self._names}, d.a, d.b{carried} FROM {self._without_repeated('c')} c "
            f"LEFT JOIN d USING ({self._names}) WHERE c.found AND {self._keyed} AND ({self._differs})"
        )

    def _sides(self, at: int) -> tuple[str, str]:
        """The two cells of a compared column in a row of `u`."""
        if at in self._busy:
            return f"x{at}", f"y{at}"
        place = at + 1 - sum(busy < at for busy in self._busy)
        return f"a[{place}]", f"b[{place}]"

    def _beyond(self, at: int) -> str:
        """Whether a cell differs, and its rule does not excuse it."""
        one, other = self._sides(at)
        rule = self._compared[at].way.rule
        excuses = []
        if self._json:
            excuses.append(exact_number_sql(one, other))
            excuse = excuse_sql(rule, json_text_sql(one), json_text_sql(other))
        else:
            excuse = excuse_sql(rule, one, other)
        if excuse is not None:
            excuses.append(excuse)
        different = f"{one} IS DISTINCT FROM {other}"
        return f"({different} AND NOT coalesce({' OR '.join(excuses)}, false))" if excuses else f"({different})"

    def _some_beyond(self, columns: Iterable[int]) -> str:
        return " OR ".join(self._beyond(at) for at in columns) or "false"

    def changed_beyond(self, key_fields: Sequence[int]) -> tuple[int, int]:
        """How many rows differ beyond their rules at all, and how many in one of these compared columns."""
        every = self._some_beyond(range(len(self._compared)))
        row = self._run(f"SELECT count(*) FILTER ({every}), count(*) FILTER ({self._some_beyond(key_fields)}) FROM u")[
            0
        ]
        return int(row[0]), int(row[1])

    def count_cells(self) -> list[CellCounts]:
        """For each compared column, in order."""
        found: list[CellCounts] = []
        for start in range(0, len(self._compared), COLUMNS_AT_ONCE):
            places = range(start, min(start + COLUMNS_AT_ONCE, len(self._compared)))
            row = self._run(f"SELECT {', '.join(self._counts_of(at) for at in places)} FROM u")[0]
            found += [CellCounts(*row[at : at + 4]) for at in range(0, len(row), 4)]
        return found

    def _counts_of(self, at: int) -> str:
        one, other = self._sides(at)
        kind, other_kind = json_kind_sql(one), json_kind_sql(other)
        beyond = self._beyond(at)
        both = f"{one} IS NOT NULL AND {other} IS NOT NULL"
        retyped = f"{beyond} AND {both} AND {kind} <> 0 AND {kind} <> {other_kind}" if self._json else "false"
        conditions = (
            f"{one} IS DISTINCT FROM {other}",
            beyond,
            retyped,
            f"{beyond} AND {one} IS NOT NULL AND {other} IS NULL",
        )
        return ", ".join(f"count(*) FILTER ({condition})" for condition in conditions)

    def some_cells(self, at: int) -> list[Row]:
        """The first differing cells of a compared column, by key: the keys, the stable text, the candidate's."""
        one, other = self._sides(at)
        shown = f"{self._shown_keys}, left({one}, {CELL_CHARACTERS_MAX}), left({other}, {CELL_CHARACTERS_MAX})"
        return self._run(f"SELECT {shown} FROM u WHERE {self._beyond(at)} ORDER BY {self._names} LIMIT {EXAMPLES_MAX}")

    def some_rows(self, count: int) -> list[DifferingRow]:
        """The first rows that differ beyond their rules."""
        width = range(len(self._compared))
        one, other = (
            ", ".join(f"left({self._sides(at)[side]}, {CELL_CHARACTERS_MAX})" for at in width) for side in (0, 1)
        )
        flags = ", ".join(self._beyond(at) for at in width)
        rows = self._run(
            f"SELECT {self._shown_keys}, [{one}], [{other}], [{flags}] FROM "
            f"(SELECT * FROM u WHERE {self._some_beyond(width)} ORDER BY {self._names} LIMIT {count}) "
            f"ORDER BY {self._names}"
        )
        return [DifferingRow(row[:-3], row[-3], row[-2], row[-1]) for row in rows]
