"""The guarded databases as the room of `sql.*` sees them: what names mean, reading, and who writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from interlock.adapters.sql_catalog import Catalogue
from interlock.adapters.sql_connections import Connection, Connections, Role
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import (
    CatalogFacts,
    Column,
    QueryResult,
    RelationFacts,
    Scalar,
    StatementShape,
    TableFacts,
)
from interlock.core.errors import Stale
from interlock.core.secret_reference import Secrets

BATCH_BYTES = 16 * 1024 * 1024
BATCH_ROWS_MAX = 1000
_READ = "begin transaction isolation level repeatable read, read only"


class PostgresDatabases:
    """Implements `core.databases.SqlDatabases`. Its methods block and are called from threads."""

    def __init__(self, declared: Callable[[], dict[str, DatabaseDeclaration]], secrets: Secrets) -> None:
        self._connections = Connections(declared, secrets)
        self._catalogue = Catalogue()

    def close(self) -> None:
        """Close what is idle."""
        self._connections.close()

    def declaration(self, database: str) -> DatabaseDeclaration:
        """As the Protocol says."""
        return self._connections.declaration(database)

    def look_up(self, database: str, shape: StatementShape, *, writing: bool) -> CatalogFacts:
        """As the Protocol says."""
        declaration = self.declaration(database)
        with self._transaction(database, "write" if writing else "read", _READ) as connection:
            return self._catalogue.names(connection, declaration, shape)

    def read(
        self,
        database: str,
        shape: StatementShape,
        parameters: Sequence[Scalar],
        expected: CatalogFacts,
        hold: Callable[[], None],
    ) -> QueryResult:
        """As the Protocol says."""
        declaration = self.declaration(database)
        with self._transaction(database, "read", _READ) as connection:
            if self._catalogue.names(connection, declaration, shape) != expected:
                msg = f"what the statement names in {database} is not what it was when the plan was made"
                raise Stale(msg, code="sql.changed", fix="ask again to see the new plan")
            hold()
            if shape.kind == "explain":
                return _explained(connection, shape, parameters)
            return _queried(connection, shape, parameters, declaration)

    def table(self, database: str, relation: RelationFacts) -> TableFacts:
        """As the Protocol says."""
        with self._transaction(database, "write", _READ) as connection:
            return self._catalogue.table(connection, self.declaration(database), relation)

    def tables(self, database: str) -> tuple[RelationFacts, ...]:
        """As the Protocol says."""
        with self._transaction(database, "migrate", _READ) as connection:
            return self._catalogue.tables(connection, self.declaration(database).schemas)

    @contextmanager
    def _transaction(self, database: str, role: Role, begin: str) -> Iterator[Connection]:
        """A transaction that is rolled back at the end, unless whoever asked has committed it."""
        with self._connections.connection(database, role) as connection:
            connection.execute(begin.encode())
            yield connection
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute(b"rollback")


def bound(parameters: Sequence[Scalar]) -> list[str | None]:
    """Parameters as text whose type PostgreSQL infers from where they stand."""
    return [
        None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in parameters
    ]


def quoted(*names: str) -> str:
    """`"public"."orders"`."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _described(connection: Connection, text: str) -> tuple[Column, ...]:
    pgconn = connection.pgconn
    for result in (pgconn.prepare(b"", text.encode()), pgconn.describe_prepared(b"")):
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
    oids = [result.ftype(index) for index in range(result.nfields)]
    types = connection.adapters.types
    # The registry knows an array under the name of what is in it.
    known = {oid: info.name for oid in set(oids) if (info := types.get(oid)) is not None and info.oid == oid}
    others = sorted(set(oids) - known.keys())
    if others:
        rows = connection.execute(
            "select o, pg_catalog.format_type(o::oid, -1) from unnest($1::int8[]) as t(o)", (others,)
        ).fetchall()
        known.update(dict(rows))
    return tuple(Column(name=name, type=known[oid]) for name, oid in zip(names, oids, strict=True))


def _queried(
    connection: Connection, shape: StatementShape, parameters: Sequence[Scalar], declaration: DatabaseDeclaration
) -> QueryResult:
    """Rows through a cursor, which by itself accepts nothing but a query that does not write.

    Each value is cut on the server, so that no single one is too large for this process.
    """
    columns = _described(connection, shape.text)
    count, cell_max = len(columns), declaration.cell_bytes_max
    values = [*bound(parameters), str(cell_max + 1)]
    names = [f"c{index}" for index in range(count)]
    shown = ", ".join(f"pg_catalog.left({name}::text, ${len(values)})" for name in names)
    listed = f"({', '.join(names)})" if names else ""
    connection.execute(
        f"declare interlock no scroll cursor for select {shown} from (\n{shape.text}\n) as q{listed}".encode(), values
    )
    batch = max(1, min(BATCH_ROWS_MAX, declaration.rows_max + 1, BATCH_BYTES // (cell_max * max(1, count))))
    kept: list[tuple[str | None, ...]] = []
    size = cut = 0
    while True:
        rows = connection.execute(f"fetch {batch} from interlock".encode()).fetchall()
        for row in rows:
            size += sum(len(value.encode()) for value in row if value is not None)
            if len(kept) == declaration.rows_max or size > declaration.bytes_max:
                return QueryResult(columns=columns, rows=tuple(kept), truncated=True, truncated_cells=cut)
            cut += sum(value is not None and len(value) > cell_max for value in row)
            kept.append(tuple(value if value is None else value[:cell_max] for value in row))
        if len(rows) < batch:
            return QueryResult(columns=columns, rows=tuple(kept), truncated=False, truncated_cells=cut)


def _explained(connection: Connection, shape: StatementShape, parameters: Sequence[Scalar]) -> QueryResult:
    with connection.cursor() as cursor:
        rows = tuple((str(row[0]),) for row in cursor.stream(shape.text.encode(), bound(parameters)))
    return QueryResult(columns=(Column(name="plan", type="text"),), rows=rows, truncated=False, truncated_cells=0)
