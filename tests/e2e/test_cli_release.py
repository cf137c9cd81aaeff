"""Releases from the command line: planned, deployed, followed, looked at, taken back; exit codes say how it went."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.kept import end_kept
from harness.release_world import ReleaseWorld, quick
from harness.resident import Resident, resident


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        made = ReleaseWorld(Path(folder))
        made.version("v1")
        made.version("v2")
        made.version("v3", "--error-percent", "100")
        yield made


@pytest.fixture(scope="module")
def served(postgres_endpoint: Any, world: ReleaseWorld) -> Iterator[Resident]:
    workload = world.declare(release=quick(20, hold=1.0))
    with resident(postgres_endpoint, workloads={"web": workload}) as made:
        made.start()
        try:
            yield made
        finally:
            made.stop()
            end_kept(made.state_folder)


def test_the_plan_reads_like_something_a_person_would_approve(served: Resident) -> None:
    done = served.run("release", "plan", "web", "v1")
    assert done.returncode == 0, done.stderr
    for words in ("nothing", "v1  sha256:", "health", "way back", "none: there is no version before"):
        assert words in done.stdout, done.stdout
    assert served.run("deploy", "web", "v1").returncode == 8, "nothing is done before somebody confirms it"


def test_versions_are_deployed_followed_and_taken_back(served: Resident, world: ReleaseWorld) -> None:
    first = served.run("deploy", "web", "v1", "--confirm")
    assert first.returncode == 0, first.stdout + first.stderr
    with world.users(per_second=60) as users:
        second = served.run("deploy", "web", "v2", "--confirm")
        assert second.returncode == 0, second.stdout + second.stderr
        assert "step 1 of 1, 20 % of users" in second.stdout
        assert "all users have v2" in second.stdout
        back = served.run("rollback", "web", "--reason", "customers cannot check out")
        assert back.returncode == 0, back.stdout + back.stderr
        assert "from v1 to v2" not in back.stdout, "only what is new"
        assert "customers cannot check out" in back.stdout
    assert users.failed == 0, users.answers
    shown = served.run("release", "status", "web")
    assert "was rolled back" in shown.stdout
    assert served.run("release", "status").stdout.count("→") == 2
    compared = served.run("release", "compare", "web")
    assert "error rate" in compared.stdout
    assert "P95" in compared.stdout


def test_a_bad_version_ends_with_a_code_that_scripts_understand(served: Resident, world: ReleaseWorld) -> None:
    with world.users(per_second=60):
        done = served.run("deploy", "web", "v3", "--confirm", "--output", "json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["status"]) == (1, False, "rolled_back"), done.stdout
    assert answer["data"]["release"]["cause"] in {"red_line", "judge"}
    report = served.run("release", "report", "web")
    assert "ROLLED BACK" in report.stdout
    assert served.run("rollback", "web").returncode == 5, "nothing is left to take back"
    assert served.run("release", "pause", "web").returncode == 3
    assert served.run("release", "watch", "nosuch").returncode == 3


def test_whoever_follows_a_release_goes_on_over_a_restart(served: Resident, world: ReleaseWorld) -> None:
    world.version("v4")
    with world.users(per_second=60):
        following = subprocess.Popen(
            served.command("deploy", "web", "v4", "--confirm"),
            env=served.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        served.until(lambda: served.view("releases", workload="web")["releases"][0]["state"] == "canary")
        served.kill()
        told, _ = following.communicate(timeout=60)  # whoever follows starts another one
    assert served.run("stop").returncode == 0
    served.start()
    assert following.returncode == 0, told
    assert told.count("all users have v4") == 1


def test_whoever_stops_following_is_told_that_the_release_goes_on(served: Resident, world: ReleaseWorld) -> None:
    world.version("v5")
    with world.users(per_second=60):
        following = subprocess.Popen(
            served.command("deploy", "web", "v5", "--confirm"),
            env=served.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert following.stdout is not None
        said = following.stdout.readline()
        while said and "from v4 to v5" not in said:
            said = following.stdout.readline()
        following.send_signal(signal.SIGINT)
        told, _ = following.communicate(timeout=30)
        assert following.returncode == 130, told
        assert "of web goes on" in told
        assert "interlock release abort web" in told
        assert served.run("release", "abort", "web").returncode == 0
        assert served.run("release", "watch", "web").returncode == 1


def test_how_workloads_stand_is_told_on_the_front_page_and_of_each(served: Resident) -> None:
    told = served.run("release", "status", "--output", "json")
    web = json.loads(told.stdout)["data"]["workloads"][0]
    assert (web["workload"], web["kind"]) == ("web", "service")
    assert web["in_force"] is not None
    assert web["last_release"] is not None
    front = served.run("status")
    assert web["in_force"] in front.stdout.partition("In force")[2].partition("Last")[0], front.stdout
    unknown = served.run("release", "status", "nope")
    assert unknown.returncode == 3, unknown.stdout + unknown.stderr


def test_a_run_that_began_a_release_says_what_became_of_it(served: Resident) -> None:
    newest = json.loads(served.run("release", "status", "--output", "json").stdout)["data"]["releases"][0]
    words = f"release {newest['number']} "
    assert words in served.run("show", str(newest["run"])).stdout
    assert words in served.run("why", str(newest["run"])).stdout
    undone = served.run("undo", str(newest["run"]))
    assert "→ interlock rollback web" in undone.stderr, undone.stderr


def test_a_broken_interlock_yaml_is_told_before_anything_is_planned(served: Resident) -> None:
    file = served.folder / "project" / "interlock.yaml"
    sound = file.read_text()
    try:
        file.write_text(sound + "nonsense: 1\n")
        told = served.run("release", "plan", "web", "v1")
        assert "interlock.yaml is not sound" in told.stderr, told.stdout + told.stderr
        assert "unknown key `nonsense`" in told.stderr
    finally:
        file.write_text(sound)
    assert "interlock.yaml" not in served.run("release", "plan", "web", "v2").stderr
