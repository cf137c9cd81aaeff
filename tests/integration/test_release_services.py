"""New versions of a real service under real traffic: good ones come to all users, bad ones go back by themselves."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import Engine, open_engine, write_project
from harness.release_world import ReleaseWorld, begin, deployed, quick, stands, stop_all, story, words

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    """With small-team policies, so that what releases ask for is decided by the real ones."""
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workloads = {
            "web": world.declare("web", release=quick(20, 50)),
            "shop": world.declare("shop", release=quick(30, 60)),
        }
        locations = write_project(world.folder, "small-team", workloads=workloads)
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                yield opened
            finally:
                stop_all(opened)


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    """Two services."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@in_one_loop
async def test_a_good_version_comes_to_all_users_without_a_failed_request(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v1")
    world.version("v2")
    await deployed(engine, "v1")
    with world.users() as users:
        number = await begin(engine, "v2")
        row = await stands(engine, number, "released")
    assert users.failed == 0, users.answers
    assert users.of("v2") > users.of("v1") / 10
    assert row["stable"] == "v1"
    assert await words(engine, number) == ["started", "canary", "canary", "watching", "released"], await story(engine, number)
