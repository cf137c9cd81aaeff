"""The control plane is killed at chance moments of starts, restarts and stops: there is never a twin, nor a ghost."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engine import random_of
from harness.kept import end_kept
from harness.resident import Resident, resident
from harness.shop_service import control, free_port
from interlock.adapters.keeper_tree import look_at_all, marked

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
SHOP = Path(__file__).resolve().parents[1] / "harness" / "shop_service.py"
ROUNDS = 3
DONE = {"succeeded", "undone", "failed"}


@pytest.fixture
def served(postgres_endpoint: Any) -> Iterator[Resident]:
    workload = {
        "kind": "service",
        "command": [sys.executable, "-S", "{source}/shop.py", "--port", "{port}", "--version", "{version}"],
        "source": {"folder": "versions/{version}"},
        "build": [["sh", "-c", "sleep 0.1; echo built > built"]],
        "stop_grace_seconds": 2,
        "health": {"interval_seconds": 0.05, "deadline_seconds": 30},
        "traffic": {"listen": f"127.0.0.1:{free_port()}"},
    }
    with resident(postgres_endpoint, "permissive", workloads={"web": workload}) as made:
        yield made.start()
        made.stop()
        end_kept(made.state_folder)


def running(made: Resident) -> int:
    """How many processes of the version there are, whoever knows of them."""
    mark = made.state_folder / "kept" / "mark"
    if not mark.exists():
        return 0
    found = marked(mark.read_bytes() + b":web@v1", look_at_all())
    return sum(each.alive for each in found)


def done(made: Resident, number: int) -> str:
    """The state in which a Run came to rest, whoever finished it."""
    state: list[str] = []

    def look() -> bool:
        state[:] = [str(made.view("run", run=number)["state"])]
        return state[0] not in {"queued", "running"}

    made.until(look)
    return state[0]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_wherever_it_is_killed_a_version_that_stands_runs_once_and_no_other_does(served: Resident, seed: int) -> None:
    chance = random_of(seed)
    folder = served.folder / "project" / "versions" / "v1"
    folder.mkdir(parents=True)
    shutil.copyfile(SHOP, folder / "shop.py")
    for action in ("service.start", "service.restart", "service.stop"):
        run = served.submit(action, wait=0, workload="web", version="v1")["number"]
        time.sleep(chance.random() * 0.6)
        served.kill()
        served.start()
        assert done(served, run) in DONE, action
        shown = served.view("services", workload="web")["services"]
        if action == "service.stop":
            assert (shown, running(served)) == ([], 0)
            continue
        served.until(lambda: running(served) == 1)
        assert [each["stage"] for each in shown] == ["running"]
        assert control(int(shown[0]["address"].rpartition(":")[2]))["version"] == "v1"
