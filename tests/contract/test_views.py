"""What every View promises: strict arguments, an answer that is JSON, and nothing for whom policy refuses it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, CAROL, CLAUDE, SERVICE, Engine, open_engine, write_project
from interlock.core.actor import Actor
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.plan import DISCLOSURES
from interlock.core.service_runtime import VersionSpec
from interlock.core.view import View
from interlock.core.workload import ServiceWorkload, Source, Traffic
from interlock.engine.planner import validate
from interlock.engine.rooms import find_rooms

POLICY = """
@id("everything")
@reason("people and services may do everything")
@risk("none")
permit (principal, action, resource);

@id("agents-see-nothing")
@reason("this agent may look at nothing of Interlock's own")
@risk("low")
@effect("forbid")
forbid (principal is Agent, action == Action::"view", resource is View);
"""


def _all_views(cls: type[View] = View) -> Iterator[type[View]]:
    """Every View there is, wherever it is written."""
    for sub in cls.__subclasses__():
        if hasattr(sub, "name"):
            yield sub
        yield from _all_views(sub)


find_rooms()  # which imports them
VIEWS = {cls.name: cls for cls in sorted(_all_views(), key=lambda each: each.name)}
RIGHT: dict[str, tuple[JsonObject, ...]] = {
    "actions": ({}, {"name": "file.write"}),
    "actors": ({},),
    "batch_report": ({"workload": "report"},),
    "batches": ({}, {"workload": "report"}),
    "evidence": ({"run": 1}, {"run": 2}, {"run": 3}),
    "freezes": ({},),
    "golden": ({"workload": "web"},),
    "health": ({},),
    "judge": ({"judge": "checkout", "session": "7d9"}, {"judge": "checkout", "session": "7d9", "purpose": "look"}),
    "judges": ({}, {"judge": "checkout", "limit": 1}),
    "metrics": ({},),
    "pending": ({},),
    "hosts": ({},),
    "outside_tools": ({},),
    "people": ({},),
    "release_compare": ({"workload": "web"}, {"workload": "web", "release": 1}),
    "release_report": ({"workload": "web"}, {"workload": "web", "release": 1}),
    "release_timeline": ({"release": 1}, {"release": 1, "after": 1}),
    "releases": ({}, {"workload": "web"}, {"release": 1}),
    "run": ({"run": 1}, {"run": 2}, {"run": 3}),
    "runs": ({}, {"state": "open"}, {"state": "succeeded", "limit": 1}, {"actor": "person:alice", "before": 2}),
    "schedule_preview": ({"name": "nightly"},),
    "schedules": ({}, {"name": "nightly", "limit": 1}),
    "service_log": ({"workload": "web", "version": "v1"}, {"workload": "web", "version": "v1", "lines": 1}),
    "services": ({}, {"workload": "web", "state": "all"}),
    "status": ({},),
    "tokens": ({}, {"actor": "service:nightly", "state": "all"}),
    "traffic": ({},),
    "views": ({},),
    "why": ({"run": 1}, {"run": 2}, {"run": 3}),
}
JUDGE: JsonObject = {
    "stable": {"destination": "old"},
    "candidate": {"destination": "new"},
    "requests": "requests_total",
    "errors": "errors_total",
}
in_one_loop = pytest.mark.asyncio(loop_scope="module")
each_view = pytest.mark.parametrize("name", VIEWS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(postgres_endpoint: Any) -> AsyncIterator[Engine]:
    """One with a Run that succeeded, one that failed, one that nobody understands, and an order that stands."""
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        schedule = {"action": "file.write", "cron": "15 2 * * *", "timezone": "Asia/Shanghai", "as": "nightly"}
        locations = write_project(
            Path(folder),
            POLICY,
            people={"alice": {}, "carol": {}},
            agents={"claude": {}},
            services={"nightly": {"roles": ["operator"]}},
            schedules={"nightly": schedule},
            judges={"checkout": JUDGE},
            workloads={"report": {"kind": "batch", "command": ["/bin/true"], "source": {"folder": "/srv/{version}"}}},
        )
        async with open_engine(app, owner, locations) as opened:
            await opened.run({"target": "a"})
            await opened.run({"do": {"outcome": "permanent", "error": "as told"}, "repeatable": True})
            await opened.run({"do": {"outcome": "bug"}, "target": "b"})
            await _release(opened)
            await _version(opened)
            await opened.control.set_freeze(
                1,
                "person:alice",
                {
                    "scope": "targets",
                    "pattern": "unit:*",
                    "reason": "a release",
                    "minutes": None,
                },
            )
            yield opened


async def _release(engine: Engine) -> None:
    """One that was rolled back a while ago."""
    spec = ServiceWorkload(
        command=("/srv/web",), source=Source(folder="/srv/{version}"), traffic=Traffic(listen="127.0.0.1:8080")
    )
    await engine.execute(
        """insert into releases (name, kind, state, stable, candidate, spec, salt, started_by, run, step, reason,
               cause, created_at, state_at, looked_at, closed_at)
           values ('web', 'service', 'rolled_back', 'v1', 'v2', %s, 'r1', 'person:alice', 1, 1, 'too many errors',
               'judge', now(), now(), now(), now())""",
        spec.model_dump_json(),
    )
    await engine.execute(
        "insert into release_timeline (release, at, word, text) values (1, now(), 'started', 'from v1 to v2')"
    )


async def _version(engine: Engine) -> None:
    """One that was stopped a while ago."""
    spec = VersionSpec(
        workload="web",
        version="v1",
        declared=ServiceWorkload(
            command=("/srv/web",), source=Source(folder="/srv/{version}"), traffic=Traffic(listen="127.0.0.1:8080")
        ),
        identity=f"sha256:{'0' * 64}",
        port=20_000,
    )
    await engine.execute(
        """insert into service_instance (workload, version, identity, spec, port, stage, address, run, started_at)
           values ('web', 'v1', 'sha256:0', %s, 20000, 'stopped', '127.0.0.1:20000', 1, now())""",
        spec.model_dump_json(),
    )


def test_the_installation_offers_exactly_the_views_there_are(engine: Engine) -> None:
    assert set(engine.parts.views.views) == set(VIEWS) == set(RIGHT), "add arguments to RIGHT above"


@each_view
def test_it_has_a_name_a_sentence_and_says_what_it_discloses(name: str) -> None:
    cls = VIEWS[name]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert re.fullmatch(r"[A-Z][^!?\n]*\.", cls.summary)
    assert cls.discloses in DISCLOSURES


@each_view
def test_its_arguments_are_strict(name: str) -> None:
    cls = VIEWS[name]
    with pytest.raises(Invalid):
        validate(cls.Args, {**RIGHT[name][0], "unheard_of": 1}, name)
    for field in cls.Args.model_fields:
        for wrong in ([7], {"x": 1}, True, 7.5, "x" * 10_000):
            with pytest.raises(Invalid):
                validate(cls.Args, {**RIGHT[name][0], field: wrong}, name)


@in_one_loop
@each_view
async def test_its_answer_is_json_for_everybody_who_may_ask(engine: Engine, name: str) -> None:
    view = engine.parts.views
    for args in RIGHT[name]:
        for actor in (ALICE, CAROL, SERVICE):
            answer = await view.read(actor, name, validate(VIEWS[name].Args, args, name))
            assert json.loads(json.dumps(answer, allow_nan=False)) == answer


@in_one_loop
@each_view
async def test_whoever_policy_refuses_is_told_so_and_nothing_else(engine: Engine, name: str) -> None:
    view = engine.parts.views
    for actor in (CLAUDE, Actor(kind="agent", name="somebody-else")):
        with pytest.raises(Denied) as caught:
            await view.read(actor, name, validate(VIEWS[name].Args, RIGHT[name][0], name))
        assert "this agent may look at nothing" in caught.value.message
        assert caught.value.fix


@in_one_loop
@pytest.mark.parametrize("name", [name for name, cls in VIEWS.items() if "run" in cls.Args.model_fields])
async def test_a_run_that_is_none_is_not_found(engine: Engine, name: str) -> None:
    for number in (4_000, 2**31, 2**63 - 1, 2**63, 10**30):
        with pytest.raises((NotFound, Invalid)):
            await engine.parts.views.read(ALICE, name, validate(VIEWS[name].Args, {"run": number}, name))
