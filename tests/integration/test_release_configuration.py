"""Code and configuration are released together and go back together, each pinned as it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness import configured_service, shop_service
from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.release_world import begin, deployed, quick, stands, story, succeed, until
from harness.step_context import Guarded
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound
from interlock.core.run import Run
from interlock.core.service_runtime import COMMANDS
from interlock.core.source_layout import SOURCE_LAYOUTS
from interlock.core.workload import Source
from interlock.lib.redact import Redactor
from interlock.releases.configuration_diff import configuration_diff
from interlock.services.store import InstanceStore

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "hunter2hunter2"


class Place:
    """A project folder with one service, its code and its configurations, by version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listen = f"127.0.0.1:{shop_service.free_port()}"

    def declared(self) -> dict[str, Any]:
        return {
            "kind": "service",
            "command": ["{source}/start", "{port}", "{version}", "{configuration}"],
            "source": {"folder": str(self.folder / "code/{version}")},
            "configuration": {"folder": str(self.folder / "etc/{version}")},
            "health": {"interval_seconds": 0.05, "timeout_seconds": 1.0, "deadline_seconds": 15.0},
            "stop_grace_seconds": 2.0,
            "traffic": {"listen": self.listen, "fallback": False},
            "release": quick(watch_seconds=0),
        }

    def code(self, version: str) -> None:
        folder = self.folder / "code" / version
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-S", configured_service.__file__, "--code", version]
        start = folder / "start"
        start.write_text(f'#!/bin/sh\nexec {shlex.join(words)} --port "$1" --version "$2" --configuration "$3"\n')
        start.chmod(0o755)

    def configuration(self, version: str, price: int) -> Path:
        folder = self.folder / "etc" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.json").write_text(json.dumps({"price": price}, indent=1))
        (folder / "keys.env").write_text(f"api_key={SECRET}{price}\n")
        return folder

    def answer(self) -> tuple[str, int]:
        """What users meet: code, and the price that the configuration says."""
        with urllib.request.urlopen(f"http://{self.listen}/", timeout=5) as found:
            body = json.load(found)
        return body["code"], body["price"]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        made = Place(Path(folder))
        for code in ("v1", "v2"):
            made.code(code)
        made.configuration("c1", 1)
        made.configuration("c2", 2)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, migrated: str, place: Place) -> AsyncIterator[Engine]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        locations = write_project(place.folder, "small-team", workloads={"web": place.declared()})
        async with open_engine(app, owner, locations, reconcile=True) as opened:
            try:
                yield opened
            finally:
                end_kept(locations.state_folder)


async def proposed(engine: Engine, version: str) -> tuple[str, str]:
    """The summary and the preview of the plan to release it."""
    ask = Ask(action="release.start", args={"workload": "web", "version": version})
    found = await engine.door.propose(ALICE, ask)
    return found.plan.summary, found.plan.preview or ""


async def refused(engine: Engine, version: str) -> InterlockError:
    with pytest.raises(InterlockError) as caught:
        await proposed(engine, version)
    return caught.value


async def test_the_first_version_names_both_its_code_and_its_configuration(engine: Engine, place: Place) -> None:
    for half in ("v1", "+c1"):
        assert isinstance(await refused(engine, half), Invalid)
    await deployed(engine, "v1+c1")
    assert place.answer() == ("v1", 1)


async def test_the_plan_shows_what_changes_and_no_secret(engine: Engine) -> None:
    summary, preview = await proposed(engine, "+c2")
    assert summary == "release web from v1+c1 to v1+c2"
    lines = preview.splitlines()
    assert "code          v1 stays" in lines
    assert "configuration c1 -> c2" in lines
    assert {' "price": 1', '- "price": 1', '+ "price": 2'} & set(lines) == {'- "price": 1', '+ "price": 2'}
    assert "keys.env: changed only in what is kept secret, or in how its lines end" in lines
    assert SECRET not in preview
    summary, preview = await proposed(engine, "v2")
    assert summary == "release web from v1+c1 to v2+c1"
    assert "configuration c1 stays" in preview.splitlines()


async def test_half_a_version_that_does_not_exist_is_said_before_anything_happens(engine: Engine) -> None:
    assert isinstance(await refused(engine, "+c9"), NotFound)
    assert isinstance(await refused(engine, "v9"), NotFound)


async def test_going_back_restores_code_and_configuration_together(engine: Engine, place: Place) -> None:
    """Also when the files of the configuration before were overwritten meanwhile, and its process dies after it."""
    number = await begin(engine, "v2+c2")
    await stands(engine, number, "released")
    assert place.answer() == ("v2", 2)
    place.configuration("c1", 100)
    try:
        await succeed(engine, "release.rollback", workload="web", reason="both were bad")
        await stands(engine, number, "rolled_back")
        assert place.answer() == ("v1", 1), await story(engine, number)
        store = InstanceStore(engine.database)
        found = await store.find("web", "v1+c1")
        assert found is not None
        runtime = engine.parts.catalog.action("service.start").ports.outside[COMMANDS]
        state = runtime.state(found.spec)
        assert state is not None
        assert state.pid is not None
        os.kill(state.pid, signal.SIGKILL)
        await until(lambda: (now := runtime.state(found.spec)) is not None and now.restarts > state.restarts)
        await until(lambda: _answers(place) == ("v1", 1))
    finally:
        place.configuration("c1", 1)


def _answers(place: Place) -> tuple[str, int] | None:
    try:
        return place.answer()
    except OSError:
        return None


async def test_a_configuration_that_changed_under_its_name_is_noticed(engine: Engine, place: Place) -> None:
    place.configuration("c1", 7)
    try:
        moved = await refused(engine, "v2")
        assert isinstance(moved, Conflict)
        assert moved.code == "release.part_moved"
        _, preview = await proposed(engine, "v2+c1")
        assert "configuration c1, which is not what it was" in preview.splitlines()
        assert '+ "price": 7' in preview.splitlines()
    finally:
        place.configuration("c1", 1)


async def test_another_configuration_of_the_same_code_is_released_and_taken_back(engine: Engine, place: Place) -> None:
    number = await begin(engine, "+c2")
    await stands(engine, number, "released")
    assert place.answer() == ("v1", 2)
    rows = await engine.query("select candidate, identities from releases where number = %s", number)
    assert rows[0]["candidate"] == "v1+c2"
    assert rows[0]["identities"]["v1+c2"].count("sha256:") == 2
    await succeed(engine, "release.rollback", workload="web", reason="too dear")
    await stands(engine, number, "rolled_back")
    assert place.answer() == ("v1", 1)


async def test_started_by_hand_a_version_names_both(engine: Engine) -> None:
    ask = Ask(action="service.start", args={"workload": "web", "version": "v2"}, confirmed=True)
    with pytest.raises(Invalid, match="names only one of the two"):
        await engine.door.submit(ALICE, ask)
    ask = Ask(action="service.start", args={"workload": "web", "version": "v2+c1"}, confirmed=True)
    run = await engine.door.submit(ALICE, ask)
    assert isinstance(run, Run)
    assert (await engine.rest(run.number)).state.value == "succeeded"


def _two_commits(folder: Path) -> None:
    """A repository with the tags c1 and c2."""
    git = shutil.which("git")
    assert git is not None
    inside = (git, "-C", str(folder), "-c", "user.name=alice", "-c", "user.email=alice@example.com")
    subprocess.run([git, "init", "-q", str(folder)], check=True)
    for version, price in (("c1", 1), ("c2", 2)):
        (folder / "app.json").write_text(f'{{"price": {price}}}\n')
        (folder / "logo").write_bytes(b"\xff\xfe")
        (folder / "large").write_bytes(b"x" * 200_000)
        for words in (("add", "."), ("commit", "-q", "-m", version), ("tag", version)):
            subprocess.run([*inside, *words], check=True)


async def test_a_configuration_of_git_is_read_from_its_commit_and_as_it_was_laid_out(
    engine: Engine, place: Place
) -> None:
    folder = place.folder / "settings"
    _two_commits(folder)
    layouts = engine.parts.catalog.action("service.start").ports.outside[SOURCE_LAYOUTS]
    source, name = Source(git=str(folder)), "web+configuration"
    one, two = (layouts.identify(name, version, source, "/") for version in ("c1", "c2"))
    assert one.identity.startswith("commit:")
    assert layouts.read(one) == ({"app.json": '{"price": 1}\n', "logo": r"\xff\xfe"}, 1)
    layouts.lay_out(one, Guarded())
    layouts.finish(one)
    assert layouts.read(one) == ({"app.json": '{"price": 1}\n', "logo": r"\xff\xfe"}, 1)
    shown = configuration_diff(layouts.read(one), layouts.read(two), Redactor())
    assert shown.splitlines()[-2:] == ['+{"price": 2}', "(2 files are too many or too large to be compared here)"]
