"""Databases of one test each, copied from one that was migrated once: a copy takes a tenth of the time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

GONE_SECONDS = 10.0


@contextmanager
def database(endpoint: Any, *, template: str = "template0") -> Iterator[tuple[str, str, str]]:
    """A new database of the endpoint (`tests/conftest.py`): its name, and how owner and app connect to it."""
    name = f"interlock_test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
        sql.Identifier(name), sql.Identifier(endpoint.app_user)
    )
    with psycopg.connect(endpoint.owner_conninfo, autocommit=True) as connection:
        connection.execute(create)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
        connection.execute(grant)
    try:
        yield (
            name,
            make_conninfo(endpoint.owner_conninfo, dbname=name),
            make_conninfo(endpoint.app_conninfo, dbname=name),
        )
    finally:
        drop_database(endpoint, name)


def drop_database(endpoint: Any, name: str) -> None:
    """Drop it, whoever is still connected: `with (force)` is refused to an owner whose guests are of another role."""
    _end_connections(endpoint.app_conninfo, name)
    _end_connections(endpoint.owner_conninfo, name)
    _drop(endpoint.owner_conninfo, name)


def _end_connections(conninfo: str, name: str) -> None:
    """Connections that a test left open, or killed while they were being made, are ended by their own account."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and usename = current_user",
            (name,),
        )


def _drop(owner_conninfo: str, name: str) -> None:
    """What was ended takes a moment to be gone."""
    end = time.monotonic() + GONE_SECONDS
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        while True:
            try:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            except psycopg.errors.ObjectInUse:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return
