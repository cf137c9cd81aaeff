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
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, begin, deployed, quick, stands, story, until, words

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    """With small-team policies, so that what releases ask for is decided by the real ones."""
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workloads = {
            "web": world.declare("web", release=quick(20, 50)),
            "shop": world.declare("shop", release=quick(50, hold=40.0, judge={"latency_increase_max": 0.05})),
        }
        locations = write_project(world.folder, "small-team", workloads=workloads)
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                yield opened
            finally:
                end_kept(locations.state_folder)


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
    assert await words(engine, number) == ["started", "canary", "canary", "watching", "released"], await story(
        engine, number
    )


@in_one_loop
async def test_five_percent_errors_are_caught_and_go_back(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v1", "--latency-ms", "20", name="shop")
    world.version("bad", "--latency-ms", "20", "--error-percent", "5", name="shop")
    await deployed(engine, "v1", "shop")
    with world.users("shop", per_second=150, threads=6) as users:
        number = await begin(engine, "bad", "shop")
        row = await stands(engine, number, "rolled_back")
        failed, seen = users.failed, users.total
        await until(lambda: users.total > seen + 100)
    assert failed == users.failed, "nobody has it any more"
    assert set(users.answers) <= {("v1", 200), ("bad", 200), ("bad", 500)}
    assert row["cause"] == "judge", await story(engine, number)
    assert row["evidence"]["measures"][0]["verdict"] == "no_go"


@in_one_loop
async def test_thirty_percent_more_latency_is_caught(engine: Engine, world: ReleaseWorld) -> None:
    world.version("slow", "--latency-ms", "20", "--slower-percent", "30", name="shop")
    with world.users("shop", per_second=150, threads=6) as users:
        number = await begin(engine, "slow", "shop")
        row = await stands(engine, number, "rolled_back", seconds=60)
    assert row["cause"] == "judge", await story(engine, number)
    assert users.failed == 0


@in_one_loop
async def test_a_version_that_went_back_leaves_a_report_with_numbers_and_plots(engine: Engine) -> None:
    rows = await engine.query("select number from releases where state = 'rolled_back' order by number")
    folder = engine.parts.locations.state_folder / "releases" / str(rows[0]["number"])
    await until((folder / "rollback_report.md").exists)
    text = (folder / "rollback_report.md").read_text(encoding="utf-8")
    assert "ROLLED BACK" in text
    assert "**NO-GO**" in text
    assert "find out why bad of shop was not good enough" in text
    plot = (folder / "plot.svg").read_text(encoding="utf-8")
    assert plot.startswith("<svg ")
    assert "<script" not in plot
    assert (folder / "rollback_report.md").stat().st_mode & 0o077 == 0
    events = await engine.query("select data from event where kind = 'release.rolled_back'")
    assert all("follow_up" in event["data"] for event in events)


@in_one_loop
async def test_a_version_that_does_not_start_tells_the_release_why(engine: Engine, world: ReleaseWorld) -> None:
    world.version("torn")
    start = world.folder / "web" / "torn" / "start"
    start.write_text("#!/bin/sh\necho password=hunter2hunter2\necho no such table: orders >&2\nexit 3\n")
    number = await begin(engine, "torn")
    row = await stands(engine, number, "failed")
    assert "it said last: no such table: orders" in row["reason"]
    path = engine.parts.locations.state_folder / "releases" / str(number) / "rollback_report.md"
    await until(path.exists)
    text = path.read_text(encoding="utf-8")
    assert "## What torn said last" in text
    assert "    no such table: orders" in text
    assert "More of it: `interlock service log web torn`" in text
    assert "hunter2hunter2" not in text
