"""Interlock is killed in every phase of a release: users notice nothing, and the release goes on or goes back, once."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from harness.kept import end_kept
from harness.release_world import OVER, ReleaseWorld, Users, quick
from harness.resident import Resident, resident
from harness.shop_service import control
from interlock.bootstrap import embedded_server
from interlock.core.errors import Transient
from interlock.settings import Locations

POLL_SECONDS = 0.002
PHASES = ("preparing", "canary", "watching")


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        made = ReleaseWorld(Path(folder))
        made.version("v1")
        yield made


@pytest.fixture(scope="module")
def served(postgres_endpoint: Any, world: ReleaseWorld) -> Iterator[Resident]:
    workload = world.declare(release=quick(50, hold=2.0))
    with resident(postgres_endpoint, workloads={"web": workload}) as made:
        made.start()
        try:
            first = made.run("deploy", "web", "v1", "--confirm")
            assert first.returncode == 0, first.stdout + first.stderr
            yield made
        finally:
            if made.process is not None:
                made.stop()
            end_kept(made.state_folder)


def query(served: Resident, text: str) -> list[dict[str, Any]]:
    """Past Interlock, which may be dead."""
    url = served.environment["INTERLOCK_DATABASE_OWNER_URL"]
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(text.encode()).fetchall()


def newest(served: Resident) -> dict[str, Any]:
    return query(served, "select number, state, epoch, settled, cause from releases order by number desc limit 1")[0]


def until_state(served: Resident, *states: str, seconds: float = 60.0) -> dict[str, Any]:
    """The newest release once it stands at one of these."""
    url = served.environment["INTERLOCK_DATABASE_OWNER_URL"]
    end = time.monotonic() + seconds
    statement = b"select number, state, epoch, settled, cause from releases order by number desc limit 1"
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        while True:
            row: dict[str, Any] | None = connection.execute(statement).fetchone()
            if row is not None and row["state"] in states:
                return row
            assert time.monotonic() < end, (row, story(served))
            time.sleep(POLL_SECONDS)


def story(served: Resident) -> str:
    lines = query(served, "select at, word, text, run from release_timeline order by id desc limit 20")
    return "\n".join(f"{line['at']:%H:%M:%S.%f} {line['word']}: {line['text']}" for line in reversed(lines))


def settled(served: Resident, users: Users) -> None:
    """One truth: the proxy has what the newest release wants, nothing was done twice, nobody noticed."""
    assert users.failed == 0, (users.answers, story(served))
    routes = query(
        served,
        "select key, count(*) as n from run where action = 'traffic.route' and state = 'succeeded' group by key",
    )
    assert all(each["n"] == 1 for each in routes)
    assert query(served, "select number from releases where closed_at is null") == []
    assert query(served, "select * from run where state in ('running', 'unresolved', 'queued')") == []


@pytest.mark.parametrize("phase", PHASES)
def test_a_release_goes_on_where_interlock_was_killed(served: Resident, world: ReleaseWorld, phase: str) -> None:
    version = f"to-{phase}"
    world.version(version)
    with world.users(per_second=60) as users:
        assert served.run("release", "start", "web", version, "--confirm").returncode == 0
        until_state(served, phase)
        served.kill()
        seen = users.total
        served.until(lambda: users.total > seen + 20)
        served.start()
        row = until_state(served, *OVER)
    assert row["state"] == "released", story(served)
    settled(served, users)
    (traffic,) = served.view("traffic", workload="web")["traffic"]
    assert {arm["version"]: arm["share_percent"] for arm in traffic["arms"]}[version] == 100.0


def test_a_release_goes_back_although_interlock_was_killed_meanwhile(served: Resident, world: ReleaseWorld) -> None:
    world.version("bad")
    served.submit("release.start", workload="web", version="bad")
    until_state(served, "canary")
    (instance,) = query(served, "select address from service_instance where version = 'bad'")
    with world.users(per_second=100, threads=4) as users:
        served.until(lambda: users.of("bad") > 3)
        control(int(instance["address"].rpartition(":")[2]), error_percent=100)
        until_state(served, "going_back", "rolled_back")
        served.kill()
        served.start()
        row = until_state(served, *OVER)
        failed, seen = users.failed, users.total
        served.until(lambda: users.total > seen + 50)
        assert users.failed == failed, "nobody has it any more"
    assert (row["state"], row["cause"]) == ("rolled_back", "red_line"), story(served)
    assert query(served, "select number from releases where closed_at is null") == []


def test_a_bad_version_goes_back_once_interlock_is_there_again(served: Resident, world: ReleaseWorld) -> None:
    """It turned bad while nobody watched."""
    world.version("worse")
    served.submit("release.start", workload="web", version="worse")
    until_state(served, "canary")
    (instance,) = query(served, "select address from service_instance where version = 'worse'")
    served.kill()
    with world.users(per_second=100, threads=4):
        control(int(instance["address"].rpartition(":")[2]), error_percent=100)
        served.start()
        row = until_state(served, *OVER)
    assert (row["state"], row["cause"]) == ("rolled_back", "red_line"), story(served)


def test_a_bad_version_goes_back_although_the_database_was_killed(world: ReleaseWorld) -> None:
    """On an embedded database of its own, which Interlock starts again; users are served meanwhile."""
    workload = world.declare("alone", release=quick(50, hold=600.0))
    for version in ("v1", "v2"):
        world.version(version, name="alone")
    with resident(None, workloads={"alone": workload}) as made:
        locations = Locations(made.folder / "project" / "interlock.yaml", made.state_folder, made.folder / "run")
        server = embedded_server(locations, lambda _: None)
        made.start()
        try:
            first = made.run("deploy", "alone", "v1", "--confirm")
            assert first.returncode == 0, first.stdout + first.stderr
            made.submit("release.start", workload="alone", version="v2")
            made.until(lambda: _shown(made)["percent"] == 50.0 and _shown(made)["settled"])
            pid = server.postmaster_pid
            assert pid is not None
            with world.users("alone", per_second=100, threads=4) as users:
                made.until(lambda: users.of("v2") > 3)
                os.kill(pid, signal.SIGKILL)
                seen = users.total
                made.until(lambda: users.total > seen + 20)
                assert users.failed == 0
                control(_port(made, "v2"), error_percent=100)
                made.until(lambda: _over(made))
                shown = _shown(made)
                failed, seen = users.failed, users.total
                made.until(lambda: users.total > seen + 50)
                assert users.failed == failed
            assert (shown["state"], shown["cause"]) == ("rolled_back", "red_line"), shown
        finally:
            made.stop()
            end_kept(made.state_folder)
            server.remove()


def _shown(made: Resident) -> dict[str, Any]:
    found: dict[str, Any] = made.view("releases", workload="alone")["releases"][0]
    return found


def _over(made: Resident) -> bool:
    """The database may be away while it is asked."""
    try:
        return bool(_shown(made)["over"])
    except Transient:
        return False


def _port(made: Resident, version: str) -> int:
    while True:
        try:
            arms = made.view("traffic", workload="alone")["traffic"][0]["arms"]
        except Transient:
            continue
        return int(next(arm["address"] for arm in arms if arm["version"] == version).rpartition(":")[2])
