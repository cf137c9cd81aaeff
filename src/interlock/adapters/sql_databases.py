"""The guarded databases as the room of `sql.*` sees them: what names mean, reading, and who writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import psycopg

from interlock.adapters.sql_catalog import Catalogue
from interlock.adapters.sql_connections import Connection, Connections, Role
from interlock.adapters.sql_migrations import applied_versions, apply_script
from interlock.adapters.sql_writing import (
    bound,
    identity_of,
    put_rows_back,
    run_statement,
    system_of,
    unstable_columns,
)
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import (
    BeforeCommit,
    CatalogFacts,
    Column,
    Fate,
    Image,
    MigrationScript,
    QueryResult,
    RelationFacts,
    Scalar,
    StatementShape,
    TableFacts,
    TransactionIdentity,
    WriteOutcome,
    WriteRequest,
)
from interlock.core.errors import Stale, Transient
from interlock.core.secret_reference import Secrets

BATCH_BYTES = 16 * 1024 * 1024
BATCH_ROWS_MAX = 1000
_WRITE = "begin transaction isolation level repeatable read, read write"
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
        with self._connections.connection(database, "write" if writing else "read") as connection:
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
        with self._connections.connection(database, "read") as connection:
            if self._catalogue.names(connection, declaration, shape, begin=_READ) != expected:
                msg = f"what the statement names in {database} is not what it was when the plan was made"
                raise Stale(msg, code="sql.changed", fix="ask again to see the new plan")
            hold()
            if shape.kind == "explain":
                found = _explained(connection, shape, parameters)
            else:
                found = _queried(connection, shape, parameters, declaration)
            # Nothing to keep; but after a rollback the driver would forget what it has prepared.
            connection.execute(b"commit")
            return found

    def table(self, database: str, relation: RelationFacts) -> TableFacts:
        """As the Protocol says."""
        with self._transaction(database, "write", _READ) as connection:
            return self._catalogue.table(connection, self.declaration(database), relation)

    def tables(self, database: str) -> tuple[RelationFacts, ...]:
        """As the Protocol says."""
        with self._transaction(database, "migrate", _READ) as connection:
            return self._catalogue.tables(connection, self.declaration(database).schemas)

    def estimate(self, database: str, shape: StatementShape, parameters: Sequence[Scalar]) -> int:
        """As the Protocol says."""
        text = f"explain (format json) {shape.text}"
        with self._transaction(database, "write", _WRITE) as connection, connection.cursor() as cursor:
            (row,) = cursor.stream(text.encode(), bound(parameters))
        plan = row[0][0]["Plan"]
        # A statement that writes has one source of rows, and no rows of its own.
        return int(plan["Plan Rows"] or plan["Plans"][0]["Plan Rows"])

    def rehearse(self, database: str, request: WriteRequest) -> WriteOutcome:
        """As the Protocol says; done twice, in two transactions, to see what is decided only when it happens."""
        declaration = self.declaration(database)
        with self._transaction(database, "write", _WRITE) as connection:
            first = run_statement(connection, request, declaration)
        with self._transaction(database, "write", _WRITE) as connection:
            second = run_statement(connection, request, declaration)
        if first.rows != second.rows:
            msg = f"other statements change the same rows of {request.table.relation.qualified} at this moment"
            raise Transient(msg, code="sql.unsteady", fix="ask again", effect_sent=False)
        return second.model_copy(update={"unstable": unstable_columns(first, second)})

    def write(
        self, database: str, request: WriteRequest, accept: Callable[[WriteOutcome], None], before_commit: BeforeCommit
    ) -> WriteOutcome:
        """As the Protocol says."""
        with self._transaction(database, "write", _WRITE) as connection:
            outcome = run_statement(connection, request, self.declaration(database))
            accept(outcome)
            before_commit(identity_of(connection), outcome)
            connection.execute(b"commit")
        return outcome

    def put_back(
        self,
        database: str,
        table: TableFacts,
        before: Image,
        after: Image,
        before_commit: Callable[[TransactionIdentity], None],
    ) -> int:
        """As the Protocol says."""
        with self._transaction(database, "write", _WRITE) as connection:
            count = put_rows_back(connection, table, before, after)
            before_commit(identity_of(connection))
            connection.execute(b"commit")
        return count

    def fate(self, database: str, identity: TransactionIdentity) -> Fate:
        """As the Protocol says."""
        with self._transaction(database, "write", _READ) as connection:
            if system_of(connection) != identity.system:
                return "unknown"
            try:
                row = connection.execute("select pg_catalog.pg_xact_status($1::xid8)", (identity.xid,)).fetchone()
            except psycopg.errors.InvalidParameterValue:
                return "unknown"  # the server has not come to it: it is another server, or an older copy
        return cast("Fate", row[0]) if row is not None and row[0] is not None else "unknown"

    def applied_migrations(self, database: str) -> dict[str, str]:
        """As the Protocol says."""
        with self._transaction(database, "migrate", _READ) as connection:
            return applied_versions(connection, self.declaration(database))

    def migrate(self, database: str, script: MigrationScript, hold: Callable[[], None]) -> bool:
        """As the Protocol says."""
        with self._connections.connection(database, "migrate") as connection:
            try:
                return apply_script(connection, self.declaration(database), script, hold, database)
            finally:
                connection.close()  # what the file set for its session ends with it

    @contextmanager
    def _transaction(self, database: str, role: Role, begin: str) -> Iterator[Connection]:
        """A transaction that is rolled back at the end, unless whoever asked has committed it."""
        with self._connections.connection(database, role) as connection:
            connection.execute(begin.encode())
            yield connection
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute(b"rollback")


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
    declare = f"declare interlock no scroll cursor for select {shown} from (\n{shape.text}\n) as q{listed}"
    batch = max(1, min(BATCH_ROWS_MAX, declaration.rows_max + 1, BATCH_BYTES // (cell_max * max(1, count))))
    kept: list[tuple[str | None, ...]] = []
    size = cut = 0
    fetch = f"fetch {batch} from interlock".encode()
    with connection.pipeline():
        connection.execute(declare.encode(), values)
        fetched = connection.execute(fetch)
    while True:
        rows = fetched.fetchall()
        for row in rows:
            size += sum(len(value.encode()) for value in row if value is not None)
            if len(kept) == declaration.rows_max or size > declaration.bytes_max:
                return QueryResult(columns=columns, rows=tuple(kept), truncated=True, truncated_cells=cut)
            cut += sum(value is not None and len(value) > cell_max for value in row)
            kept.append(tuple(value if value is None else value[:cell_max] for value in row))
        if len(rows) < batch:
            return QueryResult(columns=columns, rows=tuple(kept), truncated=False, truncated_cells=cut)
        fetched = connection.execute(fetch)


def _explained(connection: Connection, shape: StatementShape, parameters: Sequence[Scalar]) -> QueryResult:
    with connection.cursor() as cursor:
        rows = tuple((str(row[0]),) for row in cursor.stream(shape.text.encode(), bound(parameters)))
    return QueryResult(columns=(Column(name="plan", type="text"),), rows=rows, truncated=False, truncated_cells=0)
