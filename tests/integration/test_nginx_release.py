"""A release whose users come through nginx: shadow, canary, the switch, and the way back."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, begin, deployed, quick, stands, story, until, words
from harness.shop_service import control
from interlock.adapters.nginx import PLACES

pytestmark = pytest.mark.skipif(
    shutil.which("nginx", path=PLACES) is None, reason="needs nginx: apt-get install nginx-light"
)
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        release = quick(20, 50, hold=0.5)
        release["steps"] = [{"shadow_percent": 100, "pairs": 60, "deadline_seconds": 60}, *release["steps"]]
        comparison = {"agreement_percent": 80, "confidence_percent": 90, "key_fields": ["$.price"]}
        workload = world.declare(release=release, comparison=comparison)
        workload["traffic"] |= {"proxy": "nginx", "fallback": True}
        locations = write_project(world.folder, "small-team", workloads={"web": workload})
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                world.version("v1")
                await deployed(opened, "v1")
                yield opened
            finally:
                end_kept(locations.state_folder)


@in_one_loop
async def test_a_good_version_comes_to_all_users_without_a_failed_request(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v2")
    with world.users(per_second=80) as users:
        number = await begin(engine, "v2")
        await stands(engine, number, "released", seconds=60)
        seen = users.of("v2")
        await until(lambda: users.of("v2") > seen + 20)
    assert users.failed == 0, users.answers
    assert await words(engine, number) == ["started", "shadow", "canary", "canary", "watching", "released"]


@in_one_loop
async def test_a_version_that_turns_to_errors_goes_back_and_users_see_none_of_it(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("bad")
    query = "select address from service_instance where workload = 'web' and version = 'bad'"
    with world.users(per_second=80) as users:
        number = await begin(engine, "bad")
        await until(lambda: users.of("bad") > 5)
        (instance,) = await engine.query(query)
        control(int(instance["address"].rpartition(":")[2]), error_percent=100)
        row = await stands(engine, number, "rolled_back", seconds=60)
        had, seen = users.of("bad"), users.total
        await until(lambda: users.total > seen + 50)
    assert row["cause"] == "red_line", await story(engine, number)
    assert row["evidence"]["seen_after_seconds"] < 2
    assert users.of("bad") == had
    assert users.failed == 0, (users.answers, await story(engine, number))


@in_one_loop
async def test_nginx_that_is_killed_on_the_way_is_back_and_the_release_comes_to_its_end(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("v3")
    pid_file = engine.parts.locations.state_folder / "traffic" / "nginx" / "nginx.pid"
    with world.users(per_second=80) as users:
        number = await begin(engine, "v3")
        await until(lambda: users.of("v3") > 5)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        lost = users.total - users.failed
        await until(lambda: users.total - users.failed > lost + 20)
        failed = users.failed
        await stands(engine, number, "released", "rolled_back", seconds=60)
        assert users.failed == failed, (users.answers, await story(engine, number))
    assert set(users.answers) <= {("v2", 200), ("v3", 200), ("-", 0)}
