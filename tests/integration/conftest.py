"""An engine on a database of its own, for the tests of door and runner."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.engine import Engine, open_engine, write_project
from interlock.engine.db import DatabaseAddress, migrate

OpenEngine = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture(scope="session")
def migrated(postgres_endpoint: Any) -> Iterator[str]:
    """The name of a database with all tables, which others are copied from."""
    with database(postgres_endpoint) as (name, owner, app):
        asyncio.run(migrate(DatabaseAddress(app=app, owner=owner)))
        yield name


@pytest.fixture
def open_apart(migrated: str, postgres_endpoint: Any, tmp_path: Path) -> Iterator[OpenEngine]:
    """Opens engines on one database, for a test that closes them itself. `policy` and `project` count once."""
    with (
        database(postgres_endpoint, template=migrated) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):

        def open_one(
            policy: str = "permissive", project: dict[str, Any] | None = None, **options: Any
        ) -> AbstractAsyncContextManager[Engine]:
            locations = write_project(Path(folder), policy, **(project or {}))
            return open_engine(app, owner, locations, **options)

        yield open_one


@pytest.fixture
async def opened(open_apart: OpenEngine) -> AsyncIterator[Callable[..., Any]]:
    """Opens engines on one database; they are closed, last first, when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_one(**options: Any) -> Engine:
            return await stack.enter_async_context(open_apart(**options))

        yield open_one


@pytest.fixture
async def engine(opened: Callable[..., Any]) -> Engine:
    """An engine that works, and permits everything."""
    started: Engine = await opened()
    return started
