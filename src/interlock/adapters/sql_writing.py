"""Runs one INSERT, UPDATE or DELETE and sees which rows it touched, before and after; and puts such rows back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psycopg import sql

from interlock.adapters.sql_connections import Connection
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import (
    Image,
    Scalar,
    TableFacts,
    TransactionIdentity,
    WriteOutcome,
    WriteRequest,
)
from interlock.core.errors import Invalid, Permanent, Stale

Row = tuple[str | None, ...]

_IDENTITY = "select pg_catalog.pg_current_xact_id()::text"
_SYSTEM = """select s.system_identifier::text || '/' || c.timeline_id::text
    from pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c"""


class _Touched(NamedTuple):
    """Rows that a statement returned; `rows` are kept up to the limit, `total` counts them all."""

    total: int
    rows: list[Row] | None


def bound(parameters: Sequence[Scalar]) -> list[str | None]:
    """Parameters as text whose type PostgreSQL infers from where they stand."""
    return [
        None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in parameters
    ]


def run_statement(connection: Connection, request: WriteRequest, declaration: DatabaseDeclaration) -> WriteOutcome:
    """Run the statement in the open transaction.

    An UPDATE is run twice: the first time, taken back at once, tells which keys it touches, so that the rows can be
    read as they are before the second. In one snapshot, without volatile functions, both touch the same rows.

    Raises: Invalid when it touches more rows than are allowed.
    """
    shape, table = request.shape, request.table
    if not request.keep_images:
        return WriteOutcome(rows=_run(connection, request, declaration, ()).total, before=None, after=None)
    columns = tuple(column.name for column in table.columns)
    none = Image(columns=columns, rows=())
    if shape.kind == "delete":
        touched = _run(connection, request, declaration, columns)
        before = _image(columns, touched.rows)
        return WriteOutcome(rows=touched.total, before=before, after=none if before is not None else None)
    if shape.kind == "insert" and shape.on_conflict != "update":
        touched = _run(connection, request, declaration, columns)
        after = _image(columns, touched.rows)
        return WriteOutcome(rows=touched.total, before=none if after is not None else None, after=after)
    connection.execute(b"savepoint interlock")
    keys = _run(connection, request, declaration, table.key)
    connection.execute(b"rollback to savepoint interlock")
    found = None if keys.rows is None else rows_by_key(connection, table, keys.rows)
    touched = _run(connection, request, declaration, columns)
    if touched.total != keys.total:
        msg = "the statement touched other rows the second time than the first"
        raise Permanent(msg, code="sql.unsteady", fix="write it so that it depends on the tables alone")
    before, after = _image(columns, found), _image(columns, touched.rows)
    kept = before is not None and after is not None
    return WriteOutcome(rows=touched.total, before=before if kept else None, after=after if kept else None)


def unstable_columns(first: WriteOutcome, second: WriteOutcome) -> tuple[str, ...]:
    """Columns in which two runs of one statement differ: they take their values from a sequence or the time."""
    if first.after is None or second.after is None or len(first.after.rows) != len(second.after.rows):
        return ()
    return tuple(
        column
        for index, column in enumerate(first.after.columns)
        if any(one[index] != two[index] for one, two in zip(first.after.rows, second.after.rows, strict=True))
    )


def identity_of(connection: Connection) -> TransactionIdentity:
    """The open transaction, so that its fate can be asked for later."""
    return TransactionIdentity(xid=_one(connection, _IDENTITY), system=_one(connection, _SYSTEM))


def system_of(connection: Connection) -> str:
    """The cluster and its timeline: another one knows nothing of this one's transactions."""
    return _one(connection, _SYSTEM)


def rows_by_key(connection: Connection, table: TableFacts, keys: Iterable[Row]) -> list[Row]:
    """The rows of these keys that there are, locked against change until the transaction ends."""
    wanted = sorted(set(keys), key=str)
    types = {column.name: column.type for column in table.columns}
    names = [sql.Identifier(f"k{index}") for index in range(len(table.key))]
    query = sql.SQL(
        "select {shown} from {table} as t join unnest({arrays}) as k({names}) on {same} for update of t"
    ).format(
        shown=_shown(sql.Identifier("t"), (column.name for column in table.columns)),
        table=_table(table),
        arrays=sql.SQL(", ").join(
            sql.SQL("${}::text[]::{}[]").format(sql.SQL(str(index + 1)), sql.SQL(types[name]))
            for index, name in enumerate(table.key)
        ),
        names=sql.SQL(", ").join(names),
        same=sql.SQL(" and ").join(
            sql.SQL("t.{} = k.{}").format(sql.Identifier(column), name)
            for column, name in zip(table.key, names, strict=True)
        ),
    )
    arrays = [[key[index] for key in wanted] for index in range(len(table.key))]
    return _sorted(connection.execute(query, arrays).fetchall())


def put_rows_back(connection: Connection, table: TableFacts, before: Image, after: Image) -> int:
    """Make the rows of `after` as they are in `before`; returns how many rows changed.

    Raises:
        Stale: one of them is not as in `after` any more; nothing may be overwritten that somebody else wrote.
        Permanent: something (a trigger, a rule of the table) makes of them something else than they were.
    """
    was, now = _by_key(table, before), _by_key(table, after)
    found = rows_by_key(connection, table, {*was, *now})
    if _sorted(found) != _sorted(now.values()):
        msg = f"rows of {table.relation.qualified} changed since; nothing was put back"
        raise Stale(msg, code="sql.rows_changed", fix="look at the rows, and write what they should be")
    gone = [key for key in now if key not in was]
    new = [was[key] for key in was if key not in now]
    changed = [key for key in was if key in now and was[key] != now[key]]
    with connection.cursor() as cursor:
        if gone:
            cursor.executemany(_delete(table), gone)
        if new:
            cursor.executemany(_insert(table), [[row[index] for index in _plain(table)] for row in new])
        for columns, rows in _updates(table, before.columns, was, now, changed).items():
            cursor.executemany(_update(table, columns), rows)
    if rows_by_key(connection, table, {*was, *now}) != _sorted(was.values()):
        msg = f"the rows of {table.relation.qualified} did not become what they were; all of it was taken back"
        raise Permanent(msg, code="sql.not_restored", fix="look whether a trigger changes what is written")
    return len(gone) + len(new) + len(changed)


def _run(
    connection: Connection, request: WriteRequest, declaration: DatabaseDeclaration, columns: tuple[str, ...]
) -> _Touched:
    shape = request.shape
    text = shape.text
    if columns:
        name = sql.Identifier(shape.alias or request.table.relation.name)
        text += "\nreturning " + _shown(name, columns).as_string(connection)
    kept: list[Row] | None = []
    count = size = 0
    with connection.cursor() as cursor:
        if not columns:
            # One statement by the protocol, whatever the text holds.
            cursor.execute(text.encode(), bound(request.parameters), prepare=True)
            count = max(0, cursor.rowcount)
            _require_allowed(count, declaration)
            return _Touched(count, None)
        for row in cursor.stream(text.encode(), bound(request.parameters)):
            count += 1
            _require_allowed(count, declaration)
            size += sum(len(cell) for cell in row if cell is not None)
            if count > declaration.pre_image_rows_max or size > declaration.pre_image_bytes_max:
                kept = None
            if kept is not None:
                kept.append(tuple(row))
    return _Touched(count, kept)


def _require_allowed(count: int, declaration: DatabaseDeclaration) -> None:
    if count > declaration.write_rows_max:
        msg = f"the statement touches more than {declaration.write_rows_max:,} rows"
        raise Invalid(msg, code="sql.too_many_rows", fix="write fewer at a time, or raise write_rows_max")


def _image(columns: tuple[str, ...], rows: list[Row] | None) -> Image | None:
    return None if rows is None else Image(columns=columns, rows=tuple(rows))


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted((tuple(row) for row in rows), key=lambda row: [(cell is None, cell or "") for cell in row])


def _by_key(table: TableFacts, image: Image) -> dict[Row, Row]:
    places = [image.columns.index(name) for name in table.key]
    return {tuple(row[place] for place in places): row for row in image.rows}


def _updates(
    table: TableFacts, columns: tuple[str, ...], was: dict[Row, Row], now: dict[Row, Row], keys: list[Row]
) -> dict[tuple[str, ...], list[list[str | None]]]:
    """Which columns to set, and for each set of them the values and the key of every row."""
    found: dict[tuple[str, ...], list[list[str | None]]] = {}
    for key in keys:
        differing = [
            index for index in _plain(table) if was[key][index] != now[key][index] and columns[index] not in table.key
        ]
        names = tuple(columns[index] for index in differing)
        if names:
            found.setdefault(names, []).append([*(was[key][index] for index in differing), *key])
    return found


def _plain(table: TableFacts) -> list[int]:
    """The places of columns that hold a value of their own; PostgreSQL computes the others."""
    return [index for index, column in enumerate(table.columns) if column.name not in table.generated]


def _delete(table: TableFacts) -> sql.Composed:
    return sql.SQL("delete from {} as t where {}").format(_table(table), _key_is(table, 0))


def _insert(table: TableFacts) -> sql.Composed:
    names = [table.columns[index].name for index in _plain(table)]
    return sql.SQL("insert into {} ({}) overriding system value values ({})").format(
        _table(table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(sql.SQL(f"${index + 1}") for index in range(len(names))),
    )


def _update(table: TableFacts, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("update {} as t set {} where {}").format(
        _table(table),
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.SQL(f"${index + 1}"))
            for index, name in enumerate(columns)
        ),
        _key_is(table, len(columns)),
    )


def _key_is(table: TableFacts, after: int) -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(name), sql.SQL(f"${after + index + 1}"))
        for index, name in enumerate(table.key)
    )


def _table(table: TableFacts) -> sql.Identifier:
    return sql.Identifier(table.relation.schema_name, table.relation.name)


def _shown(name: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{}.{}::text").format(name, sql.Identifier(column)) for column in columns)


def _one(connection: Connection, query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        msg = "the server gave no answer where there is always one"
        raise Permanent(msg, code="sql.driver")
    return str(row[0])
