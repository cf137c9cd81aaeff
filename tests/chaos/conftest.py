"""A world for each chaos test, on a database of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.databases import database
from harness.world import World, open_world


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Sockets want short paths."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def world(postgres_endpoint: Any, short_folder: Path) -> AsyncIterator[World]:
    """Nothing is running in it yet."""
    with database(postgres_endpoint) as (_, owner, app):
        async with open_world(app, owner, short_folder) as opened:
            yield opened
