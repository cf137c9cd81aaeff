"""One embedded PostgreSQL for all who are measured: as it ships, with real durability, and a database for each."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import URL

from interlock.adapters.postgres import EmbeddedPostgres
from interlock.lib.clock import SystemClock


@dataclass(frozen=True)
class BenchDatabase:
    """An empty database: its owner's and the program's connection strings."""

    owner: str
    app: str

    @property
    def owner_url(self) -> str:
        """The owner's connection string as SQLAlchemy wants it."""
        parts = conninfo_to_dict(self.owner)
        query = {name: str(parts[name]) for name in ("host", "port", "passfile") if name in parts}
        url = URL.create("postgresql+psycopg", username=str(parts["user"]), database=str(parts["dbname"]), query=query)
        return url.render_as_string(hide_password=False)


@dataclass(frozen=True)
class BenchServer:
    """A running server and a folder to work in."""

    folder: Path
    owner: str
    app: str

    def database(self) -> BenchDatabase:
        """Make a new empty database."""
        name = f"bench_{secrets.token_hex(4)}"
        user = str(conninfo_to_dict(self.app)["user"])
        with psycopg.connect(self.owner, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("grant connect on database {} to {}").format(sql.Identifier(name), sql.Identifier(user))
            )
        return BenchDatabase(make_conninfo(self.owner, dbname=name), make_conninfo(self.app, dbname=name))


@contextmanager
def bench_server() -> Iterator[BenchServer]:
    """Start a server and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="il-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = EmbeddedPostgres(
            folder / "state", folder / "run", clock=SystemClock(), system_folder=folder / "system"
        )
        endpoint = server.start()
        try:
            with psycopg.connect(endpoint.owner_conninfo) as connection:
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    shown = connection.execute(f"show {setting}".encode()).fetchone()
                    assert shown == ("on",), f"{setting} must be on"
            yield BenchServer(folder, endpoint.owner_conninfo, endpoint.app_conninfo)
        finally:
            server.remove()
