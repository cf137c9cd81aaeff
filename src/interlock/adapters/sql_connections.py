"""Connections to guarded databases: as a plain role, with bounds on everything, and errors that tell no secret."""

from __future__ import annotations

import queue
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg.rows import tuple_row

from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.errors import Denied, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.secret_reference import Secrets

Role = Literal["read", "write", "migrate"]
Connection = psycopg.Connection[tuple[Any, ...]]

IDLE_SECONDS_MAX = 60.0
WAIT_SECONDS = 10.0
_LOCAL = ("", "localhost", "127.0.0.1", "::1")

_PREPARE = """
select set_config('search_path', %(path)s, false),
       set_config('DateStyle', 'ISO, YMD', false), set_config('IntervalStyle', 'postgres', false),
       set_config('TimeZone', 'UTC', false), set_config('bytea_output', 'hex', false),
       set_config('extra_float_digits', '1', false), set_config('xmlbinary', 'base64', false)
"""
# What a role may not be, directly or through a membership. Whoever may become a role is that role.
_TOO_MUCH = """
select 'it is, or may become, the superuser ' || rolname from pg_catalog.pg_roles
    where rolsuper and pg_catalog.pg_has_role(current_user, oid, 'member')
union all
select 'it may bypass row security, replicate, or make roles or databases' from pg_catalog.pg_roles
    where rolname = current_user and (rolbypassrls or rolreplication or rolcreaterole or rolcreatedb)
union all
select 'it is a member of ' || rolname from pg_catalog.pg_roles
    where rolname in ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program',
                      'pg_signal_backend', 'pg_checkpoint', 'pg_create_subscription', 'pg_maintain', 'pg_monitor',
                      'pg_read_all_settings')
    and pg_catalog.pg_has_role(current_user, oid, 'member')
union all
select 'this is a database in which an Interlock keeps its own records' from pg_catalog.pg_class
    where relname in ('evidence', 'unsealed', 'checkpoint', 'leaf') and relkind = 'r'
    group by relnamespace having count(*) = 4
"""
_OWNS = """
union all
select 'it owns, or may become the owner of, this database' from pg_catalog.pg_database
    where datname = current_database() and pg_catalog.pg_has_role(current_user, datdba, 'member')
union all
(select 'it owns, or may become the owner of, the relation ' || relname from pg_catalog.pg_class
    where relkind in ('r', 'p', 'v', 'm', 'f') and pg_catalog.pg_has_role(current_user, relowner, 'member') limit 1)
union all
(select 'it owns, or may become the owner of, the schema ' || nspname from pg_catalog.pg_namespace
    where pg_catalog.pg_has_role(current_user, nspowner, 'member') limit 1)
"""


@dataclass
class _Pool:
    """The connections of one role to one database."""

    places: threading.BoundedSemaphore
    idle: queue.LifoQueue[tuple[Connection, float]] = field(default_factory=queue.LifoQueue)


class Connections:
    """Gives out connections; each was checked to be of a plain role when it was made.

    Args:
        declared: The databases of interlock.yaml, as they are in force now.
        secrets: Resolves credentials when a connection is made.
    """

    def __init__(self, declared: Callable[[], dict[str, DatabaseDeclaration]], secrets: Secrets) -> None:
        self._declared = declared
        self._secrets = secrets
        self._pools: dict[tuple[str, Role, DatabaseDeclaration], _Pool] = {}
        self._lock = threading.Lock()

    def declaration(self, database: str) -> DatabaseDeclaration:
        """Raises NotFound, naming those that are declared."""
        declared = self._declared()
        try:
            return declared[database]
        except KeyError:
            names = ", ".join(sorted(declared)) or "none"
            msg = f"no database {database!r} is declared (declared: {names})"
            raise NotFound(msg, code="sql.unknown_database", fix="see `databases` in interlock.yaml") from None

    @contextmanager
    def connection(self, database: str, role: Role) -> Iterator[Connection]:
        """A connection outside a transaction; it goes back when it is whole, and is closed otherwise.

        Raises: NotFound, Denied, Transient, Permanent; and what PostgreSQL says inside, translated.
        """
        declaration = self.declaration(database)
        pool = self._pool(database, role, declaration)
        if not pool.places.acquire(timeout=WAIT_SECONDS):
            msg = f"all {declaration.connections_max} connections to {database} are busy"
            raise Transient(msg, code="sql.busy", fix="ask again", effect_sent=False)
        try:
            connection = self._idle(pool) or self._connect(database, role, declaration)
            try:
                yield connection
            except psycopg.Error as error:
                raise translated(error, database) from None
            finally:
                self._take_back(pool, connection)
        finally:
            pool.places.release()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            pools = tuple(self._pools.values())
            self._pools.clear()
        for pool in pools:
            while not pool.idle.empty():
                pool.idle.get_nowait()[0].close()

    def _pool(self, database: str, role: Role, declaration: DatabaseDeclaration) -> _Pool:
        key = (database, role, declaration)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = _Pool(threading.BoundedSemaphore(declaration.connections_max))
            return self._pools[key]

    def _idle(self, pool: _Pool) -> Connection | None:
        while True:
            try:
                connection, since = pool.idle.get_nowait()
            except queue.Empty:
                return None
            # One that the server has closed meanwhile has something to read: its goodbye.
            if time.monotonic() - since < IDLE_SECONDS_MAX and _is_quiet(connection):
                return connection
            connection.close()

    def _take_back(self, pool: _Pool, connection: Connection) -> None:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            try:
                connection.rollback()
            except psycopg.Error:
                connection.close()
        if connection.closed:
            return
        pool.idle.put((connection, time.monotonic()))

    def _connect(self, database: str, role: Role, declaration: DatabaseDeclaration) -> Connection:
        user = getattr(declaration, f"{role}_user")
        if user is None:
            msg = f"the database {database} is not declared for this: it has no {role}_user"
            raise NotFound(msg, code="sql.no_role", fix=f"declare {role}_user under databases.{database}")
        reference = getattr(declaration, f"{role}_credential")
        password = self._secrets.read(reference) if reference is not None else None
        try:
            connection = psycopg.connect(
                **_place(declaration),
                user=user,
                password=password,
                passfile="/dev/null/none",  # no other password than the one that is declared
                gssencmode="disable",
                connect_timeout=declaration.connect_timeout_seconds,
                application_name="interlock",
                client_encoding="utf8",
                options=_options(declaration, role),
                autocommit=True,
                prepare_threshold=1_000_000,  # only what is asked to be
                row_factory=tuple_row,
                cursor_factory=psycopg.RawCursor,
            )
        except psycopg.Error as error:
            raise _refused_login(error, database, role) from None
        try:
            _settle(connection, database, declaration, role)
        except psycopg.Error as error:
            connection.close()
            raise translated(error, database) from None
        except InterlockError:
            connection.close()
            raise
        return connection


def _place(declaration: DatabaseDeclaration) -> dict[str, Any]:
    """Where the server is, from the URL."""
    parts = urlsplit(declaration.url)
    found: dict[str, Any] = {"host": parts.hostname or "", "dbname": unquote(parts.path.strip("/"))}
    if parts.port is not None:
        found["port"] = parts.port
    found.update(parse_qsl(parts.query))
    is_local = found["host"] in _LOCAL or str(found["host"]).startswith("/")
    if "sslmode" not in found and not is_local:
        found["sslmode"] = "require"
    return found


def _options(declaration: DatabaseDeclaration, role: Role) -> str:
    timeout = int(declaration.statement_timeout_seconds * 1000)
    values = {
        "statement_timeout": timeout if role != "migrate" else timeout * 60,
        "lock_timeout": int(declaration.lock_timeout_seconds * 1000),
        "idle_in_transaction_session_timeout": timeout + 60_000,
        "client_connection_check_interval": 1000,
        "default_transaction_read_only": "on" if role == "read" else "off",
        # What is prepared are our own questions to the catalogue, whose plan costs more than what it could gain.
        "plan_cache_mode": "force_generic_plan" if role == "read" else "auto",
        # Rows come through a cursor, and all are wanted: planned as if they were not, a query may take far longer.
        "cursor_tuple_fraction": "1",
        "row_security": "on",
        "standard_conforming_strings": "on",
    }
    return " ".join(f"-c {name}={value}" for name, value in values.items())


def _settle(connection: Connection, database: str, declaration: DatabaseDeclaration, role: Role) -> None:
    """Make the session one whose answers are the same everywhere, and refuse a role that may do too much.

    Raises: Denied.
    """
    schemas = ", ".join(f'"{schema}"' for schema in declaration.schemas)
    # What is in pg_catalog comes first and what is temporary last, so that no other name stands in for it.
    path = f"{schemas}, pg_catalog, pg_temp" if role == "migrate" else f"pg_catalog, {schemas}, pg_temp"
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_PREPARE, {"path": path})
        cursor.execute(_TOO_MUCH if role == "migrate" else _TOO_MUCH + _OWNS)
        found = cursor.fetchall()
    if found:
        msg = f"the {role}_user of {database} may do too much: {found[0][0]}"
        raise Denied(msg, code="sql.role", fix="give it a role of its own with the rights it needs: see the how-to")


def _is_quiet(connection: Connection) -> bool:
    """Nothing is to be read from a connection that is idle, but the server's goodbye."""
    if connection.closed:
        return False
    readable, _, _ = select.select([connection.fileno()], [], [], 0)
    return not readable


def _refused_login(error: psycopg.Error, database: str, role: Role) -> InterlockError:
    """What the driver says holds the connection string's parts, so none of it is passed on."""
    text = str(error).lower()
    if "authentication" in text or "role" in text or "no pg_hba" in text or "password" in text:
        msg = f"{database} does not let its {role}_user in"
        return Denied(msg, code="sql.login", fix=f"check {role}_user and {role}_credential of databases.{database}")
    msg = f"{database} cannot be reached"
    fix = f"look whether the server of databases.{database} runs, and at its url"
    return Transient(msg, code="sql.unreachable", fix=fix, effect_sent=False)


def translated(error: psycopg.Error, database: str) -> InterlockError:
    """The error for people: what is wrong with the statement, never a value of a row nor a way to connect."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            msg = f"the connection to {database} was lost"
            return Transient(msg, code="sql.connection_lost", fix="ask again")
        msg = f"what was exchanged with {database} makes no sense ({type(error).__name__})"
        return Permanent(msg, code="sql.driver")
    if state == "57014":
        msg = f"{database}: the statement took longer than is allowed, and was ended"
        return Invalid(msg, code="sql.timeout", fix="ask for less, or raise statement_timeout_seconds")
    if state == "55P03":
        msg = f"{database}: somebody else holds a lock on what is needed"
        return Transient(msg, code="sql.locked", fix="ask again", effect_sent=False)
    if state[:2] in ("40", "53", "57", "58", "08", "25"):
        msg = f"{database}: {_named(error)}"
        return Transient(msg, code="sql.unavailable", fix="ask again", effect_sent=False)
    if state == "42501":
        msg = f"{database}: {error.diag.message_primary}"
        return Denied(msg, code="sql.permission", fix="the database's owner grants what the role should have")
    if state.startswith(("42", "0A")):
        msg = f"{database}: {error.diag.message_primary}"
        return Invalid(msg, code="sql.rejected", fix="correct the statement")
    return Invalid(f"{database}: {_named(error)}", code="sql.rejected", fix="correct the statement or its parameters")


def _named(error: psycopg.Error) -> str:
    """The kind of an error whose own words may hold what stands in a row."""
    where = [name for name in (error.diag.constraint_name, error.diag.column_name) if name]
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{kind} ({error.sqlstate})" + (f" at {', '.join(where)}" if where else "")
