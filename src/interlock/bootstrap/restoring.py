"""Puts a backup in place of an installation that has no state yet."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from interlock.adapters.postgres_tools import restore_external
from interlock.bootstrap.database import embedded_server
from interlock.core.errors import Conflict
from interlock.core.model import JsonObject
from interlock.engine.audit.seal import after_restore
from interlock.engine.backup import DATABASE, ENVIRONMENT_FILE, STATE_PARTS, unpack_backup
from interlock.engine.db import Database, DatabaseAddress, connection_words, grant_rights, migrate
from interlock.settings import Locations

RUNNING_PARTS = ("kept", "traffic", "workloads")
"""Of a state folder: what keepers, proxies and services stand in. None of it is in a backup."""


def restore(archive: Path, locations: Locations, database_url: str | None, owner_url: str | None) -> JsonObject:
    """Put a backup in place of an installation that has no state yet; the resident process must not run.

    What is there already is never overwritten: the caller moves it aside first.

    Returns: the archive's manifest.
    Raises: Invalid (no sound backup), Conflict (there is state already), Permanent or Transient from the database.
    """
    occupied = [path for path in (locations.state_folder / "keys", locations.state_folder / "blobs") if path.exists()]
    if occupied:
        msg = f"{locations.state_folder} holds an installation already"
        fix = f"move it aside: mv {locations.state_folder} {locations.state_folder}.before"
        raise Conflict(msg, code="restore.occupied", fix=fix)
    locations.make_folders()
    with tempfile.TemporaryDirectory(prefix="restore-", dir=locations.state_folder) as folder:
        manifest = unpack_backup(archive, Path(folder))
        address = _restore_database(Path(folder, DATABASE), locations, database_url, owner_url)
        for part in STATE_PARTS:
            if (source := Path(folder, "state", part)).is_dir():
                _make_private(source)
                source.rename(locations.state_folder / part)
        if (record := Path(folder, "state", ENVIRONMENT_FILE)).is_file():
            record.chmod(0o600)
            record.rename(locations.environment_file)
    asyncio.run(_after_restore(address))
    return manifest


def carry_over(aside: Path, state_folder: Path) -> None:
    """What runs on while a backup takes the place of its installation belongs to the new one: folders are moved, and
    whoever has them open does not notice.

    Raises: OSError when a folder cannot be moved; it lies where it lay then.
    """
    for name in RUNNING_PARTS:
        if (aside / name).is_dir() and not (state_folder / name).exists():
            (aside / name).rename(state_folder / name)


def _restore_database(
    dump: Path, locations: Locations, database_url: str | None, owner_url: str | None
) -> DatabaseAddress:
    if database_url is not None:
        address = DatabaseAddress(app=database_url, owner=owner_url or database_url)
        with dump.open("rb") as body:
            restore_external(body, connection_words(address.owner))
        return address
    embedded = embedded_server(locations, lambda _: None)
    endpoint = embedded.start()
    arguments = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    arguments.append(f"--dbname={endpoint.database}")
    with dump.open("rb") as body:
        embedded.run_tool("pg_restore", arguments, stdin=body)
    return DatabaseAddress(app=endpoint.app_conninfo, owner=endpoint.owner_conninfo)


async def _after_restore(address: DatabaseAddress) -> None:
    """Bring the schema up to date, give the app role its rights again, and free what waited to be sealed."""
    await grant_rights(address)
    await migrate(address)
    database = Database(DatabaseAddress(app=address.owner, owner=address.owner))
    await database.open()
    try:
        async with database.connection() as connection:
            await after_restore(connection)
    finally:
        await database.close()


def _make_private(folder: Path) -> None:
    """Folders 0700, files 0600."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
