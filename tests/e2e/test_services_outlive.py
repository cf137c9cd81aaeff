"""A real resident process starts a real service, is stopped and killed at every moment, and the service goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from harness.kept import end_kept
from harness.resident import Resident, resident
from harness.shop_service import control, free_port

SHOP = Path(__file__).resolve().parents[1] / "harness" / "shop_service.py"


@pytest.fixture
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    workload = {
        "kind": "service",
        "command": [sys.executable, "-S", "{source}/shop.py", "--port", "{port}", "--version", "{version}"],
        "source": {"folder": "versions/{version}"},
        "stop_grace_seconds": 2,
        "health": {"interval_seconds": 0.05},
        "traffic": {"listen": f"127.0.0.1:{free_port()}"},
    }
    with resident(postgres_endpoint, "permissive", workloads={"web": workload}) as made:
        for version in ("v1", "v2"):
            folder = made.folder / "project" / "versions" / version
            folder.mkdir(parents=True)
            shutil.copyfile(SHOP, folder / "shop.py")
        yield made.start()
        made.stop()  # first, so that it does not start again what is ended next
        end_kept(made.state_folder)


def start(made: Resident, version: str) -> int:
    run = made.submit("service.start", workload="web", version=version)
    assert run["state"] == "succeeded", run
    return port(made, version)


def services(made: Resident) -> dict[str, dict[str, Any]]:
    return {each["version"]: each for each in made.view("services", workload="web")["services"]}


def port(made: Resident, version: str) -> int:
    return int(services(made)[version]["address"].rpartition(":")[2])


def answers(where: int) -> bool:
    try:
        return "pid" in control(where)
    except OSError:
        return False


class Callers:
    """Users who come all the time; `failed` counts whom nobody answered."""

    def __init__(self, where: int) -> None:
        self._where, self._done = where, threading.Event()
        self.asked, self.failed = 0, 0
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        while not self._done.wait(0.005):
            self.asked += 1
            self.failed += not answers(self._where)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_a_service_goes_on_while_interlock_is_stopped_killed_and_started_again(served: Resident) -> None:
    where = start(served, "v1")
    before = control(where)["pid"]
    with Callers(where) as callers:
        stopped = served.run("stop", "--output", "json")
        assert json.loads(stopped.stdout)["data"]["kept"] == ["web@v1"]
        assert served.process is not None
        served.process.wait(30)
        served.process = None
        assert "web@v1" in served.run("doctor").stdout
        served.start()
        assert services(served)["v1"]["pid"] == before
        served.kill()
        served.start()
        assert (services(served)["v1"]["pid"], services(served)["v1"]["phase"]) == (before, "running")
        assert callers.asked > 0
        assert callers.failed == 0
    assert served.submit("service.stop", workload="web", version="v1")["state"] == "succeeded"
    assert services(served) == {}


def test_a_start_that_the_control_plane_did_not_survive_is_finished_and_done_once(served: Resident) -> None:
    file = served.folder / "project" / "interlock.yaml"
    body = yaml.safe_load(file.read_text())
    body["workloads"]["web"]["command"] += ["--start-seconds", "2"]
    file.write_text(yaml.safe_dump(body))
    served.ask("reload")
    number = served.submit("service.start", wait=0, workload="web", version="v1")["number"]
    log = served.state_folder / "kept" / "web@v1" / "log"
    served.until(lambda: log.exists() and "listens" in log.read_text())
    served.kill()
    served.start()
    served.until(lambda: served.view("run", run=number)["state"] == "succeeded")
    found = services(served)
    assert (found["v1"]["stage"], found["v1"]["restarts"]) == ("running", 0)
    assert log.read_text().count("listens") == 1, "it was started once"


def test_a_machine_that_was_started_anew_has_its_services_again(served: Resident) -> None:
    """Keepers and services are gone, as after a power cut; the files and the database are there."""
    start(served, "v1")
    before = services(served)["v1"]["pid"]
    served.kill()
    lock = served.state_folder / "kept" / "web@v1" / "lock"
    keepers = [
        int(place.parent.parent.name)
        for place in Path("/proc").glob("[0-9]*/fd/*")
        if place.is_symlink() and _leads_to(place, lock)
    ]
    for pid in (*keepers, before):
        os.kill(pid, signal.SIGKILL)
    served.start()
    served.until(lambda: services(served)["v1"]["phase"] == "running" and services(served)["v1"]["pid"] != before)
    served.until(lambda: answers(port(served, "v1")))


def _leads_to(place: Path, file: Path) -> bool:
    try:
        return place.readlink() == file
    except OSError:
        return False
