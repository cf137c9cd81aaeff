"""Puts the parts of an installation together, starts them, and stops them at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import SystemRandom
from typing import cast

import structlog

from interlock.adapters.cedar import CedarEngine
from interlock.adapters.postgres import EmbeddedPostgres
from interlock.bootstrap.database import open_database
from interlock.bootstrap.foundation import Base, open_base
from interlock.bootstrap.installation import Installation
from interlock.bootstrap.outside import outside_systems, own_parts, path_classes, resolvers
from interlock.bootstrap.project import ProjectSource, command_action
from interlock.bootstrap.replaying import Replays
from interlock.bootstrap.telemetry import open_telemetry
from interlock.core.action import Action, Ports
from interlock.core.errors import Permanent
from interlock.core.model import JsonObject
from interlock.core.outside import Outside
from interlock.core.view import View
from interlock.engine.approvals import Approvals
from interlock.engine.arrangements import Arrangements
from interlock.engine.catalog import Catalog, find_action_classes
from interlock.engine.db import Database, DatabaseAddress
from interlock.engine.execution import Services
from interlock.engine.guard.orphans import OrphanReaper
from interlock.engine.holds import Holds
from interlock.engine.inspection import inspect_adopted
from interlock.engine.interventions import Interventions
from interlock.engine.planner import Planner
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader
from interlock.engine.reconcile import Reconcilers
from interlock.engine.replay_store import ReplayStore
from interlock.engine.rooms import Inspect, RoomParts, find_rooms
from interlock.engine.runner import Runner, WorkerLimits, in_threads
from interlock.engine.step_context import LiveContexts
from interlock.engine.store import Caps
from interlock.engine.submit import Door
from interlock.engine.token_store import TokenStore
from interlock.engine.tokens import TokenDesk
from interlock.engine.view_store import ViewStore
from interlock.engine.views import ENGINE_VIEWS, Desk, ViewDesk
from interlock.lib.backoff import wait_seconds
from interlock.lib.clock import SystemClock
from interlock.settings import Locations

log = structlog.get_logger()

THREADS_SPARE = 8
THREADS_NAME = "step"


@asynccontextmanager
async def open_installation(
    locations: Locations,
    database_url: str | None,
    owner_url: str | None,
    *,
    report: Callable[[str], None] = lambda _: None,
    work: bool = True,
    further_actions: tuple[type[Action], ...] = (),
) -> AsyncIterator[Installation]:
    """Everything but the interfaces, started, and stopped at the end.

    `work` False leaves out the worker and the reconcilers: for tools that only look. `further_actions` join those that
    were found.
    """
    locations.make_folders()
    project = ProjectSource(locations)
    address, embedded = await open_database(locations, database_url, owner_url, report)
    async with AsyncExitStack() as stack:
        database = Database(address)
        await database.open()
        stack.push_async_callback(database.close)
        threads = ThreadPoolExecutor(project().limits.runs_at_once_max + THREADS_SPARE, thread_name_prefix=THREADS_NAME)
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        catalog = Catalog((*find_action_classes(), *further_actions))
        telemetry = open_telemetry(project(), catalog, SystemClock())
        stack.callback(telemetry.tracer.close)
        base = await open_base(locations, project, database, telemetry)
        outside = outside_systems(base)
        stack.callback(outside.close)
        installation = _assemble(base, address, embedded, threads, catalog, outside)
        if project().programs:
            # Those of the project may be broken: then `status` says so from the beginning.
            await asyncio.to_thread(command_action(catalog).library)
        if work:
            await installation.runner.start()
            stack.push_async_callback(installation.runner.stop)
            await installation.reconcilers.start()
            stack.push_async_callback(installation.reconcilers.stop)
        yield installation


def _alarm(event: str, fields: JsonObject) -> None:
    log.error(event, **fields)


def _loader(base: Base, catalog: Catalog) -> PolicyLoader:
    return PolicyLoader(
        CedarEngine(),
        lambda: catalog.names,
        own_parts(base.locations),
        realpath=os.path.realpath,
        monotonic=base.clock.monotonic,
    )


def _door(base: Base, planner: Planner, judge: Judge) -> Door:
    return Door(
        base.store,
        planner,
        judge,
        base.signals,
        base.clock,
        lambda: base.project().limits,
        in_force=lambda: base.project.in_force,
        telemetry=base.telemetry,
    )


def _approvals(base: Base, door: Door) -> Approvals:
    return Approvals(
        base.database,
        base.store,
        door,
        base.signals,
        base.clock,
        lambda: base.project().limits,
        meter=base.telemetry.meter,
    )


def _runner(base: Base, door: Door, catalog: Catalog, arrange: Arrangements, threads: ThreadPoolExecutor) -> Runner:
    limits = base.project().limits
    services = Services(
        store=base.store,
        contexts=LiveContexts(
            base.blobs, base.output_log, arrange, base.worker, tell_trace=base.telemetry.tracer.enabled
        ),
        action=catalog.action,
        recheck=door.recheck,
        frozen=door.frozen,
        in_thread=in_threads(threads),
        wait_seconds=partial(wait_seconds, random=SystemRandom()),
        stopping=asyncio.Event(),
        worker=base.worker,
        clock=base.clock,
        step_attempts_max=limits.step_attempts_max,
        retry_budget_seconds=limits.retry_budget_seconds,
        telemetry=base.telemetry,
    )
    caps = Caps(limits.runs_at_once_per_actor_max, limits.runs_at_once_per_action)
    return Runner(
        base.database,
        store=base.store,
        services=services,
        signals=base.signals,
        worker=base.worker,
        limits=WorkerLimits(limits.runs_at_once_max, caps),
    )


def _reconcilers(base: Base, approvals: Approvals, embedded: EmbeddedPostgres | None) -> Reconcilers:
    return Reconcilers(
        base.database,
        approvals=approvals,
        outputs=base.output_log,
        blobs=base.blobs,
        key=base.key,
        clock=base.clock,
        retention=lambda: base.project().retention,
        reaper=OrphanReaper(),
        tidy=embedded.tidy if embedded is not None else lambda: None,
        revive=embedded.revive if embedded is not None else lambda: False,
        meter=base.telemetry.meter,
    )


def _assemble(
    base: Base,
    address: DatabaseAddress,
    embedded: EmbeddedPostgres | None,
    threads: ThreadPoolExecutor,
    catalog: Catalog,
    outside: Outside,
) -> Installation:
    project, clock, store, signals = base.project, base.clock, base.store, base.signals
    loader = _loader(base, catalog)
    book = PolicyBook(lambda: base.applied.load(loader, project()), _alarm)
    judge = Judge(book, _alarm)
    targets = resolvers(base.locations, project, own_parts(base.locations), embedded)
    path_class = path_classes(catalog)
    catalog.connect(Ports(project, targets, clock, base.records, base.redactor, path_class, catalog.action, outside))
    planner = Planner(catalog.action, base.redactor, in_threads(threads))
    door = _door(base, planner, judge)
    holds = Holds()
    arrange = Arrangements(base.store, base.control, base.records, holds)
    runner = _runner(base, door, catalog, arrange, threads)
    door.attach(runner)
    approvals = _approvals(base, door)
    reconcilers = _reconcilers(base, approvals, embedded)
    reconcilers.add((), lambda: base.records.troubles)
    troubles = partial(_troubles, project, book, reconcilers, catalog)
    desk = Desk(store, ViewStore(base.database), door, judge, catalog, project, clock, troubles)
    parts = _room_parts(base, catalog, door, outside, (judge, loader, book), (runner, troubles))
    views, inspections = _with_rooms(parts, [cls(desk) for cls in ENGINE_VIEWS], arrange, reconcilers)
    return Installation(
        locations=base.locations,
        project=project,
        address=address,
        embedded=embedded,
        database=base.database,
        store=store,
        outputs=base.outputs,
        output_log=base.output_log,
        door=door,
        approvals=approvals,
        interventions=Interventions(base.database, store, door, runner, signals, clock),
        holds=holds,
        judge=judge,
        tokens=parts.tokens,
        loader=loader,
        book=book,
        catalog=catalog,
        replays=Replays(ReplayStore(base.database), lambda: tuple(catalog.names)),
        views=ViewDesk(views, judge, clock),
        inspections=(lambda _: inspect_adopted(base.records.troubles), *inspections),
        runner=runner,
        reconcilers=reconcilers,
        signals=signals,
        key=base.key,
        clock=clock,
        telemetry=base.telemetry,
        started_at=clock.now(),
    )


def _room_parts(
    base: Base,
    catalog: Catalog,
    door: Door,
    outside: Outside,
    policy: tuple[Judge, PolicyLoader, PolicyBook],
    working: tuple[Runner, Callable[[], list[JsonObject]]],
) -> RoomParts:
    judge, loader, book = policy
    runner, troubles = working
    return RoomParts(
        state_folder=base.locations.state_folder,
        project=base.project,
        database=base.database,
        clock=base.clock,
        store=base.store,
        door=door,
        judge=judge,
        loader=loader,
        book=book,
        catalog=catalog,
        blobs=base.blobs,
        redactor=base.redactor,
        signals=base.signals,
        tokens=TokenDesk(TokenStore(base.database), base.project, base.clock),
        outside=outside,
        telemetry=base.telemetry,
        runner=runner,
        troubles=troubles,
        reload=lambda: base.project.reload(catalog, book),
    )


def _with_rooms(
    parts: RoomParts, views: list[View], arrange: Arrangements, reconcilers: Reconcilers
) -> tuple[dict[str, View], tuple[Inspect, ...]]:
    """Add what every capability brings; returns all views by name, and what `check` asks of each capability.

    Raises Permanent when two views have one name.
    """
    inspections: list[Inspect] = []
    for module in find_rooms():
        room = module.open_room(parts)
        arrange.add(room.arrangements)
        reconcilers.add(room.reconcilers, room.troubles)
        views += room.views
        inspections.append(room.inspect)
    named = {view.name: view for view in views}
    if len(named) != len(views):
        msg = "two views have one name"
        raise Permanent(msg, code="view.twice", fix="uninstall one of them")
    return named, tuple(inspections)


def _troubles(project: ProjectSource, book: PolicyBook, reconcilers: Reconcilers, catalog: Catalog) -> list[JsonObject]:
    """What is broken now, each with the fix."""
    troubles = (project.trouble, book.trouble, command_action(catalog).trouble)
    found = [*reconcilers.troubles, *dict.fromkeys(trouble for trouble in troubles if trouble is not None)]
    return [cast("JsonObject", error.to_json()) for error in found]
