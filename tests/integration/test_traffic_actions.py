"""traffic.route and traffic.forget through the door, with a real Envoy: who is sent where, in whose name, and back."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, BOB, CLAUDE, Engine, open_engine, write_project
from harness.kept import end_kept
from harness.stand_in_service import StandIn, ask, free_port, stand_in, until
from interlock.core.action import Ports
from interlock.core.actor import SYSTEM
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Stale
from interlock.core.model import JsonObject
from interlock.core.release import RELEASES, ReleaseRecord
from interlock.core.run import Run, RunState
from interlock.core.service_instance import SERVICE_INSTANCES, InstanceStage, ServiceInstance
from interlock.core.service_runtime import VersionSpec
from interlock.core.traffic import ENVOY, WHOLE, DataPlane
from interlock.core.workload import ServiceWorkload
from interlock.traffic.views import TrafficArgs, TrafficView

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@dataclass
class KnownVersions:
    """What the services room would know of versions: where each listens, and how it fares."""

    engine: Engine
    stages: dict[str, tuple[str, InstanceStage]] = field(default_factory=dict)

    def find(self, workload: str, version: str) -> ServiceInstance | None:
        if version not in self.stages:
            return None
        address, stage = self.stages[version]
        declared = self.engine.parts.project().workloads[workload]
        spec = VersionSpec.model_validate(
            {"workload": workload, "version": version, "declared": declared, "identity": "sha256:0000000", "port": 1}
        )
        now = self.engine.parts.clock.now()
        return ServiceInstance(
            spec=spec,
            stage=stage,
            address=address,
            run=1,
            release=None,
            reason=None,
            started_at=now,
            healthy_at=now,
            stopped_at=None,
        )

    def of(self, workload: str) -> tuple[ServiceInstance, ...]:
        return tuple(found for name in self.stages if (found := self.find(workload, name)) is not None)


class KnownReleases:
    """One release of web from v1 to v2, which covers just the shares that it wants."""

    def __init__(self) -> None:
        self.state: Any = "canary"
        self.wants: dict[str, int] = {}
        self.approved: ServiceWorkload | None = None

    def release(self, number: int) -> ReleaseRecord:
        if number != 7:
            msg = f"there is no release {number}"
            raise NotFound(msg)
        return ReleaseRecord(number=7, workload="web", state=self.state, stable="v1", candidate="v2")

    def require(self, number: int, workload: str, *, versions: tuple[str, ...], shares: Any = None) -> ReleaseRecord:
        found = self.release(number)
        if workload != "web" or not {*versions} <= {"v1", "v2"} or shares != self.wants:
            msg = "not covered"
            raise Denied(msg, code="release.uncovered")
        return found

    def declared(self, number: int) -> ServiceWorkload:
        assert self.approved is not None
        return self.approved

    def active(self, workload: str) -> ReleaseRecord | None:
        return self.release(7)

    def revocable(self, workload: str) -> ReleaseRecord | None:
        return self.release(7)


@dataclass
class Site:
    """An engine under the preset small-team, three versions of a service, and a port where users come."""

    engine: Engine
    port: int
    versions: dict[str, StandIn]
    known: KnownVersions
    releases: KnownReleases

    @property
    def plane(self) -> DataPlane:
        return self.ports.outside[ENVOY]

    @property
    def ports(self) -> Ports:
        return self.engine.parts.catalog.action("traffic.route").ports

    async def route(self, actor: Any = ALICE, *, action: str = "traffic.route", **args: Any) -> Run:
        ask = Ask(action=action, args={"workload": "web", **args}, confirmed=True)
        run = await self.engine.door.submit(actor, ask)
        assert isinstance(run, Run)
        if run.state in (RunState.QUEUED, RunState.RUNNING):
            run = await self.engine.rest(run.number)
        return run

    async def routed(self, **shares: int) -> Run:
        run = await self.route(shares=shares)
        assert run.state is RunState.SUCCEEDED, run.state_reason
        return run

    def versions_seen(self) -> set[str]:
        return {ask(self.port).version for _ in range(30)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(postgres_endpoint: Any) -> AsyncIterator[Site]:
    with (
        database(postgres_endpoint) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
        stand_in("v1") as one,
        stand_in("v2") as two,
        stand_in("v3") as three,
    ):
        port = free_port()
        service = {"kind": "service", "command": ["/bin/true"], "source": {"folder": "/srv/{version}"}}
        workloads = {
            "web": {**service, "traffic": {"listen": f"127.0.0.1:{port}"}},
            "report": {"kind": "batch", "command": ["/bin/true"], "source": {"folder": "/srv/{version}"}},
        }
        locations = write_project(Path(folder), "small-team", workloads=workloads)
        async with open_engine(app, owner, locations, reconcile=True) as engine:
            versions = {service.name: service for service in (one, two, three)}
            known, releases = KnownVersions(engine), KnownReleases()
            site = Site(engine, port, versions, known, releases)
            releases.approved = ServiceWorkload.model_validate(workloads["web"])
            systems = site.ports.outside._systems
            systems[SERVICE_INSTANCES], systems[RELEASES] = known, releases
            yield site
        end_kept(locations.state_folder)


@pytest_asyncio.fixture(loop_scope="module")
async def site(running: Site) -> AsyncIterator[Site]:
    """All versions run, and all users have v1."""
    running.known.stages = {name: (service.address, "running") for name, service in running.versions.items()}
    running.releases.wants, running.releases.state = {}, "canary"
    await running.routed(v1=WHOLE)
    yield running
    await running.engine.execute("update change_freeze set lifted_at = now(), lifted_by = 'test'")


@in_one_loop
async def test_users_are_shared_and_it_is_taken_back(site: Site) -> None:
    run = await site.routed(v1=0, v2=WHOLE)
    assert site.versions_seen() == {"v2"}
    assert run.plan.preview is not None
    assert f"users come at 127.0.0.1:{site.port}" in run.plan.preview
    undo = await site.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await site.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert site.versions_seen() == {"v1"}


@in_one_loop
async def test_nobody_is_sent_to_a_version_that_does_not_run(site: Site) -> None:
    site.known.stages["v2"] = (site.versions["v2"].address, "starting")
    for version in ("v2", "v9"):
        with pytest.raises(Conflict) as caught:
            await site.route(shares={"v1": 5000, version: 5000})
        assert caught.value.code == "traffic.version_down"
    await site.routed(v1=WHOLE, v2=0)
    found = site.plane.current("web")
    assert found is not None
    assert [arm.name for arm in found.arms] == ["v1"], "whom nobody gets and who is nowhere is left out"


@in_one_loop
async def test_a_version_that_is_ending_keeps_its_users_until_they_are_taken_away(site: Site) -> None:
    site.known.stages["v1"] = (site.versions["v1"].address, "stopping")
    await site.routed(v1=5000, v2=5000)
    assert site.versions_seen() == {"v1", "v2"}


@in_one_loop
async def test_what_is_no_service_has_no_users(site: Site) -> None:
    for workload, expected in (("report", Invalid), ("nothing", NotFound)):
        with pytest.raises(expected):
            await site.engine.door.submit(
                ALICE, Ask(action="traffic.route", args={"workload": workload, "shares": {"v1": WHOLE}})
            )
    with pytest.raises(Invalid) as caught:
        await site.route(shares={"v1": 9000})
    assert caught.value.code == "traffic.shares"


@in_one_loop
async def test_an_agent_waits_for_a_person(site: Site) -> None:
    run = await site.route(CLAUDE, shares={"v2": WHOLE})
    assert run.state is RunState.WAITING
    assert site.versions_seen() == {"v1"}


@in_one_loop
async def test_a_step_of_a_release_needs_nobody_and_covers_just_itself(site: Site) -> None:
    site.releases.wants = {"v1": 5000, "v2": 5000}
    run = await site.route(SYSTEM, shares=site.releases.wants, salt="r7", release=7)
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert run.plan.operations == ("release.step", "traffic.route")
    for wrong in ({"v1": 4000, "v2": 6000}, {"v1": 5000, "v3": 5000}):
        with pytest.raises(Denied):
            await site.route(SYSTEM, shares=wrong, release=7)
    with pytest.raises(NotFound):
        await site.route(SYSTEM, shares=site.releases.wants, release=8)
    with pytest.raises(Invalid):
        await site.route(SYSTEM, shares=site.releases.wants, addresses={"v2": "127.0.0.1:9"}, release=7)
    assert (await site.route(SYSTEM, shares={"v1": WHOLE})).state is RunState.WAITING, "without release it is none"


@in_one_loop
async def test_going_back_passes_a_freeze_and_going_on_does_not(site: Site) -> None:
    await site.routed(v1=5000, v2=5000)
    done = await site.engine.door.submit(
        ALICE, Ask(action="interlock.freeze", args={"pattern": "*", "reason": "an audit"}, confirmed=True)
    )
    assert isinstance(done, Run)
    await site.engine.rest(done.number)
    site.releases.wants = {"v1": 4000, "v2": 6000}
    assert (await site.route(SYSTEM, shares=site.releases.wants, release=7)).state is RunState.DENIED
    site.releases.wants = {"v1": WHOLE, "v2": 0}
    back = await site.route(SYSTEM, shares=site.releases.wants, release=7)
    assert back.state is RunState.SUCCEEDED, back.state_reason
    assert back.plan.operations == ("release.rollback", "release.step", "rollback", "traffic.route")
    assert site.versions_seen() == {"v1"}
    again = await site.route(BOB, shares={"v1": WHOLE, "v2": 0})
    assert again.plan.operations == ("rollback", "traffic.route")
    assert again.state is RunState.SUCCEEDED, again.state_reason


@in_one_loop
async def test_a_way_back_and_a_step_of_a_release_are_not_undone_because_that_would_lead_users_on(site: Site) -> None:
    await site.routed(v1=5000, v2=5000)
    back = await site.routed(v1=WHOLE, v2=0)
    site.releases.wants = {"v1": 9000, "v2": 1000}
    forward = await site.route(SYSTEM, shares=site.releases.wants, release=7)
    assert forward.state is RunState.SUCCEEDED, forward.state_reason
    site.releases.wants = {"v1": WHOLE, "v2": 0}
    returned = await site.route(SYSTEM, shares=site.releases.wants, release=7)
    for run in (back, forward, returned):
        with pytest.raises(Invalid, match=r"interlock (deploy|rollback) web") as caught:
            await site.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
        assert caught.value.code == "step.no_undo"
    assert site.versions_seen() == {"v1"}


@in_one_loop
async def test_copies_are_never_smuggled_in_with_a_way_back(site: Site) -> None:
    site.releases.wants, site.releases.state = {"v1": WHOLE}, "going_back"
    mirror: JsonObject = {"address": "127.0.0.1:9", "share": WHOLE}
    action = site.engine.parts.catalog.action("traffic.route")
    args = action.Args.model_validate({"workload": "web", "shares": {"v1": WHOLE}, "mirror": mirror, "release": 7})
    facts = await asyncio.to_thread(action.read_facts, args)
    assert action.plan(args, facts).operations == ("release.step", "traffic.route")


@in_one_loop
async def test_what_was_planned_from_another_routing_is_stale(site: Site) -> None:
    action = site.engine.parts.catalog.action("traffic.route")
    args = action.Args.model_validate({"workload": "web", "shares": {"v1": 5000, "v2": 5000}})
    plan = action.plan(args, await asyncio.to_thread(action.read_facts, args))
    await site.routed(v1=0, v2=WHOLE)
    with pytest.raises(Stale) as caught:
        await asyncio.to_thread(action.perform, plan.steps[0], None)
    assert caught.value.code == "traffic.changed"


@in_one_loop
async def test_the_view_shows_who_has_what_and_what_is_in_flight(site: Site) -> None:
    await site.routed(v1=9500, v2=500)
    view = TrafficView(site.ports.outside, site.engine.parts.project)
    (shown,) = (await view.read(ALICE, TrafficArgs()))["traffic"]  # type: ignore[misc]
    assert shown["listen"] == f"127.0.0.1:{site.port}"
    arms = [(arm["version"], arm["share_percent"], arm["in_flight"]) for arm in shown["arms"]]
    assert arms == [("v1", 95.0, 0), ("v2", 5.0, 0)]
    with pytest.raises(NotFound):
        await view.read(ALICE, TrafficArgs(workload="nothing"))


@in_one_loop
async def test_a_proxy_that_was_stopped_behind_our_back_runs_again(site: Site) -> None:
    site.plane.stop()  # type: ignore[attr-defined]
    with pytest.raises(ConnectionRefusedError):
        ask(site.port)

    def served() -> bool:
        try:
            return ask(site.port).version == "v1"
        except OSError:
            return False

    await asyncio.to_thread(until, served)


@in_one_loop
async def test_a_port_that_somebody_else_took_is_told_until_it_is_free_again(site: Site) -> None:
    reconcilers = site.engine.parts.reconcilers

    def troubles() -> list[str]:
        return [error.code for error in reconcilers.troubles if error.code.startswith("traffic.")]

    await asyncio.to_thread(until, lambda: not troubles())
    site.plane.stop()  # type: ignore[attr-defined]
    with socket.create_server(("127.0.0.1", site.port)):
        found = await asyncio.to_thread(until, troubles)
        assert found == ["traffic.refused"]
    await asyncio.to_thread(until, lambda: not troubles())
    assert site.versions_seen() == {"v1"}


@in_one_loop
async def test_nobody_is_answered_any_more_and_then_again(site: Site) -> None:
    run = await site.route(action="traffic.forget")
    assert run.state is RunState.WAITING, "it is confirmed twice"
    await site.engine.approvals.decide(ALICE, run.number, verdict=True, reason=None)
    assert (await site.engine.rest(run.number)).state is RunState.SUCCEEDED
    with pytest.raises(ConnectionRefusedError):
        ask(site.port)
    undo = await site.engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
    assert isinstance(undo, Run)
    assert (await site.engine.rest(undo.number)).state is RunState.SUCCEEDED
    assert site.versions_seen() == {"v1"}
