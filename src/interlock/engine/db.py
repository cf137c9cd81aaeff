"""The bounded pool, the migrations at start, and the listener's own connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import psycopg.sql
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy import create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from interlock.core.errors import Permanent, Transient

POOL_SIZE_MAX = 20
POOL_WAIT_SECONDS = 30.0
MIGRATION_LOCK = 0x1A7E_2C0C
MIGRATION_LOCK_SECONDS = 120
SERVER_VERSION_MIN = 150_000

Connection = psycopg.AsyncConnection[DictRow]


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the tables are: `owner` migrates and owns them, `app` is what the engine works as.

    They are the same where an operator gives only one; the append-only tables are then protected by triggers alone.
    """

    app: str
    owner: str

    @property
    def separated(self) -> bool:
        """Whether two roles guard the evidence."""
        return self.app != self.owner


def connection_words(conninfo: str) -> dict[str, str]:
    """The parts of a URL or of `key=value` words, by libpq's names for them. Raises Permanent when it is neither."""
    try:
        words = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        msg = "the address of the database is neither a postgresql:// URL nor key=value words"
        raise Permanent(msg, code="database.address", fix="mend INTERLOCK_DATABASE_URL") from error
    return {name: str(value) for name, value in words.items() if value is not None}


# What the app role may do. Evidence, leaves and checkpoints are only ever added to; of the other rows it changes only
# what changes in an honest life: neither what was asked and decided, nor who approved it.
GRANTS: tuple[LiteralString, ...] = (
    "revoke update on all tables in schema public from {app}",
    "grant usage on schema public to {app}",
    "grant usage on all sequences in schema public to {app}",
    "grant select on all tables in schema public to {app}",
    (
        "grant insert on run, run_target, evidence, unsealed, leaf, checkpoint, approval, event, change_freeze,"
        " adopted, output to {app}"
    ),
    (
        "grant update (state, state_reason, state_code, owner, fence, lease_until, due_at, closed_at, cancelled_by)"
        " on run to {app}"
    ),
    "grant update (holding) on run_target to {app}",
    "grant update (used_at) on approval to {app}",
    "grant update (lifted_by, lifted_at) on change_freeze to {app}",
    "grant insert on token to {app}",
    "grant update (revoked_by, revoked_at, last_used_at) on token to {app}",
    "grant update on adopted to {app}",
    "grant insert, update, delete on outside_tool to {app}",
    "grant insert, update on sql_effect to {app}",
    "grant insert, update on schedule to {app}",
    "grant insert, update, delete on schedule_instant to {app}",
    "grant insert on policy_set, policy_in_force, policy_replay to {app}",
    "grant delete on policy_replay to {app}",
    "grant insert, update, delete on service_instance to {app}",
    "grant insert, update on releases to {app}",
    "grant insert on release_timeline to {app}",
    "grant insert, delete on release_ticks to {app}",
    "grant insert, update on batch_routing to {app}",
    "grant insert on batch_comparison to {app}",
    "grant insert, delete on batch_invocation to {app}",
    "grant insert, update, delete on judge_session to {app}",
    "grant delete on run_target, unsealed, event, output, adopted to {app}",
)


class Database:
    """A pool of connections that work as the app role."""

    def __init__(self, address: DatabaseAddress, *, pool_size_max: int = POOL_SIZE_MAX) -> None:
        self.address = address
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            address.app,
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={"row_factory": dict_row, "autocommit": True, "application_name": "interlock"},
            min_size=2,
            max_size=pool_size_max,
            max_waiting=1000,
            timeout=POOL_WAIT_SECONDS,
            reconnect_timeout=POOL_WAIT_SECONDS,
            check=None,
            configure=_configure,
            open=False,
        )
        self._look_through: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Raises Transient when the server does not answer."""
        await self._pool.open()
        try:
            await self._pool.wait(POOL_WAIT_SECONDS)
        except PoolTimeout as error:
            await self._pool.close()
            msg = "the database does not answer"
            raise Transient(msg, code="database.unreachable", fix="see the end of the server's log") from error

    async def close(self) -> None:
        """Give every connection back."""
        if self._look_through is not None:
            self._look_through.cancel()
            await asyncio.gather(self._look_through, return_exceptions=True)
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit: each statement is its own transaction.

        Raises Transient when the pool is exhausted or the server went away; a commit whose answer was lost is raised
        as Transient too, and whoever repeats it must be protected by a key or a fence.
        """
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout as error:
            msg = f"no database connection was free within {POOL_WAIT_SECONDS:.0f} s"
            raise Transient(msg, code="database.busy", effect_sent=False) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._discard_broken()
            msg = f"the database went away: {_first_line(error)}"
            raise Transient(msg, code="database.unreachable") from error

    def _discard_broken(self) -> None:
        """Where one connection broke the others did too: look through them, or each fails one more caller."""
        if self._look_through is None or self._look_through.done():
            self._look_through = asyncio.create_task(self._pool.check())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside one transaction."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def notifications(self, channel: str) -> AsyncIterator[str]:
        """Listen on a connection of its own. The first item is empty and says that listening has begun.

        Raises Transient when the connection is lost; the caller begins again and looks at what it missed.
        """
        try:
            connection = await psycopg.AsyncConnection[DictRow].connect(
                self.address.app, autocommit=True, application_name="interlock-listener"
            )
            async with connection:
                await connection.execute(f"listen {channel}".encode())
                yield ""
                async for notification in connection.notifies():
                    yield notification.payload
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            msg = f"the listener lost the database: {_first_line(error)}"
            raise Transient(msg, code="database.unreachable") from error

    @property
    def pool_statistics(self) -> dict[str, int]:
        """The pool's own counters, for `status` and metrics."""
        return dict(self._pool.get_stats())


async def _configure(connection: Connection) -> None:
    """Rows of the queue live for milliseconds, and only a plain index scan marks the dead entries that it meets: with
    bitmap scans every look at what is open gets slower until the next vacuum (measured: 5 ms after 1,500 Runs)."""
    await connection.execute("set enable_bitmapscan = off")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The schema that this program knows."""
    return str(ScriptDirectory.from_config(_alembic()).get_current_head())


@asynccontextmanager
async def one_connection(address: DatabaseAddress, timeout_seconds: int) -> AsyncIterator[Connection]:
    """A connection without a pool, for a look. Raises Transient when the database does not answer in time."""
    try:
        connection = await psycopg.AsyncConnection[DictRow].connect(
            address.app,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=timeout_seconds,
            application_name="interlock-doctor",
            options=f"-c statement_timeout={timeout_seconds}s -c default_transaction_read_only=on",
        )
        async with connection:
            yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        msg = f"the database does not answer: {_first_line(error)}"
        fix = "see that it runs, and what INTERLOCK_DATABASE_URL says"
        raise Transient(msg, code="database.unreachable", fix=fix) from error


async def migrate(address: DatabaseAddress) -> None:
    """Bring the schema to this program's version; safe when many processes start at once.

    Raises:
        Permanent: The schema was made by a newer program, the server is too old, or it may not be changed.
        Transient: The server does not answer.
    """
    await asyncio.to_thread(_migrate, address)


def _migrate(address: DatabaseAddress) -> None:
    config = _alembic()
    script = ScriptDirectory.from_config(config)
    try:
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(address.owner), poolclass=pool.NullPool
        )
        with engine.connect() as connection:
            version = connection.connection.dbapi_connection.info.server_version  # type: ignore[union-attr]
            if version < SERVER_VERSION_MIN:
                msg = f"PostgreSQL {version // 10000} is too old: Interlock needs 15 or newer"
                raise Permanent(msg, code="database.version", fix="point INTERLOCK_DATABASE_URL at a newer server")
            connection.execute(text(f"set lock_timeout = '{MIGRATION_LOCK_SECONDS}s'"))
            connection.execute(text(f"select pg_advisory_lock({MIGRATION_LOCK})"))
            try:
                _refuse_newer(
                    connection.execute(text("select to_regclass('schema_version')")).scalar(), connection, script
                )
                config.attributes.update(connection=connection)
                command.upgrade(config, "head")
                connection.commit()
                _grant_rights(address)
            finally:
                connection.rollback()
                connection.execute(text(f"select pg_advisory_unlock({MIGRATION_LOCK})"))
                connection.commit()
    except (psycopg.Error, DBAPIError) as error:
        raise _not_migrated(error) from error


def _not_migrated(error: Exception) -> Transient | Permanent:
    """What the driver said, bare or as the migration library wrapped it."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, psycopg.OperationalError):
        msg = f"the database does not answer: {_first_line(cause)}"
        fix = "see that it runs, and what INTERLOCK_DATABASE_URL says"
        return Transient(msg, code="database.unreachable", fix=fix, effect_sent=False)
    msg = f"the tables could not be made: {_first_line(cause)}"
    fix = "set INTERLOCK_DATABASE_OWNER_URL to a role that owns the database, or may make tables in its schema `public`"
    return Permanent(msg, code="database.migration", fix=fix)


async def grant_rights(address: DatabaseAddress) -> None:
    """Give the app role what it needs, where there are two roles; for a schema that came from a backup."""
    await asyncio.to_thread(_grant_rights, address)


def _grant_rights(address: DatabaseAddress) -> None:
    if not address.separated:
        return
    user = str(psycopg.conninfo.conninfo_to_dict(address.app).get("user", ""))
    with psycopg.connect(address.owner) as connection:
        for grant in GRANTS:
            connection.execute(psycopg.sql.SQL(grant).format(app=psycopg.sql.Identifier(user)))


def _refuse_newer(table: object, connection: object, script: ScriptDirectory) -> None:
    """A schema this program does not know was made by a newer one; writing to it would lose what that one keeps."""
    if table is None:
        return
    found = {row[0] for row in connection.execute(text("select version_num from schema_version"))}  # type: ignore[attr-defined]
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = sorted(found - known)
    if unknown:
        msg = f"the database is at schema {unknown[0]}, which this program does not know: a newer Interlock made it"
        raise Permanent(
            msg, code="database.newer", fix="run the newer version, or restore the backup made before the upgrade"
        )
