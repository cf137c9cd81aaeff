"""What every Action promises, in a world of its own: a pure plan, an effect that may be repeated or taken back."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from harness.action_worlds import WORLDS, Stage, World, new_folder, outside_servers, outside_web
from harness.batch_action_worlds import BATCH_WORLDS
from harness.databases import database
from harness.engine import ALICE, Engine, open_engine, write_project
from harness.golden_action_worlds import GOLDEN_WORLDS
from harness.guarded_database import GuardedServer, Shop, shop
from harness.kept import end_kept
from harness.release_action_worlds import RELEASE_WORLDS
from harness.web_server import web_server
from interlock.core.action import Action, StepResult
from interlock.core.ask import Ask
from interlock.core.errors import Invalid, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import RISKS, Plan, Step
from interlock.core.run import Run, RunState
from interlock.engine.catalog import find_action_classes
from interlock.engine.hold import Hold
from interlock.engine.planner import validate

ACTIONS = {cls.name: cls for cls in find_action_classes()}
WORLDS.update(RELEASE_WORLDS)
WORLDS.update(BATCH_WORLDS)
WORLDS.update(GOLDEN_WORLDS)
CASES = [(name, build) for name in ACTIONS for build in WORLDS.get(name, ())]
NAME = re.compile(r"[a-z]+\.[a-z]+(_[a-z]+)*")
WITHOUT_TRACE = {"batch.check", "golden.check", "service.restart", "sql.read", "target.hold"}
WRONG: dict[str, tuple[Any, ...]] = {
    "string": (7, True, ["x"], {"x": 1}, None),
    "integer": ("7", 7.5, True, [7], None),
    "number": ("7", [7], None),
    "boolean": ("true", 1, [], None),
    "array": ("x", 7, {"x": 1}, None),
    "object": ("x", 7, ["x"], None),
}

in_one_loop = pytest.mark.asyncio(loop_scope="module")
each_action = pytest.mark.parametrize("cls", ACTIONS.values(), ids=ACTIONS)
each_world = pytest.mark.parametrize(("name", "build"), CASES, ids=[f"{name}{build.__name__}" for name, build in CASES])
Build = Callable[[Stage], Awaitable[World]]


@pytest.fixture(scope="module")
def guarded(guarded_postgres: GuardedServer) -> Iterator[Shop]:
    """The database that `sql.*` are asked about."""
    with shop(guarded_postgres) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any, guarded: Shop) -> AsyncIterator[Engine]:
    """One for all worlds: each of them has names of its own."""
    with (
        database(postgres_endpoint) as (_, owner, app),
        web_server() as web,
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        databases = {"shop": guarded.declaration(migrations="migrations")}
        locations = write_project(
            Path(folder),
            roots={"read": ["data"], "write": ["data"]},
            databases=databases,
            services={"nightly": {"roles": ["operator"]}},
            mcp_servers=outside_servers(Path(folder)),
            http_destinations=outside_web(web),
        )
        async with open_engine(app, owner, locations) as opened:
            yield opened
        end_kept(locations.state_folder)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(engine: Engine, guarded: Shop) -> AsyncIterator[Stage]:
    """What one world orders ends with it: nobody knows what an opaque program touches, so that any freeze stops it."""
    opened = Stage(engine, new_folder(engine.parts.locations.project_folder), guarded)
    yield opened
    await asyncio.to_thread(opened.stop_versions)
    await engine.execute("update change_freeze set lifted_at = now(), lifted_by = 'test' where lifted_at is null")


async def plan_in(stage: Stage, action: Action, args: JsonObject) -> Plan:
    """The plan as the door makes it: facts in a thread, the plan from them."""
    validated = validate(action.Args, args, action.name)
    facts = await asyncio.to_thread(action.read_facts, validated)
    return action.plan(validated, await asyncio.to_thread(action.rehearse, validated, facts))


# What it is called and asked with.


@each_action
def test_it_has_a_name_one_sentence_and_an_example_that_fits(cls: type[Action]) -> None:
    assert NAME.fullmatch(cls.name)
    assert re.fullmatch(r"[A-Z][^.!?\n]*\.", cls.summary), "one sentence"
    assert validate(cls.Args, cls.example, cls.name)


@each_action
def test_its_arguments_are_frozen_and_know_no_others(cls: type[Action]) -> None:
    args = validate(cls.Args, cls.example, cls.name)
    field = next(iter(cls.Args.model_fields))
    with pytest.raises(ValidationError):
        setattr(args, field, getattr(args, field))
    with pytest.raises(Invalid) as caught:
        validate(cls.Args, {**cls.example, "unheard_of": 1}, cls.name)
    assert "unheard_of" in caught.value.message
    assert caught.value.fix


@each_action
def test_an_argument_of_another_type_is_refused_rather_than_made_to_fit(cls: type[Action]) -> None:
    tried = 0
    for field, schema in cls.Args.model_json_schema()["properties"].items():
        options = schema.get("anyOf", [schema])
        types = {"object" if "$ref" in option else option.get("type") for option in options}
        for wrong in WRONG[next(name for name in WRONG if name in types)]:
            if wrong is None and "null" in types:
                continue
            with pytest.raises(Invalid):
                validate(cls.Args, {**cls.example, field: wrong}, cls.name)
            tried += 1
    assert tried


def test_every_action_has_a_world() -> None:
    assert set(WORLDS) == set(ACTIONS), "add a world to tests/harness/action_worlds.py"


# What it plans.


class Forbidden(threading.local):
    """While it is on in this thread, whatever reaches outside raises."""

    on = False


FORBIDDEN = Forbidden()
OUTSIDE = ("open", "socket.", "subprocess.", "os.", "shutil.", "tempfile.", "glob.", "urllib.", "sqlite3.", "ctypes.")


def _watch(event: str, args: tuple[object, ...]) -> None:
    if FORBIDDEN.on and event.startswith(OUTSIDE):
        msg = f"plan reached outside: {event} {args!r:.200}"
        raise AssertionError(msg)


sys.addaudithook(_watch)


@contextmanager
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files, processes, sockets, file names and clocks are out of reach."""

    def refuse(*_: object, **__: object) -> Any:
        msg = "plan looked outside"
        raise AssertionError(msg)

    with monkeypatch.context() as patch:
        for module, name in ((os, "stat"), (os, "lstat"), (os, "readlink"), (os, "getcwd"), (time, "time")):
            patch.setattr(module, name, refuse)
        FORBIDDEN.on = True
        try:
            yield
        finally:
            FORBIDDEN.on = False


def test_the_watch_over_plans_sees_a_file_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="reached outside"), nothing_outside(monkeypatch):
        Path("/etc/hostname").read_text()
    with pytest.raises(AssertionError, match="looked outside"), nothing_outside(monkeypatch):
        os.path.realpath("/etc/hostname")


@in_one_loop
@each_world
async def test_the_plan_comes_from_arguments_and_facts_alone(
    stage: Stage, name: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = stage.engine.parts.catalog.action(name)
    args = validate(action.Args, (await build(stage)).args, name)
    facts = await asyncio.to_thread(action.read_facts, args)
    first = action.plan(args, facts)
    with nothing_outside(monkeypatch):
        second = action.plan(args, facts)
    assert second.digest == first.digest
    assert Plan.model_validate_json(first.model_dump_json()).digest == first.digest, "it survives being kept"


@in_one_loop
@each_world
async def test_another_world_gives_another_digest(stage: Stage, name: str, build: Build) -> None:
    action, world = stage.engine.parts.catalog.action(name), await build(stage)
    first = await plan_in(stage, action, world.args)
    assert (await plan_in(stage, action, world.args)).digest == first.digest
    if world.disturb is not None:
        world.disturb()
        assert (await plan_in(stage, action, world.args)).digest != first.digest


@in_one_loop
@each_world
async def test_every_step_says_what_it_touches_how_bad_it_is_and_whether_it_can_be_taken_back(
    stage: Stage, name: str, build: Build
) -> None:
    plan = await plan_in(stage, stage.engine.parts.catalog.action(name), (await build(stage)).args)
    assert plan.action == name
    assert plan.summary
    for step in (*plan.steps, *(step.undo for step in plan.steps if step.undo is not None)):
        assert step.summary
        assert step.risk in RISKS
        assert 0 < step.timeout_seconds <= 24 * 3600
        assert step.targets or not step.changes
        assert step.operations or not step.changes
        assert step.risk != "none" or not step.changes
    for step in plan.steps:
        assert step.undo is not None or step.irreversible or not step.changes
        assert not (step.opaque and step.risk != "high")


OF_WORKLOADS = [case for case in CASES if "workload" in ACTIONS[case[0]].Args.model_fields]


@in_one_loop
@pytest.mark.parametrize(
    ("name", "build"), OF_WORKLOADS, ids=[f"{name}{build.__name__}" for name, build in OF_WORKLOADS]
)
async def test_whatever_is_done_to_a_workload_touches_it_by_the_name_that_protects_it(
    stage: Stage, name: str, build: Build
) -> None:
    args = (await build(stage)).args
    plan = await plan_in(stage, stage.engine.parts.catalog.action(name), args)
    changes = [step for step in plan.steps if step.changes]
    for step in (*changes, *(step.undo for step in changes if step.undo is not None)):
        assert f"workload:{args['workload']}" in {
            known for target in step.targets for known in (target.key, *target.names)
        }


# What it does.


def live_context(stage: Stage, run: Run, attempt: int = 2, *, ended: bool = False) -> Any:
    """A context as the engine gives it, for a step of this Run."""

    async def note(_: JsonObject) -> None:
        return

    hold = Hold(run, time.monotonic() + 60, stage.engine.parts.clock)
    if ended:
        hold.end()
    return stage.engine.runner._services.contexts.make(hold, 0, attempt, note)


async def is_taken_back(stage: Stage, number: int) -> None:
    undo = await stage.engine.interventions.undo(ALICE, number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await stage.engine.rest(undo.number)).state is RunState.SUCCEEDED


@in_one_loop
@each_world
async def test_what_can_be_repeated_changes_nothing_more_and_what_can_be_undone_is_as_it_was(
    stage: Stage, name: str, build: Build
) -> None:
    action, world = stage.engine.parts.catalog.action(name), await build(stage)
    before = await stage.snapshot()
    run = await stage.perform(name, world.args, world)
    assert run.state is RunState.SUCCEEDED, run.state_reason
    after = await stage.snapshot()
    assert (before != after) is (name not in WITHOUT_TRACE), "the world of this action shows its effect"
    for step in run.plan.steps:
        if step.repeatable:
            again = await asyncio.to_thread(action.perform, step, live_context(stage, run))
            assert again.ok
            assert (await asyncio.to_thread(action.check, step, live_context(stage, run))).ok
    assert await stage.snapshot() == after
    if run.plan.undoable and run.plan.changes:
        await is_taken_back(stage, run.number)
        assert await stage.snapshot() == before
    else:
        with pytest.raises(Invalid, match="cannot be taken back" if run.plan.changes else "changed nothing"):
            await stage.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert (await stage.engine.verify()).intact


@in_one_loop
@each_world
async def test_whoever_lost_the_run_does_nothing(stage: Stage, name: str, build: Build) -> None:
    action, world = stage.engine.parts.catalog.action(name), await build(stage)
    plan = await plan_in(stage, action, world.args)
    some_run = await stage.engine.run()
    before = await stage.snapshot()
    for step in plan.steps:
        with pytest.raises(Transient) as caught:
            await asyncio.to_thread(action.perform, step, live_context(stage, some_run, ended=True))
        assert caught.value.effect_sent is False
    assert await stage.snapshot() == before


@in_one_loop
@each_world
@pytest.mark.parametrize("at", ["perform", "check"])
async def test_failing_after_the_effect_leaves_nothing_behind_or_says_so(
    stage: Stage, name: str, build: Build, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await build(stage)
    before = await stage.snapshot()
    _let_first_call_fail(type(stage.engine.parts.catalog.action(name)), at, monkeypatch)
    run = await stage.perform(name, world.args, world)
    after = await stage.snapshot()
    assert run.state in {RunState.UNDONE, RunState.FAILED, RunState.UNRESOLVED}, run.state_reason
    if not run.plan.changes:
        assert (run.state, after) == (RunState.FAILED, before)
    elif run.plan.undoable:
        assert (run.state, after) == (RunState.UNDONE, before)
    else:
        assert all(step.undo is not None or step.irreversible for step in run.plan.steps if step.changes)
        assert run.state is RunState.UNRESOLVED or all(step.repeatable for step in run.plan.steps) or after == before


def _let_first_call_fail(cls: type[Action], at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first `perform` has its effect and raises; or the first `check` finds the world wrong."""
    honest = getattr(cls, at)
    called = iter([True])

    def fail_once(self: Action, step: Step, context: Any) -> StepResult:
        result: StepResult = honest(self, step, context)
        if not next(called, False):
            return result
        if at == "check":
            return StepResult(ok=False, summary="as told: not as it should be")
        msg = "as told: it failed after its effect"
        raise Permanent(msg)

    monkeypatch.setattr(cls, at, fail_once)
