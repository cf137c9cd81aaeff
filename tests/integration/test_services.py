"""Versions of a real service: started beside each other, probed, stopped, restarted, and found wrong when they are."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import py_compile
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.shop_service import control, free_port
from interlock.adapters.health_probe import HttpProbe
from interlock.bootstrap.kept import own_keeper
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, InterlockError, Invalid, NotFound
from interlock.core.project import Project
from interlock.core.run import Run, RunState
from interlock.core.workload import ServiceWorkload
from interlock.lib.clock import SystemClock
from interlock.services.inspection import inspect_workloads
from interlock.services.keeping import STOPPED_KEPT, ServiceKeeping
from interlock.services.store import InstanceStore
from interlock.services.views import ServiceLogArgs, ServiceLogView, ServicesArgs, ServicesView

SHOP = Path(__file__).resolve().parents[1] / "harness" / "shop_service.py"
pytestmark = pytest.mark.asyncio(loop_scope="module")
COMMAND = [sys.executable, "-S", "{source}/shop.py", "--port", "{port}", "--version", "{version}"]
NUMBERS = itertools.count(1)
HEALTH = {"interval_seconds": 0.05, "timeout_seconds": 2, "deadline_seconds": 8}


class Stage:
    """An engine and a workload of its own, whose versions are folders with a shop in each."""

    def __init__(self, engine: Engine, name: str = "web") -> None:
        self.engine, self.name = engine, name
        self.project = engine.parts.locations.project_folder
        self.keeper = own_keeper(engine.parts.locations.state_folder, SystemClock())
        self.store = InstanceStore(engine.database)
        self.outside = engine.parts.catalog.action("service.start").ports.outside
        self.redactor = engine.parts.catalog.action("service.start").ports.redactor
        self.keeping = ServiceKeeping(self.store, self.outside, engine.parts.project, SystemClock())
        self.listen = free_port()

    def declare(self, *arguments: str, name: str | None = None, **more: Any) -> None:
        """Put the workload in force."""
        made = {
            "command": [*COMMAND, *arguments],
            "source": {"folder": f"{self.name}/{{version}}"},
            "stop_grace_seconds": 2,
            "health": HEALTH,
            "traffic": {"listen": f"127.0.0.1:{self.listen}"},
            **more,
        }
        source = self.engine.parts.project
        workloads = {**source.current.workloads, name or self.name: ServiceWorkload.model_validate(made)}
        source.current = source.current.model_copy(update={"workloads": workloads})

    def version(self, name: str) -> Path:
        folder = self.project / self.name / name
        folder.mkdir(parents=True)
        shutil.copyfile(SHOP, folder / "shop.py")
        return folder

    async def do(self, action: str, /, **args: Any) -> Run:
        run = await self.engine.door.submit(
            ALICE, Ask(action=action, args={"workload": self.name, **args}, confirmed=True)
        )
        assert isinstance(run, Run)
        return await self.engine.rest(run.number, 60)

    async def undo(self, run: Run) -> None:
        ask = Ask(action="interlock.undo", args={"run": run.number}, confirmed=True)
        taken_back = await self.engine.interventions.undo(ALICE, run.number, ask)
        assert isinstance(taken_back, Run)
        rested = await self.engine.rest(taken_back.number, 60)
        assert rested.state is RunState.SUCCEEDED, rested.state_reason

    async def start(self, version: str = "v1", **args: Any) -> Run:
        return await self.do("service.start", version=version, **args)

    async def shown(self, **args: Any) -> list[dict[str, Any]]:
        view = ServicesView(self.store, self.outside)
        found = await view.read(ALICE, ServicesArgs(workload=self.name, **args))
        return found["services"]  # type: ignore[return-value]

    async def evidence(self, run: int) -> list[dict[str, Any]]:
        return await self.engine.query("select line from evidence where run = %s order by seq", run)

    async def port(self, version: str) -> int:
        found = await self.store.find(self.name, version)
        assert found is not None
        return found.spec.port

    async def events(self) -> list[str]:
        rows = await self.engine.query(
            "select kind from event where starts_with(kind, 'service.') and labels ->> 'workload' = %s order by id",
            self.name,
        )
        return [row["kind"] for row in rows]

    async def troubles(self) -> list[InterlockError]:
        await self.keeping.compare()
        return [each for each in self.keeping.troubles if each.message.startswith(f"{self.name}@")]

    def project_now(self) -> Project:
        return self.engine.parts.project()

    def kept(self) -> list[str]:
        return [each.process.name for each in self.keeper.states() if each.process.name.startswith(f"{self.name}@")]

    async def end(self, *, proxies: bool = False) -> None:
        names = [each.process.name for each in self.keeper.states()] if proxies else self.kept()
        for name in names:
            await asyncio.to_thread(self.keeper.stop, name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(migrated: str, postgres_endpoint: Any) -> AsyncIterator[Engine]:
    """One for all tests: each of them has a workload of its own."""
    with (
        database(postgres_endpoint, template=migrated) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        async with open_engine(app, owner, write_project(Path(folder))) as opened:
            yield opened
            await Stage(opened).end(proxies=True)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(engine: Engine) -> AsyncIterator[Stage]:
    opened = Stage(engine, f"web{next(NUMBERS)}")
    opened.declare()
    opened.version("v1")
    yield opened
    await opened.end()


async def test_two_versions_run_beside_each_other_until_one_is_stopped(stage: Stage) -> None:
    stage.version("v2")
    for name in ("v1", "v2"):
        run = await stage.start(name)
        assert run.state is RunState.SUCCEEDED, run.state_reason
    shown = {each["version"]: each for each in await stage.shown()}
    assert {name: (each["stage"], each["phase"]) for name, each in shown.items()} == {
        "v1": ("running", "running"),
        "v2": ("running", "running"),
    }
    assert shown["v1"]["identity"] == shown["v2"]["identity"]
    ports = [await stage.port(name) for name in ("v1", "v2")]
    answers = [await asyncio.to_thread(control, port) for port in ports]
    assert [answer["version"] for answer in answers] == ["v1", "v2"]
    assert [answer["pid"] for answer in answers] == [shown[name]["pid"] for name in ("v1", "v2")]
    stopped = await stage.do("service.stop", version="v1")
    assert stopped.state is RunState.SUCCEEDED, stopped.state_reason
    assert [each["version"] for each in await stage.shown()] == ["v2"]
    assert HttpProbe(SystemClock()).is_free(ports[0])
    assert await stage.events() == ["service.running", "service.running", "service.stopped"]


async def test_starting_what_runs_changes_nothing(stage: Stage) -> None:
    await stage.start()
    before = await asyncio.to_thread(control, await stage.port("v1"))
    again = await stage.start()
    assert again.state is RunState.SUCCEEDED
    assert not again.plan.undoable
    assert (await asyncio.to_thread(control, await stage.port("v1")))["pid"] == before["pid"]


async def test_a_start_is_undone_by_a_stop_and_a_stop_by_a_start_from_the_same_files(stage: Stage) -> None:
    started = await stage.start()
    await stage.undo(started)
    assert stage.kept() == []
    await stage.start()
    stopped = await stage.do("service.stop", version="v1")
    assert stage.kept() == []
    await stage.undo(stopped)
    (shown,) = await stage.shown()
    assert (shown["phase"], shown["identity"]) == ("running", started.plan.facts["identity"])


async def test_a_version_that_never_becomes_healthy_leaves_nothing_behind(stage: Stage) -> None:
    stage.declare("--no-healthy", health={**HEALTH, "deadline_seconds": 0.5})
    run = await stage.start()
    assert run.state is RunState.UNDONE
    assert "answers 503" in (run.state_reason or "")
    assert stage.kept() == []
    (shown,) = await stage.shown(state="all")
    assert (shown["stage"], "answers 503" in shown["reason"]) == ("failed", True)
    assert await stage.events() == ["service.failed"]


async def test_a_version_that_ends_at_once_is_not_waited_for(stage: Stage) -> None:
    stage.declare("--refuse-to-start", health={**HEALTH, "deadline_seconds": 60})
    run = await stage.start()
    assert run.state is RunState.UNDONE
    assert "exit 3" in (run.state_reason or "")
    assert stage.kept() == []


async def test_what_a_version_said_last_stands_where_its_failure_does(stage: Stage) -> None:
    script = "for n in $(seq 20); do echo line $n; done; echo password=hunter2hunter2; echo boom >&2; exit 3"
    stage.declare(command=["/bin/sh", "-c", script], health={**HEALTH, "deadline_seconds": 60})
    run = await stage.start()
    assert run.state is RunState.UNDONE
    reason = run.state_reason or ""
    assert "it said last: boom" in reason
    assert f"interlock service log {stage.name} v1" in reason
    evidence = str(await stage.evidence(run.number))
    assert "line 20" in evidence
    assert "hunter2hunter2" not in evidence
    view = ServiceLogView(stage.store, stage.outside, stage.redactor)
    found = await view.read(ALICE, ServiceLogArgs(workload=stage.name, version="v1", lines=3))
    lines = found["lines"]
    assert isinstance(lines, list)
    assert (len(lines), lines[-1]) == (3, "boom")
    assert "hunter2hunter2" not in str(found)
    with pytest.raises(NotFound):
        await view.read(ALICE, ServiceLogArgs(workload=stage.name, version="v9"))


async def test_what_a_build_said_last_stands_where_its_failure_does(stage: Stage) -> None:
    stage.declare(build=[["/bin/sh", "-c", "echo no rule to make target; exit 2"]])
    run = await stage.start()
    assert run.state is not RunState.SUCCEEDED
    assert "ended with 2; it said last: no rule to make target" in (run.state_reason or "")


async def test_a_version_is_not_healthy_because_somebody_else_answers_at_its_port(stage: Stage) -> None:
    told = stage.project / f"{stage.name}.port"
    script = f"import pathlib, sys, time; pathlib.Path({str(told)!r}).write_text(sys.argv[1]); time.sleep(600)"
    stage.declare(command=[sys.executable, "-S", "-c", script, "{port}"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    starting = asyncio.create_task(stage.start())
    async with asyncio.timeout(20):
        while not (told.exists() and told.read_text()):  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)
    async with await asyncio.start_server(answer, "127.0.0.1", int(told.read_text())):
        run = await starting
    assert run.state is RunState.UNDONE
    assert "something else answers" in (run.state_reason or "")
    assert stage.kept() == []


async def test_what_python_left_behind_beside_a_version_is_not_run(stage: Stage) -> None:
    folder = stage.project / stage.name / "v1"
    (folder / "shop.py").rename(folder / "real.py")
    (folder / "shop.py").write_text("import real\nreal.main()\n")
    planted = stage.project / "planted.py"
    planted.write_text("def main():\n    raise SystemExit(9)\n")
    cache = importlib.util.cache_from_source(str(folder / "real.py"))
    py_compile.compile(str(planted), cache, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    run = await stage.start()
    assert run.state is RunState.SUCCEEDED, run.state_reason
    (shown,) = await stage.shown()
    assert sorted(os.listdir(shown["source"])) == ["real.py", "shop.py"]  # noqa: PTH208 - in a coroutine


async def test_a_restart_runs_the_files_that_were_started(stage: Stage) -> None:
    assert (await stage.start()).state is RunState.SUCCEEDED
    (stage.project / stage.name / "v1" / "shop.py").write_text("raise SystemExit(9)\n")
    run = await stage.do("service.restart")
    assert run.state is RunState.SUCCEEDED, run.state_reason


async def test_a_version_with_a_link_that_leads_out_of_it_is_refused(stage: Stage) -> None:
    (stage.project / stage.name / "v1" / "more.py").symlink_to(SHOP)
    with pytest.raises(Invalid, match=r"more\.py leads out") as caught:
        await stage.start()
    assert caught.value.code == "source.link"


async def test_a_version_that_starts_slowly_is_waited_for(stage: Stage) -> None:
    stage.declare("--start-seconds", "0.6")
    run = await stage.start()
    assert run.state is RunState.SUCCEEDED, run.state_reason


async def test_a_build_comes_first_and_in_a_folder_of_its_own(stage: Stage) -> None:
    stage.declare(build=[["sh", "-c", "echo built >> built.txt; test ! -e stop"]])
    origin = stage.project / stage.name / "v1"
    run = await stage.start()
    assert run.state is RunState.SUCCEEDED, run.state_reason
    (shown,) = await stage.shown()
    source = Path(shown["source"])
    assert source.parent == stage.engine.parts.locations.state_folder / "workloads" / stage.name
    assert (source / "built.txt").read_text() == "built\n"
    assert not (origin / "built.txt").exists()
    await stage.start()
    assert (source / "built.txt").read_text() == "built\n", "it is built once"
    (stage.version("v2") / "stop").touch()
    failed = await stage.start("v2")
    assert failed.state in {RunState.FAILED, RunState.UNDONE}
    assert "build" in (failed.state_reason or "")
    assert [each["version"] for each in await stage.shown(state="all")] == ["v1"]


async def test_files_of_versions_that_nobody_needs_are_let_go_and_those_of_others_are_not(stage: Stage) -> None:
    stage.declare(build=[["true"]], health={**HEALTH, "successes": 1})
    names = ["v1", *(f"v{number}" for number in range(2, STOPPED_KEPT + 3))]
    for name in names:
        if name != "v1":
            (stage.version(name) / "which").write_text(name)
        assert (await stage.start(name)).state is RunState.SUCCEEDED
    for name in names[1:]:
        await stage.do("service.stop", version=name)
    workloads = stage.engine.parts.locations.state_folder / "workloads"
    report = workloads / "report" / "v1-0123456789ab"
    report.mkdir(parents=True)
    sources = {each["version"]: Path(each["source"]) for each in await stage.shown(state="all")}
    for folder in (report, *sources.values()):
        os.utime(folder, (1, 1))
    await stage.keeping.let_go()
    assert {name for name, source in sources.items() if not source.exists()} == {"v2"}
    assert report.exists()


async def test_a_version_of_a_repository_is_pinned_to_its_commit(stage: Stage) -> None:
    repository = stage.project / "repo"
    repository.mkdir()
    shutil.copyfile(SHOP, repository / "shop.py")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "-a", "v1", "-m", "first")
    # What a repository brings with it is not run: neither a filter nor a hook.
    for key in ("filter.x.smudge", "tar.tar.command", "core.fsmonitor"):
        git("config", key, f"touch {stage.project}/ran")
    (repository / ".git" / "info" / "attributes").write_text("* filter=x\n")
    stage.declare(source={"git": "repo"})
    run = await stage.start()
    assert run.state is RunState.SUCCEEDED, run.state_reason
    (shown,) = await stage.shown()
    assert shown["identity"] == f"commit:{git('rev-parse', 'v1^{commit}')}"
    assert not (stage.project / "ran").exists()
    (repository / "more").touch()
    git("add", ".")
    git("commit", "-qm", "second")
    git("tag", "-f", "v1")
    with pytest.raises(Conflict) as caught:
        await stage.start()
    assert caught.value.code == "service.other_files"
    with pytest.raises(NotFound):
        await stage.start("v9")


async def test_files_that_changed_under_a_version_that_runs_are_noticed(stage: Stage) -> None:
    first = await stage.start()
    (stage.project / stage.name / "v1" / "more.py").write_text("more = 1\n")
    with pytest.raises(Conflict) as caught:
        await stage.start()
    assert caught.value.code == "service.other_files"
    await stage.do("service.stop", version="v1")
    second = await stage.start()
    assert second.state is RunState.SUCCEEDED, second.state_reason
    assert second.plan.facts["before"] == first.plan.facts["identity"] != second.plan.facts["identity"]
    assert "NOTE" in (second.plan.preview or "")
    with pytest.raises(Conflict) as moved:
        await stage.start(identity=str(first.plan.facts["identity"]))
    assert moved.value.code == "service.moved"


async def test_a_version_that_users_have_is_not_stopped_but_by_the_word_of_somebody_who_knows(stage: Stage) -> None:
    await stage.start()
    routed = await stage.do("traffic.route", shares={"v1": 10_000})
    assert routed.state is RunState.SUCCEEDED, routed.state_reason
    through = await asyncio.to_thread(control, stage.listen)
    assert through["version"] == "v1"
    with pytest.raises(Conflict) as caught:
        await stage.do("service.stop", version="v1")
    assert caught.value.code == "service.in_use"
    stopped = await stage.do("service.stop", version="v1", even_if_used=True)
    assert stopped.state is RunState.SUCCEEDED, stopped.state_reason
    assert stopped.plan.risk == "high"
    await stage.do("traffic.forget")


async def test_a_start_whose_version_users_got_meanwhile_is_not_taken_back(stage: Stage) -> None:
    started = await stage.start()
    await stage.do("traffic.route", shares={"v1": 10_000})
    ask = Ask(action="interlock.undo", args={"run": started.number}, confirmed=True)
    undo = await stage.engine.interventions.undo(ALICE, started.number, ask)
    assert isinstance(undo, Run)
    assert (await stage.engine.rest(undo.number, 60)).state is not RunState.SUCCEEDED
    assert (await asyncio.to_thread(control, stage.listen))["version"] == "v1"
    await stage.do("traffic.forget")


async def test_nothing_is_started_in_the_name_of_a_release_that_is_none(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.start(release=4711)


async def test_a_restart_restarts_all_versions_one_after_the_other(stage: Stage) -> None:
    stage.version("v2")
    for name in ("v1", "v2"):
        await stage.start(name)
    before = {each["version"]: each["pid"] for each in await stage.shown()}
    run = await stage.do("service.restart")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert [step.summary.split(",")[0] for step in run.plan.steps] == [
        f"restart {stage.name} {name}" for name in ("v1", "v2")
    ]
    after = {each["version"]: each["pid"] for each in await stage.shown()}
    assert all(after[name] not in {None, before[name]} for name in before)
    with pytest.raises(NotFound):
        await stage.do("service.restart", version="v3")


async def test_a_version_goes_on_when_the_engine_ends_and_the_next_one_finds_it(
    open_apart: Callable[..., Any],
) -> None:
    async with open_apart() as engine:
        first = Stage(engine)
        first.declare()
        first.version("v1")
        await first.start()
        (before,) = await first.shown()
    assert control(int(before["address"].rpartition(":")[2]))["pid"] == before["pid"]
    async with open_apart() as engine:
        second = Stage(engine)
        second.declare()  # with another address for users, which is nothing to a version
        (after,) = await second.shown()
        assert (after["pid"], after["phase"]) == (before["pid"], "running")
        again = await second.start()
        assert again.state is RunState.SUCCEEDED
        assert (await second.do("service.stop", version="v1")).state is RunState.SUCCEEDED


async def test_what_should_run_and_does_not_is_a_trouble_until_it_runs_again(stage: Stage) -> None:
    await stage.start()
    assert await stage.troubles() == []
    (shown,) = await stage.shown()
    await stage.end()
    (trouble,) = await stage.troubles()
    assert isinstance(trouble, InterlockError)
    assert trouble.code == "service.down"
    assert "service start" in (trouble.fix or "")
    assert (await stage.start()).state is RunState.SUCCEEDED
    assert await stage.troubles() == []
    assert shown["address"] == (await stage.shown())[0]["address"]


async def test_what_runs_without_a_record_is_a_trouble_and_can_be_stopped(stage: Stage) -> None:
    """An older database was restored, say."""
    await stage.start()
    await stage.engine.execute("delete from service_instance where workload = %s", stage.name)
    (trouble,) = await stage.troubles()
    assert trouble.code == "service.unrecorded"
    stopped = await stage.do("service.stop", version="v1")
    assert (stopped.state, stopped.plan.undoable) == (RunState.SUCCEEDED, False), stopped.state_reason
    assert stage.kept() == []
    assert await stage.troubles() == []
    assert (await stage.start()).state is RunState.SUCCEEDED


async def test_a_keeper_that_was_killed_is_started_again_on_a_timer(stage: Stage) -> None:
    await stage.start()
    (shown,) = await stage.shown()
    holder = stage.keeper._keeper_of(f"{stage.name}@v1")
    assert holder is not None
    with os.fdopen(os.pidfd_open(holder.pid)) as ended:
        os.kill(holder.pid, signal.SIGKILL)
        select.select([ended], [], [], 10)
    await stage.keeping.revive()
    found = stage.keeper._keeper_of(f"{stage.name}@v1")
    assert found is not None
    assert found.pid != holder.pid
    assert (await stage.shown())[0]["pid"] == shown["pid"]


async def test_a_service_that_is_not_declared_or_was_never_started_is_refused(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.do("service.start", workload="shop", version="v1")
    with pytest.raises(NotFound):
        await stage.do("service.stop", version="v1")
    with pytest.raises(NotFound):
        await stage.start("v7")


async def test_check_says_what_would_keep_a_version_from_starting(stage: Stage) -> None:
    port = stage.listen
    stage.declare(name="a-same", traffic={"listen": f"0.0.0.0:{port}"})
    stage.declare(name="b-nowhere", source={"folder": "/nowhere/{version}"}, traffic={"listen": "127.0.0.1:1"})
    stage.declare(name="c-history", source={"git": stage.name}, traffic={"listen": "127.0.0.1:2"})
    stage.declare(name="d-nothing", command=["no-such-program", "{port}"], traffic={"listen": "127.0.0.1:3"})
    stage.declare(name="e-deaf", command=["sleep", "9"], traffic={"listen": "127.0.0.1:4"})
    found = [(each["level"], str(each["message"])) for each in inspect_workloads(stage.project_now(), stage.outside)]
    said = [
        (level, message)
        for level, message in found
        if "a-same" in message or message[10:12] in {"b-", "c-", "d-", "e-"}
    ]
    assert [level for level, _ in said] == ["error"] * 4 + ["warning"], said
    assert f"workloads.{stage.name} and workloads.a-same both listen" in said[0][1]
    assert "/nowhere" in said[1][1]
    assert "no-such-program" in said[3][1]
    assert "PORT" in said[4][1]
