"""Interlock is killed in the middle of a report's trial and of its invocation; nothing half done is ever published."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.resident import Resident, resident

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SLOW = """
import os, pathlib, sys, time
out, gate = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
(out / "half.csv").write_text("id,n\\n")
(pathlib.Path(os.environ["HOME"]) / "pid").write_text(str(os.getpid()))
while gate.exists():
    time.sleep(0.02)
(out / "half.csv").unlink()
(out / "r.csv").write_text("id,n\\n" + "".join(f"{n},VALUE\\n" for n in range(500)))
"""


class Reports:
    """A resident with a report whose versions wait for as long as the gate is there."""

    def __init__(self, made: Resident) -> None:
        self.made = made
        self.project = made.folder / "project"
        self.gate = made.data / "gate"
        self.folder = made.state_folder / "releases" / "batch" / "report"
        for version, value in (("v1", "1"), ("v2", "1"), ("v3", "2")):
            place = self.project / "versions" / version
            place.mkdir(parents=True)
            (place / "report.py").write_text(f"# {version}\n" + SLOW.replace("VALUE", value))

    def submit(self, action: str, wait: float = 60.0, **args: Any) -> dict[str, Any]:
        return self.made.submit(action, wait=wait, workload="report", **args)

    def pid(self, part: str) -> int:
        """The process of a trial or an invocation that is waiting at the gate."""
        found: list[Path] = []

        def there() -> bool:
            found[:] = [path for path in (self.folder / "work").glob(f"*/{part}/*/pid") if path.read_text()]
            return bool(found)

        self.made.until(there)
        return int(found[0].read_text())

    def run(self, number: int) -> dict[str, Any]:
        run: dict[str, Any] = self.made.view("run", run=number)
        return run

    @property
    def published(self) -> str:
        return (self.project / "out" / "r.csv").read_text()


@pytest.fixture
def reports(postgres_endpoint: Any) -> Iterator[Reports]:
    workload = {
        "kind": "batch",
        "command": [sys.executable, "-I", "-S", "{source}/report.py", "{output}", "data/gate"],
        "source": {"folder": "versions/{version}"},
        "output": "out",
        "comparison": {"keys": ["id"], "key_fields": ["n"]},
    }
    with resident(postgres_endpoint, "permissive", workloads={"report": workload}) as made:
        found = Reports(made)
        text = (found.project / "interlock.yaml").read_text()
        (found.project / "interlock.yaml").write_text(text.replace("data/gate", str(found.gate)))
        made.start()
        assert found.submit("batch.cutover", version="v1", percent=100.0)["state"] == "succeeded"
        yield found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_trial_that_broke_off_is_tried_again_and_leaves_nothing(reports: Reports) -> None:
    reports.gate.touch()
    number = reports.submit("batch.shadow", wait=0, version="v2")["number"]
    pid = reports.pid("stable")
    reports.made.kill()
    reports.made.until(lambda: gone(pid))
    reports.gate.unlink()
    reports.made.start()
    reports.made.until(lambda: reports.run(number)["state"] == "succeeded")
    (found,) = reports.made.view("batches", workload="report")["batches"]
    assert [each["verdict"] for each in found["comparisons"]] == ["go"]
    assert list((reports.folder / "work").iterdir()) == []


def test_an_invocation_that_broke_off_publishes_nothing_and_waits_for_a_person(reports: Reports) -> None:
    assert reports.submit("batch.run")["state"] == "succeeded"
    before = reports.published
    assert reports.submit("batch.cutover", version="v3", percent=100.0, unproven=True)["state"] == "succeeded"
    reports.gate.touch()
    number = reports.submit("batch.run", wait=0)["number"]
    pid = reports.pid("first")
    reports.made.kill()
    reports.made.until(lambda: gone(pid))
    reports.gate.unlink()
    reports.made.start()
    reports.made.until(lambda: reports.run(number)["state"] == "unresolved")
    assert reports.published == before
    reports.made.ask("resolve", run=number, resolution="repeat", reason="nothing was published")
    reports.made.until(lambda: reports.run(number)["state"] == "succeeded")
    assert "0,2\n" in reports.published
    assert list((reports.folder / "work").iterdir()) == []


def test_a_rollback_waits_for_no_invocation_and_what_that_writes_is_not_published(reports: Reports) -> None:
    assert reports.submit("batch.cutover", version="v3", percent=100.0, unproven=True)["state"] == "succeeded"
    reports.gate.touch()
    number = reports.submit("batch.run", wait=0)["number"]
    reports.pid("first")
    assert reports.submit("batch.rollback", wait=20, reason="at once")["state"] == "succeeded"
    reports.gate.unlink()
    reports.made.until(lambda: reports.run(number)["state"] == "succeeded")
    (found,) = reports.made.view("batches", workload="report")["batches"]
    assert found["routing"]["stable"].startswith("v1 ")
    assert found["invocations"][0]["words"].startswith("v3 was rolled back while it ran; v1 did it instead")
    assert "0,1\n" in reports.published
