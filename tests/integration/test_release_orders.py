"""What people and disasters do to releases: orders, freezes, versions that never become well, nobody who comes."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, CLAUDE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import (
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
from harness.shop_service import control
from interlock.core.errors import Conflict, Denied, NotFound
from interlock.core.run import Run, RunState

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    """Services that stay at their first step until somebody says otherwise."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield ReleaseWorld(Path(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workloads = {
            "web": world.declare("web", release=slow()),
            "moved": world.declare("moved", release=slow(irreversible=True)),
        }
        workloads["covered"] = world.declare("covered", release=slow())
        workloads["covered"]["traffic"]["fallback"] = True
        workloads["cool"] = world.declare("cool", release=quick(keep_warm_hours=0.0001))
        agents = {"claude": {"on_behalf_of": "alice"}}
        people = {"alice": {"roles": ["operator"]}, "bob": {}}
        locations = write_project(world.folder, "small-team", workloads=workloads, agents=agents, people=people)
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                world.version("v1")
                await deployed(opened, "v1")
                yield opened
            finally:
                end_kept(locations.state_folder)


def slow(**more: Any) -> dict[str, Any]:
    """It stays at each step until somebody says otherwise."""
    return quick(20, 50, hold=600.0, burst_errors=5, red_line_failures=3, **more)


async def routing(engine: Engine, name: str = "web") -> dict[str, float]:
    """Version -> percent of the users, as the proxy has it."""
    (found,) = (await read(engine, "traffic", workload=name))["traffic"]
    return {arm["version"]: arm["share_percent"] for arm in found["arms"]}


async def read(engine: Engine, view: str, **args: Any) -> Any:
    views = engine.parts.views
    return await views.read(ALICE, view, views.views[view].Args(**args))


async def until_share(engine: Engine, version: str, percent: float, name: str = "web") -> None:
    end = time.monotonic() + 10
    while (await routing(engine, name)).get(version) != percent:
        assert time.monotonic() < end, await routing(engine, name)
        await asyncio.sleep(0.02)


async def until_word(engine: Engine, number: int, word: str) -> None:
    end = time.monotonic() + 10
    while word not in await words(engine, number):
        assert time.monotonic() < end, await story(engine, number)
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(engine: Engine) -> AsyncIterator[None]:
    """What a test left on its way ends with it."""
    yield
    await engine.execute("update change_freeze set lifted_at = now(), lifted_by = 'test' where lifted_at is null")
    for row in await engine.query("select number, name from releases where closed_at is null"):
        await succeed(engine, "release.rollback", workload=row["name"], reason="tidy", accept_irreversible=True)
        await stands(engine, row["number"], "rolled_back", "aborted", "failed")


async def port_of(engine: Engine, version: str, name: str = "web") -> int:
    query = "select address from service_instance where workload = %s and version = %s"
    (instance,) = await engine.query(query, name, version)
    return int(instance["address"].rpartition(":")[2])


async def at_canary(engine: Engine, world: ReleaseWorld, version: str, *arguments: str, name: str = "web") -> int:
    """A release whose first step is in force."""
    world.version(version, *arguments, name=name)
    number = await begin(engine, version, name)
    await stands(engine, number, "canary")
    await until_share(engine, version, 20.0, name)
    return number


@in_one_loop
async def test_a_second_release_is_told_the_number_of_the_first(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "two")
    world.version("other")
    with pytest.raises(Conflict, match=f"release {number} of web"):
        await ask(engine, "release.start", workload="web", version="other")
    await succeed(engine, "release.abort", workload="web", reason="superseded")
    row = await stands(engine, number, "aborted")
    assert row["reason"] == "superseded"
    assert (await routing(engine))["v1"] == 100.0


@in_one_loop
async def test_a_person_pauses_resumes_promotes_and_sees_it(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "three")
    await succeed(engine, "release.pause", workload="web", reason="lunch")
    assert (await stands(engine, number, "paused"))["reason"] == "lunch"
    end = time.monotonic() + 10
    while not any("lunch" in trouble["message"] for trouble in (await read(engine, "status"))["troubles"]):
        assert time.monotonic() < end, await story(engine, number)
        await asyncio.sleep(0.02)
    await succeed(engine, "release.resume", workload="web", reason="coffee")
    await stands(engine, number, "canary")
    await succeed(engine, "release.promote", workload="web", reason="now")
    await until_share(engine, "three", 50.0)
    await succeed(engine, "release.promote", workload="web", reason="all", full=True)
    await end_watch(engine, number)
    await stands(engine, number, "released")
    assert (await routing(engine))["three"] == 100.0
    assert [word for word in await words(engine, number) if word not in {"canary", "waits", "no_traffic"}] == [
        *("started", "paused", "resumed", "watching", "released"),
    ]


@in_one_loop
async def test_an_agent_takes_a_released_version_back_in_a_freeze(engine: Engine) -> None:
    """`three` was released; `v1` is warm."""
    await succeed(engine, "interlock.freeze", pattern="*", reason="an audit")
    try:
        run = await ask(engine, "release.rollback", CLAUDE, workload="web", reason="customers complain")
        assert run.state is RunState.SUCCEEDED, run.state_reason
        (row,) = await engine.query("select number from releases where candidate = 'three'")
        await stands(engine, row["number"], "rolled_back")
        assert (await routing(engine))["v1"] == 100.0
    finally:
        await succeed(engine, "interlock.unfreeze", pattern="*")
    with pytest.raises(Conflict, match="kept to go back to"):
        await ask(engine, "release.rollback", workload="web", reason="again")


@in_one_loop
async def test_a_freeze_holds_a_step_up_and_says_so_and_its_end_lets_it_go_on(
    engine: Engine, world: ReleaseWorld
) -> None:
    number = await at_canary(engine, world, "four")
    await succeed(engine, "interlock.freeze", pattern="route:web", reason="an audit")
    try:
        await succeed(engine, "release.promote", workload="web", reason="now")
        await until_word(engine, number, "waits")
        assert (await routing(engine))["four"] == 20.0
    finally:
        await succeed(engine, "interlock.unfreeze", pattern="route:web")
    await until_share(engine, "four", 50.0)
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, number, "aborted")


@in_one_loop
async def test_a_version_that_turns_to_errors_goes_back_at_once(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "five")
    port = await port_of(engine, "five")
    with world.users(per_second=200, threads=6) as users:
        await until(lambda: users.of("five") > 5)
        control(port, error_percent=100)
        row = await stands(engine, number, "rolled_back")
    assert row["cause"] == "red_line", await story(engine, number)
    assert row["evidence"]["seen_after_seconds"] < 2
    assert (await routing(engine))["v1"] == 100.0


@in_one_loop
async def test_a_version_that_is_killed_or_hangs_goes_back(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "six")
    port = await port_of(engine, "six")
    pid = control(port)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        row = await stands(engine, number, "rolled_back", seconds=20)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert row["cause"] == "red_line", await story(engine, number)


@in_one_loop
async def test_a_candidate_that_is_killed_costs_no_user_an_answer(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v1", name="covered")
    await deployed(engine, "v1", "covered")
    number = await at_canary(engine, world, "two", name="covered")
    port = await port_of(engine, "two", "covered")
    with world.users("covered", per_second=100, threads=4) as users:
        await until(lambda: users.of("two") > 3)
        os.kill(control(port)["pid"], signal.SIGKILL)
        seen = users.total
        await until(lambda: users.total > seen + 100)
        assert users.failed == 0, users.answers
    (row,) = await engine.query("select state, cause from releases where number = %s", number)
    assert row["state"] == "canary" or row["cause"] == "red_line", await story(engine, number)


@in_one_loop
async def test_a_version_that_never_becomes_well_reaches_nobody(engine: Engine, world: ReleaseWorld) -> None:
    world.version("sick", "--refuse-to-start", "1")
    number = await begin(engine, "sick")
    row = await stands(engine, number, "failed", seconds=40)
    assert row["cause"] == "effect"
    assert (await routing(engine)) == {"v1": 100.0} or (await routing(engine))["v1"] == 100.0


@in_one_loop
async def test_where_there_is_no_way_back_it_freezes_and_waits_for_a_person(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("v1", name="moved")
    await deployed(engine, "v1", "moved")
    number = await at_canary(engine, world, "two", name="moved")
    (instance,) = await engine.query(
        "select address from service_instance where workload = 'moved' and version = 'two'"
    )
    with world.users("moved", per_second=100, threads=4):
        control(int(instance["address"].rpartition(":")[2]), error_percent=100)
        row = await stands(engine, number, "frozen")
    assert (await routing(engine, "moved"))["two"] == 20.0
    assert row["cause"] == "red_line"
    for order in ("rollback", "abort"):
        with pytest.raises(Conflict, match="no way back"):
            await ask(engine, f"release.{order}", workload="moved", reason="please")
    await succeed(
        engine, "release.rollback", workload="moved", reason="we looked, it can live with it", accept_irreversible=True
    )
    await stands(engine, number, "rolled_back")


@in_one_loop
async def test_nobody_comes_and_it_says_so_and_decides_nothing(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "seven")
    await until_word(engine, number, "no_traffic")
    (row,) = await engine.query("select state, step from releases where number = %s", number)
    assert (row["state"], row["step"]) == ("canary", 0)
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, number, "aborted")


@in_one_loop
async def test_somebody_who_changes_the_routing_by_hand_stops_it(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "eight")
    await succeed(engine, "traffic.route", workload="web", shares={"v1": 7000, "eight": 3000})
    row = await stands(engine, number, "paused")
    assert "eight 30 %" in row["reason"]
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, number, "aborted")


@in_one_loop
async def test_a_release_covers_nothing_but_its_own_steps(engine: Engine, world: ReleaseWorld) -> None:
    number = await at_canary(engine, world, "nine")
    for shares in ({"v1": 5000, "nine": 5000}, {"v1": 2000, "foreign": 8000}):
        with pytest.raises(Denied, match=f"release {number} does not cover this"):
            await ask(engine, "traffic.route", workload="web", shares=shares, release=number)
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, number, "aborted")
    with pytest.raises(NotFound):
        await ask(engine, "release.pause", workload="web", reason="too late")


@in_one_loop
async def test_two_services_are_released_at_once_and_what_nobody_needs_is_stopped(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("v1", name="cool")
    world.version("v2", name="cool")
    other = await at_canary(engine, world, "ten")
    await deployed(engine, "v1", "cool")
    await deployed(engine, "v2", "cool")
    assert (await stands(engine, other, "canary"))["step"] == 0
    await until_stage(engine, "cool", "v1", "stopped")
    assert await routing(engine, "cool") == {"v2": 100.0}
    await succeed(engine, "release.abort", workload="web", reason="done")
    await stands(engine, other, "aborted")
    await until_stage(engine, "web", "ten", "stopped")


async def until_stage(engine: Engine, name: str, version: str, stage: str) -> None:
    query = "select stage from service_instance where workload = %s and version = %s"
    end = time.monotonic() + 20
    while (await engine.query(query, name, version))[0]["stage"] != stage:
        assert time.monotonic() < end, await engine.query("select * from releases order by number desc limit 3")
        await asyncio.sleep(0.05)


@in_one_loop
async def test_of_two_releases_asked_for_at_once_one_is_on_its_way(engine: Engine, world: ReleaseWorld) -> None:
    for version in ("left", "right"):
        world.version(version)
    asked = [ask(engine, "release.start", workload="web", version=version) for version in ("left", "right")]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    won = [each for each in ended if isinstance(each, Run) and each.state is RunState.SUCCEEDED]
    assert len(won) == 1, ended
    lost = next(each for each in ended if each is not won[0])
    assert isinstance(lost, Conflict) or (isinstance(lost, Run) and "is on its way" in str(lost.state_reason)), lost
    assert len(await engine.query("select number from releases where closed_at is null")) == 1
