"""Gates and golden samples end a release before anybody has its version, and say by name what was wrong."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import ReleaseWorld, ask, begin, deployed, quick, stands, story, succeed, until, words
from harness.shop_service import control
from interlock.core.errors import Denied, NotFound
from interlock.core.run import Run, RunState
from interlock.services.store import InstanceStore

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "api_key=hunter2hunter2"
TESTS = f"""
import sys
name = sys.argv[1]
print("looked at", name)
if name == "untested":
    print("AssertionError: 2 != 3, with {SECRET}")
    sys.exit(4)
if name == "endless":
    sys.stdin.close()
    import time
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def world() -> Iterator[ReleaseWorld]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        made = ReleaseWorld(Path(folder))
        (made.folder / "tests.py").write_text(TESTS)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, world: ReleaseWorld) -> AsyncIterator[Engine]:
    """`gated` has gates, `web` golden samples."""
    tests = {"name": "tests", "command": [sys.executable, "-S", str(world.folder / "tests.py"), "{version}"]}
    gates = [{**tests, "timeout_seconds": 2.0}, {"name": "security", "command": ["/bin/sh", "-c", "test -x ./start"]}]
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        workloads = {
            "gated": world.declare("gated", release=quick(gates=gates)),
            "web": world.declare("web", release=quick(watch_seconds=0), comparison={"key_fields": ["$.price"]}),
            "report": {
                "kind": "batch",
                "command": ["/bin/cp", "{source}/rows.csv", "{output}/rows.csv"],
                "source": {"folder": str(world.folder / "report" / "{version}")},
                "comparison": {"keys": ["id"], "key_fields": ["n"]},
                "release": {"gates": [copy.deepcopy(tests)]},
            },
        }
        locations = write_project(world.folder, "small-team", workloads=workloads)
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                yield opened
            finally:
                end_kept(locations.state_folder)


async def report_of(engine: Engine, number: int, name: str = "rollback_report.md") -> str:
    """As it lies in the release's folder."""
    path = engine.parts.locations.state_folder / "releases" / str(number) / name
    await until(path.exists)
    return path.read_text(encoding="utf-8")


async def test_a_version_whose_gates_pass_is_released_and_its_report_names_them(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("v1", name="gated")
    number = await deployed(engine, "v1", "gated")
    assert "gates" in await words(engine, number)
    text = await report_of(engine, number, "release_report.md")
    assert "| gate tests | GO | passed after" in text
    assert "| gate security | GO | passed after" in text
    assert "| golden samples | open | none was asked for |" in text


async def test_a_gate_that_fails_ends_the_release_before_anything_was_started(
    engine: Engine, world: ReleaseWorld
) -> None:
    world.version("untested", name="gated")
    number = await begin(engine, "untested", "gated")
    row = await stands(engine, number, "failed")
    assert row["cause"] == "gate", await story(engine, number)
    assert "the gate tests failed after" in row["reason"]
    assert await InstanceStore(engine.database).find("gated", "untested") is None
    text = await report_of(engine, number)
    assert "| gate tests | **NO-GO** | failed after" in text
    assert "with exit code 4" in text
    assert "| gate security | open | was not run:" in text
    assert "## What the gate tests said last" in text
    assert "    AssertionError: 2 != 3" in text
    assert "hunter2" not in text
    lines = await engine.query("select text, data from release_timeline where release = %s", number)
    assert "hunter2" not in json.dumps(lines)


async def test_a_gate_that_does_not_end_is_ended(engine: Engine, world: ReleaseWorld) -> None:
    world.version("endless", name="gated")
    number = await begin(engine, "endless", "gated")
    row = await stands(engine, number, "failed")
    assert row["cause"] == "gate"
    assert "it took too long" in row["reason"]


async def test_started_by_hand_a_version_passes_no_gate(engine: Engine) -> None:
    await succeed(engine, "service.start", workload="gated", version="untested")
    await succeed(engine, "service.stop", workload="gated", version="untested")


async def test_a_version_that_answers_what_was_accepted_passes(engine: Engine, world: ReleaseWorld) -> None:
    world.version("v1")
    world.version("v2")
    await deployed(engine, "v1")
    with pytest.raises(NotFound, match="has no golden sample"):
        await ask(engine, "golden.check", workload="web")
    for item in ("7", "12"):
        args = {"name": f"item-{item}", "path": f"/items/{item}", "reason": "as in the price list"}
        await succeed(engine, "golden.accept", workload="web", **args)
    await succeed(engine, "golden.check", workload="web")
    number = await begin(engine, "v2")
    await stands(engine, number, "released")
    text = await report_of(engine, number, "release_report.md")
    assert "| golden samples | GO | 2 golden samples answered as accepted |" in text
    assert "| gates | open | none declared |" in text


async def test_a_version_that_answers_otherwise_ends_before_anybody_has_it(engine: Engine, world: ReleaseWorld) -> None:
    world.version("dear", "--wrong-field", "price")
    with world.users() as users:
        number = await begin(engine, "dear")
        row = await stands(engine, number, "failed")
    assert row["cause"] == "gate", await story(engine, number)
    assert "2 of 2 golden samples not answered as accepted: item-12: $.price was" in row["reason"]
    assert users.of("dear") == 0
    assert users.failed == 0
    assert await words(engine, number) == ["started", "golden", "going_back", "failed"]
    (line,) = await engine.query("select data from release_timeline where release = %s and word = 'golden'", number)
    assert [each["fields"] for each in line["data"]["differing"]] == [["$.price"], ["$.price"]]
    assert "| golden samples | **NO-GO** | 2 of 2 golden samples not answered" in await report_of(engine, number)


async def test_a_version_that_is_checked_by_hand_is_told_what_differs(engine: Engine) -> None:
    found = await InstanceStore(engine.database).find("web", "v2")
    assert found is not None
    control(found.spec.port, wrong_field="price")
    run = await ask(engine, "golden.check", workload="web")
    assert run.state is RunState.FAILED
    assert "$.price was" in str(run.state_reason)
    await succeed(engine, "golden.remove", workload="web", name="item-7")
    await succeed(engine, "golden.accept", workload="web", name="item-12", path="/items/12", reason="prices rose")
    await succeed(engine, "golden.check", workload="web")


async def test_an_error_is_accepted_by_nobody(engine: Engine) -> None:
    found = await InstanceStore(engine.database).find("web", "v2")
    assert found is not None
    control(found.spec.port, error_percent=100.0)
    run = await ask(engine, "golden.accept", workload="web", name="closed", path="/items/1", reason="as told")
    run = await _confirmed(engine, run.number)
    assert run.state is RunState.FAILED
    assert "answers 500" in str(run.state_reason)


async def test_a_report_that_fails_a_gate_is_stopped_in_shadow_and_gets_no_share(
    engine: Engine, world: ReleaseWorld
) -> None:
    rows = "id,n\n" + "".join(f"{n},{n}\n" for n in range(600))
    for version in ("v1", "v2", "untested"):
        folder = world.folder / "report" / version
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text(rows)
        (folder / "name").write_text(version)
    await succeed(engine, "batch.cutover", workload="report", version="v1", percent=100.0)
    run = await succeed(engine, "batch.shadow", workload="report", version="untested")
    (found,) = await engine.query("select document from batch_comparison where run = %s", run.number)
    assert found["document"]["verdict"] == "no_go"
    (gate,) = found["document"]["gates"]
    assert (gate["name"], gate["ok"]) == ("tests", False)
    summary = _summary(Path(found["document"]["folder"]))
    assert "AssertionError: 2 != 3" in summary
    assert "hunter2" not in summary
    with pytest.raises(Denied, match="the gate tests failed"):
        await ask(engine, "batch.cutover", workload="report", version="untested", percent=20.0)
    await succeed(engine, "batch.shadow", workload="report", version="v2")
    run = await succeed(engine, "batch.cutover", workload="report", version="v2", percent=20.0)
    assert "gate tests      go       passed after" in (run.plan.preview or "")


def _summary(folder: Path) -> str:
    return (folder / "summary.md").read_text(encoding="utf-8")


async def _confirmed(engine: Engine, number: int) -> Run:
    run = await engine.rest(number)
    if run.state is RunState.WAITING:
        await engine.approvals.decide(ALICE, number, verdict=True, reason="yes, really")
        run = await engine.rest(number)
    return run
