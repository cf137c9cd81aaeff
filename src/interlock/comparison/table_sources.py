"""Tables in files as DuckDB may read them: columns by position, every cell as text, nothing guessed from the data."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from interlock.comparison.table_model import TableKind
from interlock.comparison.table_rules import literal
from interlock.core.errors import Invalid

HEADER_BYTES_MAX = 1024 * 1024
COLUMNS_MAX = 2000
LINE_BYTES_MAX = 2 * 1024 * 1024
ELEMENT_CHARACTERS_MAX = 16 * 1024 * 1024
READ_CHARACTERS = 1024 * 1024
DELIMITERS = (",", ";", "\t", "|")
KINDS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class TableSource:
    """A table that can be read.

    Attributes:
        names: The columns, in order, as their file calls them; column `n` (from 0) is `cN` in `sql`.
        types: What the file says a column is; empty for text files, which say nothing.
        sql: What stands behind FROM. It holds no name or value of the file's own, but its path.
        typed_json: Cells are JSON texts, so that "1" and 1 are told apart.
        delimiter: Of a CSV file.
    """

    kind: TableKind
    names: tuple[str, ...]
    types: tuple[str, ...]
    sql: str
    typed_json: bool = False
    delimiter: str | None = None


def unreadable(path: Path, why: str) -> Invalid:
    """The error for a file that is no such table."""
    msg = f"{path.name} cannot be read as a table: {why}"
    return Invalid(
        msg, code="comparison.unreadable", fix="look at the file; a text that is no table is compared by line"
    )


def open_table(
    path: Path, kind: TableKind, folder: Path, name: str, connection: duckdb.DuckDBPyConnection
) -> TableSource:
    """Make a table's file readable under a name of our own in `folder`, so that no odd file name reaches DuckDB.

    JSON is rewritten there cell by cell, because DuckDB would make doubles of its numbers.

    Raises: Invalid when it is no plain file, or no such table.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise unreadable(path, "it is no plain file")
    place = folder / f"{name}.{kind}"
    if kind == "csv":
        _link(path, place)
        return _csv(path, place)
    if kind == "parquet":
        _link(path, place)
        return _parquet(path, place, connection)
    names, written = _flatten(path, kind, place)
    return TableSource(kind, names, (), _csv_sql(written, len(names), ",", nulls=True), typed_json=True)


def _link(path: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(path.resolve())


def csv_columns(path: Path) -> tuple[tuple[str, ...], str]:
    """The names in a CSV file's first record, and its delimiter: the candidate that this record holds most often.

    Raises: Invalid.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES_MAX)
    try:
        text = head[: _record_end(head)].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unreadable(path, "its first line is not UTF-8") from None
    bare = "".join(text.split('"')[::2])
    delimiter = max(DELIMITERS, key=lambda each: (bare.count(each), -DELIMITERS.index(each)))
    try:
        names = tuple(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), ()))
    except csv.Error as error:
        raise unreadable(path, f"its first line: {error}") from None
    return _sound(path, names), delimiter


def _record_end(head: bytes) -> int:
    """Where the first record ends: at the first line end that is not between quotes."""
    quoted = False
    for position, byte in enumerate(head):
        if byte == ord('"'):
            quoted = not quoted
        elif byte in b"\r\n" and not quoted:
            return position
    return len(head)


def _sound(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(names) > COLUMNS_MAX:
        raise unreadable(path, f"it has {len(names)} columns")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise unreadable(path, f"two columns are called {twice[0]!r}")
    return names


def _csv(path: Path, place: Path) -> TableSource:
    names, delimiter = csv_columns(path)
    return TableSource("csv", names, (), _csv_sql(place, len(names), delimiter, nulls=False), delimiter=delimiter)


def _csv_sql(place: Path, columns: int, delimiter: str, *, nulls: bool) -> str:
    """Nothing is detected: any line that does not have exactly these columns is an error, not another dialect."""
    names = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(columns))
    kept = "" if nulls else f", force_not_null=[{', '.join(f'c{number}' for number in range(columns))}]"
    quoted = ", allow_quoted_nulls=false" if nulls else ""
    return (
        f"read_csv({literal(str(place))}, auto_detect=false, delim={literal(delimiter)}, quote='\"', escape='\"', "
        f"header=true, strict_mode=true, max_line_size={LINE_BYTES_MAX}, columns={{{names}}}{kept}{quoted})"
    )


def _parquet(path: Path, place: Path, connection: duckdb.DuckDBPyConnection) -> TableSource:
    try:
        found = connection.execute(f"DESCRIBE FROM read_parquet({literal(str(place))})").fetchall()
    except duckdb.Error as error:
        raise unreadable(path, str(error).splitlines()[0][:200]) from None
    names = _sound(path, tuple(str(row[0]) for row in found))
    cells = ", ".join(
        f'CAST("{name.replace(chr(34), chr(34) * 2)}" AS VARCHAR) AS c{i}' for i, name in enumerate(names)
    )
    sql = f"(SELECT {cells} FROM read_parquet({literal(str(place))}))"
    return TableSource("parquet", names, tuple(str(row[1]) for row in found), sql)


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def _flatten(path: Path, kind: TableKind, place: Path) -> tuple[tuple[str, ...], Path]:
    """Write the objects of a JSON file as rows of JSON texts; a field that an object lacks becomes an empty cell.

    Two passes, one object in memory at a time: the first finds the columns.
    """
    rows = _lines if kind == "ndjson" else _elements
    names: dict[str, None] = {}
    for row in rows(path):
        names.update(dict.fromkeys(row))
        if len(names) > COLUMNS_MAX:
            raise unreadable(path, f"its objects have more than {COLUMNS_MAX} fields")
    if not names:
        raise unreadable(path, "it holds no object with a field")
    written = place.with_suffix(".csv")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"c{number}" for number in range(len(names))])
        for row in rows(path):
            writer.writerow([_text(row[name]) if name in row else None for name in names])
    return tuple(names), written


def _text(value: Any) -> str:
    """A JSON value as text: keys in order, numbers as they were written."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse, object_pairs_hook=_once)


def _refuse(word: str) -> Any:
    msg = f"{word} is no JSON"
    raise ValueError(msg)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        msg = "an object has a field twice"
        raise ValueError(msg)
    return made


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one on each line."""
    decoder = _decoder()
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        number = 0
        try:
            while line := file.readline(ELEMENT_CHARACTERS_MAX + 1):
                number += 1
                if len(line) > ELEMENT_CHARACTERS_MAX:
                    raise unreadable(path, f"line {number} is longer than {ELEMENT_CHARACTERS_MAX} characters")
                if line.strip():
                    yield _object(path, decoder.decode(line), f"line {number}")
        except (ValueError, RecursionError) as error:
            raise unreadable(path, f"line {number + 1}: {error}"[:300]) from None


def _elements(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds one array of them, one at a time."""
    decoder = _decoder()
    with path.open(encoding="utf-8-sig") as file:
        window = _Window(file)
        try:
            if window.take() != "[":
                raise unreadable(path, "it holds no array of objects")
            number = 0
            while window.peek() != "]" or number == 0:
                if window.peek() == "]":
                    break
                number += 1
                yield _object(path, window.value(decoder), f"element {number}")
                if window.peek() == ",":
                    window.take()
                elif window.peek() != "]":
                    raise unreadable(path, f"after element {number} comes neither a comma nor the end")
            window.take()
            if window.peek():
                raise unreadable(path, "something follows its array")
        except (ValueError, RecursionError) as error:
            raise unreadable(path, f"{error}"[:300]) from None


class _Window:
    """The part of a JSON text that is being read."""

    def __init__(self, file: io.TextIOBase | Any) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self) -> str:
        """The same, read."""
        found = self.peek()
        self._at += len(found)
        return found

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The next value; more is read until it is whole. Raises ValueError."""
        self.peek()
        while True:
            try:
                made, end = decoder.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > ELEMENT_CHARACTERS_MAX or not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():
                continue  # a number at the very edge may go on
            self._at = end
            return made

    def _more(self) -> bool:
        """Twice as much again, so that a large value is not parsed again and again."""
        piece = "" if self._ended else self._file.read(max(READ_CHARACTERS, len(self._text) - self._at))
        self._ended = not piece
        self._text = self._text[self._at :] + piece
        self._at = 0
        return bool(piece)


def _object(path: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise unreadable(path, f"{where} is no object")
    return value


def column_names(path: Path, kind: TableKind, folder: Path) -> tuple[str, ...]:
    """Only the names of the columns; `folder` is one of our own. Raises: Invalid."""
    if kind == "csv":
        return csv_columns(path)[0]
    if kind == "parquet":
        place = folder / "names.parquet"
        _link(path, place)
        with duckdb.connect(config={"autoload_known_extensions": "false"}) as connection:
            return _parquet(path, place, connection).names
    names: dict[str, None] = {}
    for row in (_lines if kind == "ndjson" else _elements)(path):
        names.update(dict.fromkeys(row))
    return tuple(names)
