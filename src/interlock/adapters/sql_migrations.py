"""Applies a file of a migration folder to a guarded database, and keeps there which ones were applied."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from interlock.adapters.sql_connections import Connection, translated
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import UNFINISHED, MigrationScript
from interlock.core.errors import InterlockError, Stale, Transient

TABLE = "interlock_migrations"
APPLIED_MAX = 10_000

_LOCK = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('interlock_migrations'))"


def applied_versions(connection: Connection, declaration: DatabaseDeclaration) -> dict[str, str]:
    """Version -> SHA-256 of the file; nothing where none was applied yet."""
    table = _table(declaration)
    known = connection.execute("select pg_catalog.to_regclass($1)", (table.as_string(connection),)).fetchone()
    if known is None or known[0] is None:
        return {}
    rows = connection.execute(
        sql.SQL("select version, sha256 from {} order by version limit {}").format(table, sql.Literal(APPLIED_MAX))
    ).fetchall()
    return dict(rows)


def apply_script(
    connection: Connection,
    declaration: DatabaseDeclaration,
    script: MigrationScript,
    hold: Callable[[], None],
    database: str,
) -> bool:
    """Apply one file, as `core.databases.SqlDatabases.migrate` says. The connection is not to be used again."""
    if not script.transactional:
        return _apply_one_by_one(connection, declaration, script, hold, database)
    connection.execute(b"begin")
    connection.execute(_LOCK)
    if not _is_due(connection, declaration, script):
        return False
    for number, statement in enumerate(script.statements, 1):
        hold()
        _execute(connection, statement, number, script, database)
    _forget(connection, declaration, script)
    if not script.reverts:
        _write_down(connection, declaration, script, script.sha256)
    hold()
    connection.execute(b"commit")
    return True


def _apply_one_by_one(
    connection: Connection,
    declaration: DatabaseDeclaration,
    script: MigrationScript,
    hold: Callable[[], None],
    database: str,
) -> bool:
    if not _is_due(connection, declaration, script):
        return False
    if not script.reverts:
        _write_down(connection, declaration, script, UNFINISHED + script.sha256)
    for number, statement in enumerate(script.statements, 1):
        hold()
        try:
            _execute(connection, statement, number, script, database)
        except InterlockError as error:
            if number == 1:
                if not script.reverts:
                    _forget(connection, declaration, script)
                raise
            msg = f"{error.message}; the {number - 1} statements before it stay applied"
            # Sent for certain: nobody but a person can say how it goes on.
            raise Transient(msg, code="sql.half_migrated", fix="mend it by hand, then: interlock resolve") from error
    _forget(connection, declaration, script)
    if not script.reverts:
        _write_down(connection, declaration, script, script.sha256)
    return True


def _execute(connection: Connection, statement: str, number: int, script: MigrationScript, database: str) -> None:
    try:
        connection.execute(statement.encode(), prepare=False)
    except psycopg.Error as error:
        found = translated(error, database)
        found.message = f"{found.message} (statement {number} of {script.name})"
        raise found from None


def _is_due(connection: Connection, declaration: DatabaseDeclaration, script: MigrationScript) -> bool:
    """Make the table where it is missing. Raises Stale when another file of this version was applied."""
    connection.execute(
        sql.SQL(
            "create table if not exists {} (version text primary key, name text not null, sha256 text not null,"
            " applied_at timestamptz not null default pg_catalog.now())"
        ).format(_table(declaration))
    )
    known = applied_versions(connection, declaration).get(script.version)
    if script.reverts:
        return known is not None
    if known is not None and known != script.sha256:
        msg = f"another file was applied as version {script.version}"
        raise Stale(msg, code="sql.migration_changed", fix="ask again to see the new plan")
    return known is None


def _write_down(connection: Connection, declaration: DatabaseDeclaration, script: MigrationScript, sha256: str) -> None:
    connection.execute(
        sql.SQL("insert into {} (version, name, sha256) values ($1, $2, $3)").format(_table(declaration)),
        (script.version, script.name, sha256),
    )


def _forget(connection: Connection, declaration: DatabaseDeclaration, script: MigrationScript) -> None:
    connection.execute(sql.SQL("delete from {} where version = $1").format(_table(declaration)), (script.version,))


def _table(declaration: DatabaseDeclaration) -> sql.Identifier:
    return sql.Identifier(declaration.schemas[0], TABLE)
