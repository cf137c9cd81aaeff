"""A release that begins in the shadow: answers are compared before a user gets the new version."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, begin, deployed, quick, stands, story, until, words
from interlock.core.ask import Ask

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        release = quick(50, hold=0.5)
        release["steps"] = [{"shadow_percent": 100, "pairs": 60, "deadline_seconds": 60}, *release["steps"]]
        comparison = {"agreement_percent": 80, "confidence_percent": 90, "key_fields": ["$.price"]}
        workload = world.declare(release=release, comparison=comparison)
        locations = write_project(world.folder, "small-team", workloads={"web": workload})
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                world.version("v1")
                await deployed(opened, "v1")
                yield opened
            finally:
                end_kept(locations.state_folder)


@in_one_loop
async def test_a_version_with_a_wrong_field_is_stopped_before_anybody_has_it(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("wrong", "--wrong-field", "price")
    with world.users(per_second=80) as users:
        number = await begin(engine, "wrong")
        row = await stands(engine, number, "failed", seconds=60)
    assert users.of("wrong") == 0
    assert users.failed == 0
    assert row["cause"] == "shadow", await story(engine, number)
    assert "$.price" in row["reason"]


@in_one_loop
async def test_a_version_that_answers_alike_passes_and_comes_to_all(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v2")
    with world.users(per_second=80) as users:
        number = await begin(engine, "v2")
        await stands(engine, number, "released", seconds=60)
    assert users.failed == 0, users.answers
    assert await words(engine, number) == ["started", "shadow", "canary", "watching", "released"]
    folder = engine.parts.locations.state_folder / "releases" / str(number)
    assert (folder / "shadow_summary.json").stat().st_mode & 0o077 == 0
    kept = engine.parts.locations.state_folder / "kept"
    assert (kept / "web@v2").is_dir()
    await until(lambda: not list(kept.glob("comparator-*")))
    stop = Ask(action="service.stop", args={"workload": "web", "version": "v1"})
    preview = (await engine.door.propose(ALICE, stop)).plan.preview or ""
    assert f"release {number} keeps v1 running: it is what `interlock rollback web` goes back to" in preview
