"""A real PostgreSQL for every test that wants one: embedded, or the server INTERLOCK_TEST_DATABASE_URL names."""

from __future__ import annotations

import os
import secrets
import tempfile
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import uvloop
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harness.databases import drop_database
from harness.guarded_database import GuardedServer, guarded_server
from interlock.adapters.postgres import EmbeddedPostgres
from interlock.lib.clock import SystemClock


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """Tests run on the loop that serves."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the tests, the file that takes longest begins first, so that none waits for it."""
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name != "test_sabotage.py")


@dataclass(frozen=True)
class PostgresServer:
    """A running server. `owner_conninfo` may create databases; `app_conninfo` logs in as `app_user` without rights.

    Both name a database that exists, which tests leave alone.
    """

    owner_conninfo: str
    app_conninfo: str
    app_user: str


@dataclass(frozen=True)
class FreshDatabase:
    """An empty database of one test. The owner owns it; `app_user` may connect, and has no right to anything else."""

    name: str
    owner_conninfo: str
    app_conninfo: str
    app_user: str


@pytest.fixture(scope="session")
def system_folder() -> Iterator[Path]:
    """Where root keeps programs and clusters in tests: reachable for every account, short, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_endpoint(system_folder: Path) -> Iterator[PostgresServer]:
    """One server for the whole session; without fsync where it is ours."""
    url = os.environ.get("INTERLOCK_TEST_DATABASE_URL")
    if url:
        yield from _external(url)
        return
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        server = EmbeddedPostgres(
            Path(folder, "state"), Path(folder, "run"), clock=SystemClock(), fsync=False, system_folder=system_folder
        )
        endpoint = server.start()
        try:
            yield PostgresServer(endpoint.owner_conninfo, endpoint.app_conninfo, endpoint.app_user)
        finally:
            server.remove()


@pytest.fixture(scope="session")
def guarded_postgres(system_folder: Path) -> Iterator[GuardedServer]:
    """Another server for the whole session: the one that `sql.*` are asked about."""
    with guarded_server(system_folder) as server:
        yield server


@pytest.fixture
def fresh_database(postgres_endpoint: PostgresServer) -> Iterator[FreshDatabase]:
    """A new empty database, made from template0 and dropped afterwards, whoever is still connected to it."""
    name = f"interlock_test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_endpoint.owner_conninfo, autocommit=True) as connection:
        identifier = sql.Identifier(name)
        app = sql.Identifier(postgres_endpoint.app_user)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
        try:
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(identifier, app))
            yield FreshDatabase(
                name=name,
                owner_conninfo=make_conninfo(postgres_endpoint.owner_conninfo, dbname=name),
                app_conninfo=make_conninfo(postgres_endpoint.app_conninfo, dbname=name),
                app_user=postgres_endpoint.app_user,
            )
        finally:
            drop_database(postgres_endpoint, name)


def _external(url: str) -> Iterator[PostgresServer]:
    """A server that somebody else runs: its user must be allowed to create databases and roles."""
    role, password = f"interlock_test_{secrets.token_hex(6)}", secrets.token_hex(16)
    identifier = sql.Identifier(role)
    with psycopg.connect(url, autocommit=True) as connection:
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(identifier, sql.Literal(password))
        connection.execute(create)
    try:
        yield PostgresServer(url, make_conninfo(url, user=role, password=password), role)
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(identifier))
