"""The database of an installation: started or found, brought up to date, dumped, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import IO

from interlock.adapters.postgres import EmbeddedPostgres
from interlock.adapters.postgres_tools import dump_external
from interlock.engine.db import DatabaseAddress, connection_words, migrate
from interlock.lib.clock import SystemClock
from interlock.settings import Locations


async def open_database(
    locations: Locations, database_url: str | None, owner_url: str | None, report: Callable[[str], None]
) -> tuple[DatabaseAddress, EmbeddedPostgres | None]:
    """Start or find the database and bring its schema up to date.

    Raises: Transient, Permanent as `migrate` and the embedded server do.
    """
    embedded = None
    if database_url is not None:
        address = DatabaseAddress(app=database_url, owner=owner_url or database_url)
    else:
        embedded = embedded_server(locations, report)
        endpoint = await asyncio.to_thread(embedded.start)
        address = DatabaseAddress(app=endpoint.app_conninfo, owner=endpoint.owner_conninfo)
    await migrate(address)
    return address, embedded


def embedded_server(locations: Locations, report: Callable[[str], None]) -> EmbeddedPostgres:
    """The installation's own database server, running or not."""
    return EmbeddedPostgres(locations.state_folder, locations.runtime_folder, clock=SystemClock(), report=report)


def remove_database(locations: Locations) -> None:
    """Delete the embedded database with everything in it; the resident process must not run."""
    embedded_server(locations, lambda _: None).remove()


def dump_database(embedded: EmbeddedPostgres | None, address: DatabaseAddress, target: IO[bytes]) -> None:
    """Write the database in pg_dump's custom format. Raises Permanent or Transient when that fails."""
    if embedded is not None:
        embedded.run_tool("pg_dump", ["--format=custom", "--no-owner", "--no-privileges"], stdout=target)
    else:
        dump_external(connection_words(address.owner), target)
