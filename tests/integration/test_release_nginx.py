"""The same release behind nginx: a good version comes to all users, a bad one goes back, and nobody else notices."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, begin, deployed, quick, stands, story

in_one_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="no nginx here")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workload = world.declare(release=quick(30, hold=1.5))
        workload["traffic"]["proxy"] = "nginx"
        locations = write_project(world.folder, "small-team", workloads={"web": workload})
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                world.version("v1")
                await deployed(opened, "v1")
                yield opened
            finally:
                end_kept(locations.state_folder)


@in_one_loop
async def test_good_comes_and_bad_goes_behind_nginx(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v2")
    world.version("v3", "--error-percent", "100")
    with world.users(per_second=80) as users:
        await stands(engine, await begin(engine, "v2"), "released")
        assert users.failed == 0, users.answers
        number = await begin(engine, "v3")
        row = await stands(engine, number, "rolled_back")
    assert row["cause"] in {"red_line", "judge"}, await story(engine, number)
    assert {version for (version, status) in users.answers if status >= 400} == {"v3"}
