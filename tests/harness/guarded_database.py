"""A PostgreSQL server that is guarded: with roles and passwords of its own, never the one of Interlock's records."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from harness.databases import database
from harness.engine import Engine, open_engine, write_project
from interlock.adapters.postgres_account import find_account
from interlock.adapters.postgres_binaries import copy_binaries, find_binaries
from interlock.core.database_declaration import DatabaseDeclaration
from interlock.core.databases import SQL_DATABASES, SQL_PARSER, SqlDatabases, SqlParser

START_SECONDS = 60.0
ROLES = ("reader", "writer", "migrator", "owner")


@dataclass
class GuardedServer:
    """A running server; everybody comes through its socket with a password."""

    folder: Path
    passwords: dict[str, str]
    binaries: Path
    process: subprocess.Popen[bytes] | None = None

    def connect(self, database: str, role: str = "super", **options: Any) -> psycopg.Connection[Any]:
        """A connection of a test's own, committing each statement."""
        return psycopg.connect(
            host=str(self.folder / "run"),
            dbname=database,
            user=role,
            password=self.passwords[role],
            autocommit=True,
            **options,
        )

    def start(self) -> None:
        account = find_account()
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder / "run")]
        command += ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "unix_socket_permissions=0777"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", start_new_session=True, **account.process_arguments()
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(signal_number)
            self.process.wait(START_SECONDS)
            self.process = None

    def crash(self) -> None:
        """As a power cut: nothing is written any more."""
        self.stop(signal.SIGQUIT)

    def secret(self, role: str) -> str:
        """A reference to the role's password."""
        path = self.folder / f"{role}.password"
        if not path.exists():
            path.touch(0o600)
            path.write_text(self.passwords[role] + "\n")
        return f"file:{path}"


@contextmanager
def guarded_server(folder: Path) -> Iterator[GuardedServer]:
    """A server below a folder that every account may enter."""
    account = find_account()
    binaries = find_binaries() if os.geteuid() != 0 else copy_binaries(folder)
    place = Path(tempfile.mkdtemp(prefix="shop-", dir=folder))
    place.chmod(0o711)
    for name, mode in (("data", 0o700), ("run", 0o755)):
        (place / name).mkdir()
        (place / name).chmod(mode)
        account.own(place / name)
    passwords = {role: secrets.token_urlsafe(18) for role in (*ROLES, "super")}
    password_file = place / "super.initial"
    password_file.touch(0o600)
    password_file.write_text(passwords["super"])
    account.own(password_file)
    command = [str(binaries / "initdb"), f"--pgdata={place / 'data'}", "--username=super", "--auth=scram-sha-256"]
    command += [f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **account.process_arguments())
    server = GuardedServer(place, passwords, binaries)
    server.start()
    try:
        with server.connect("postgres") as connection:
            for role in ROLES:
                create = psycopg.sql.SQL("create role {} login password {}").format(
                    psycopg.sql.Identifier(role), psycopg.sql.Literal(passwords[role])
                )
                connection.execute(create)
        yield server
    finally:
        server.stop(signal.SIGQUIT)


@dataclass(frozen=True)
class Shop:
    """One guarded database: its tables belong to `owner`, `reader` reads and `writer` writes them."""

    server: GuardedServer
    name: str

    def execute(self, statement: str, *parameters: Any, role: str = "super") -> list[tuple[Any, ...]]:
        with self.server.connect(self.name, role) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def declaration(self, **more: Any) -> dict[str, Any]:
        """What stands in interlock.yaml."""
        found: dict[str, Any] = {"url": f"postgresql:///{self.name}?host={self.server.folder / 'run'}"}
        for use, role in (("read", "reader"), ("write", "writer"), ("migrate", "migrator")):
            found[f"{use}_user"] = role
            found[f"{use}_credential"] = self.server.secret(role)
        return {**found, **more}

    def declared(self, **more: Any) -> DatabaseDeclaration:
        return DatabaseDeclaration.model_validate(self.declaration(**more))


SHOP_SQL = """
create table public.customers (id int primary key, email text not null, balance numeric(12,2), since date);
create table public.orders (
    id bigint generated by default as identity primary key,
    customer int not null references public.customers (id),
    state text not null default 'open', total numeric(12,2), placed_at timestamptz default now(), note jsonb
);
create table public.secrets (name text primary key, value text);
create table public.no_key (a int, b text);
create view public.order_names as
    select o.id, c.email from public.orders o join public.customers c on c.id = o.customer;
create view public.hidden as select name, value from public.secrets;
insert into public.customers select n, 'c' || n || '@example.org', n * 10.5, date '2026-01-01' + n
    from generate_series(1, 20) n;
insert into public.orders (customer, state, total, placed_at, note)
    select 1 + n % 20, case when n % 3 = 0 then 'paid' else 'open' end, n * 1.25,
        timestamptz '2026-03-01 12:00:00.123456+00' + n * interval '1 hour',
        case when n % 4 = 0 then '{"n": 1}'::jsonb end
    from generate_series(1, 60) n;
insert into public.secrets values ('api', 'a value that nobody may see');
insert into public.no_key values (1, 'x'), (2, 'y');
grant usage on schema public to reader, writer;
grant select on all tables in schema public to reader;
grant select, insert, update, delete on all tables in schema public to writer;
grant usage on all sequences in schema public to writer;
grant create, usage on schema public to migrator;
"""


@contextmanager
def shop(server: GuardedServer, *statements: str) -> Iterator[Shop]:
    """A database with a few tables, dropped afterwards."""
    name = f"shop_{secrets.token_hex(5)}"
    with server.connect("postgres") as connection:
        connection.execute(f"create database {name} owner owner".encode())
    found = Shop(server, name)
    found.execute("alter schema public owner to owner")
    for statement in (SHOP_SQL, *statements):
        found.execute("set role owner;" + statement)
    try:
        yield found
    finally:
        with server.connect("postgres") as connection:
            connection.execute(f"drop database {name} with (force)".encode())


@asynccontextmanager
async def engine_for(postgres_endpoint: Any, **project: Any) -> AsyncIterator[Engine]:
    """An engine whose project declares guarded databases."""
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        async with open_engine(app, owner, write_project(Path(folder), **project)) as opened:
            yield opened


async def output_of(engine: Engine, number: int) -> str:
    """All that a Run has printed."""
    pieces = await engine.parts.outputs.read(number, limit=1000)
    return "".join(piece.text for piece in pieces)


def databases_of(engine: Engine) -> SqlDatabases:
    """The adapter that the engine's actions use."""
    return engine.parts.catalog.action("sql.read").ports.outside[SQL_DATABASES]


def parser_of(engine: Engine) -> SqlParser:
    """As above."""
    return engine.parts.catalog.action("sql.read").ports.outside[SQL_PARSER]
