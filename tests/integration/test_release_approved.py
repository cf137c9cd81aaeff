"""A release goes its way with the declaration it was approved with, whatever becomes of interlock.yaml meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from harness import shop_service
from harness.databases import database
from harness.engine import ALICE, CLAUDE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import (
    PATIENCE_SECONDS,
    ReleaseWorld,
    ask,
    begin,
    deployed,
    end_watch,
    quick,
    stands,
    story,
    succeed,
    until,
    words,
)
from interlock.bootstrap.checking import check_installation
from interlock.core.errors import Conflict, NotFound
from interlock.core.run import RunState

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workloads = {
            "web": world.declare("web", release=quick(20, 50, hold=600.0)),
            "first": world.declare("first", release=quick(20, hold=600.0, watch_seconds=600.0)),
        }
        agents = {"claude": {"on_behalf_of": "alice"}}
        locations = write_project(world.folder, "small-team", workloads=workloads, agents=agents, people={"alice": {}})
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                for version in ("v1", "v2", "v3"):
                    world.version(version)
                await deployed(opened, "v1")
                yield opened
            finally:
                end_kept(locations.state_folder)


@pytest_asyncio.fixture(loop_scope="module")
async def declared(engine: Engine) -> AsyncIterator[dict[str, Any]]:
    """What interlock.yaml says; `put` writes it anew. Afterwards it is as it was."""
    path = engine.parts.locations.project_file
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    yield deepcopy(before)
    put(engine, before)


def put(engine: Engine, document: dict[str, Any]) -> None:
    """Another interlock.yaml, in force at once."""
    engine.parts.locations.project_file.write_text(yaml.safe_dump(document), encoding="utf-8")
    engine.parts.project.reload(engine.parts.catalog, engine.parts.book)


async def read(engine: Engine, view: str, **args: Any) -> Any:
    views = engine.parts.views
    return await views.read(ALICE, view, views.views[view].Args(**args))


async def traffic(engine: Engine, name: str = "web") -> tuple[str, dict[str, float]]:
    """Where users come, and version -> percent."""
    (found,) = (await read(engine, "traffic", workload=name))["traffic"]
    return found["listen"], {arm["version"]: arm["share_percent"] for arm in found["arms"] if arm["share_percent"]}


async def until_share(engine: Engine, version: str, percent: float) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while (await traffic(engine))[1].get(version) != percent:
        assert time.monotonic() < end, (await traffic(engine), await engine.query("select * from releases"))
        await asyncio.sleep(0.02)


async def test_users_keep_their_address_when_another_is_declared_on_the_way_and_back(
    engine: Engine, world: ReleaseWorld, declared: dict[str, Any]
) -> None:
    number = await begin(engine, "v2")
    await until_share(engine, "v2", 20.0)
    declared["workloads"]["web"]["traffic"]["listen"] = f"127.0.0.1:{shop_service.free_port()}"
    put(engine, declared)
    await succeed(engine, "release.promote", workload="web", reason="further")
    await until_share(engine, "v2", 50.0)
    assert (await traffic(engine))[0] == world.listen["web"]
    found = [each for each in check_installation(engine.parts) if ".traffic.listen says" in str(each["message"])]
    assert [each["level"] for each in found] == ["error"]
    assert world.listen["web"] in str(found[0]["fix"])
    await succeed(engine, "release.rollback", workload="web", reason="enough")
    await stands(engine, number, "rolled_back")
    assert await traffic(engine) == (world.listen["web"], {"v1": 100.0})
    with pytest.raises(Conflict, match="users of web come at"):
        await ask(engine, "release.start", workload="web", version="v3")


async def test_a_release_goes_back_although_its_workload_is_declared_no_more(
    engine: Engine, world: ReleaseWorld, declared: dict[str, Any]
) -> None:
    number = await begin(engine, "v2")
    await until_share(engine, "v2", 20.0)
    del declared["workloads"]["web"]
    put(engine, declared)
    (shown,) = (await read(engine, "releases", release=number))["releases"]
    assert shown["percent"] == 20.0
    await succeed(engine, "release.abort", workload="web", reason="it is gone")
    await stands(engine, number, "aborted")
    assert await traffic(engine) == (world.listen["web"], {"v1": 100.0})


async def test_status_tells_what_users_have_and_not_what_a_release_that_is_over_planned(engine: Engine) -> None:
    number = await begin(engine, "v2")
    await until_share(engine, "v2", 20.0)
    await succeed(engine, "release.abort", workload="web", reason="by hand")
    await stands(engine, number, "aborted")
    await succeed(engine, "traffic.route", workload="web", shares={"v1": 7000, "v2": 3000})
    (shown,) = (await read(engine, "releases", release=number))["releases"]
    assert shown["percent"] == 30.0
    await succeed(engine, "traffic.route", workload="web", shares={"v1": 10000})


async def test_a_step_that_a_freeze_holds_up_is_said_to_wait(engine: Engine) -> None:
    number = await begin(engine, "v2")
    await until_share(engine, "v2", 20.0)
    await succeed(engine, "interlock.freeze", pattern="route:web", reason="an audit")
    try:
        await succeed(engine, "release.promote", workload="web", reason="further")
        end = time.monotonic() + PATIENCE_SECONDS
        while "waits" not in await words(engine, number):
            assert time.monotonic() < end, await story(engine, number)
            await asyncio.sleep(0.02)
        answer = await read(engine, "releases", release=number)
        assert answer["releases"][0]["percent"] == 20.0
        assert answer["releases"][0]["step_words"].startswith("waits, and is not in force yet: 2 of 2")
        assert any("50 % of users are to get it: waits" in line["text"] for line in answer["timeline"])
        run = await ask(engine, "release.pause", CLAUDE, workload="web", reason="odd log")
        assert run.state is RunState.SUCCEEDED, run.state_reason
        texts = [line["text"] for line in (await read(engine, "releases", release=number))["timeline"]]
        assert "paused: odd log (agent:claude)" in texts
    finally:
        await succeed(engine, "interlock.unfreeze", pattern="route:web")
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, number, "aborted")


async def test_a_failed_attempt_leaves_the_rollback_that_was_there_before(engine: Engine, world: ReleaseWorld) -> None:
    number = await begin(engine, "v2")
    await until_share(engine, "v2", 20.0)
    await succeed(engine, "release.promote", workload="web", reason="all", full=True)
    await until_share(engine, "v2", 100.0)
    await end_watch(engine, number)
    await stands(engine, number, "released")
    world.version("sick", "--refuse-to-start", "1")
    failed = await begin(engine, "sick")
    await stands(engine, failed, "failed", seconds=40)
    told = [word for word in await words(engine, failed) if word != "said"]
    assert told == ["started", "going_back", "failed"], await story(engine, failed)
    aborted = await begin(engine, "v3")
    await until_share(engine, "v3", 20.0)
    await succeed(engine, "release.abort", workload="web", reason="not today")
    await stands(engine, aborted, "aborted")
    await succeed(engine, "release.rollback", workload="web", reason="v2 was bad after all")
    await stands(engine, number, "rolled_back")
    assert (await traffic(engine))[1] == {"v1": 100.0}
    with pytest.raises(Conflict, match="kept to go back to"):
        await ask(engine, "release.rollback", workload="web", reason="somebody else saw it too")


async def test_a_first_version_is_ended_by_a_person(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v1", name="first")
    number = await begin(engine, "v1", "first")
    await stands(engine, number, "watching")
    with world.users("first") as users:
        await until(lambda: users.of("v1") > 3)
    with pytest.raises(Conflict, match="there is none to go back to") as refused:
        await ask(engine, "release.rollback", workload="first", reason="wrong one")
    assert refused.value.fix == "end it: interlock release abort first"
    run = await ask(engine, "release.abort", CLAUDE, workload="first", reason="wrong one")
    assert run.state is RunState.WAITING, "it takes the service from its users"
    await succeed(engine, "release.abort", workload="first", reason="wrong one")
    await stands(engine, number, "aborted")
    (found,) = (await read(engine, "traffic", workload="first"))["traffic"]
    assert found["arms"] == []
    with pytest.raises(NotFound):
        await ask(engine, "release.abort", workload="first", reason="twice")
    again = await begin(engine, "v1", "first")
    await end_watch(engine, again, "first")
    await stands(engine, again, "released")
