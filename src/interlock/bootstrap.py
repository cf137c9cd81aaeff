"""Puts the parts together: the one place that knows adapters, and the resident process itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import IO, Any, cast

import structlog

from interlock.adapters.cedar import CedarEngine
from interlock.adapters.postgres import EmbeddedPostgres
from interlock.adapters.postgres_tools import run_external_tool
from interlock.adapters.resolvers import make_resolvers
from interlock.core.action import Ports
from interlock.core.errors import InterlockError, NotFound
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.run import Run
from interlock.core.view import View
from interlock.engine.approvals import Approvals
from interlock.engine.backup import BackupParts
from interlock.engine.blobs import FileBlobs
from interlock.engine.catalog import Catalog, find_action_classes
from interlock.engine.cipher import PieceCipher
from interlock.engine.control_store import ControlStore
from interlock.engine.db import Database, DatabaseAddress, migrate
from interlock.engine.execution import Services
from interlock.engine.holds import Holds
from interlock.engine.identity import process_identity
from interlock.engine.interventions import Interventions
from interlock.engine.keys import blob_key, signing_key
from interlock.engine.logging import configure_logging
from interlock.engine.orphans import OrphanReaper, become_subreaper
from interlock.engine.output import Outputs
from interlock.engine.output_store import OutputStore
from interlock.engine.planner import Planner
from interlock.engine.policy import Judge
from interlock.engine.policy_facts import OwnParts
from interlock.engine.policy_load import PolicyBook, PolicyLoader
from interlock.engine.project_file import load_project
from interlock.engine.reconcile import Reconcilers
from interlock.engine.runner import Runner, WorkerLimits, in_threads
from interlock.engine.signals import Signals
from interlock.engine.step_context import LiveContexts
from interlock.engine.store import Caps, RunStore
from interlock.engine.submit import Door
from interlock.engine.view_store import ViewStore
from interlock.engine.views import ENGINE_VIEWS, Desk, ViewDesk
from interlock.lib.backoff import wait_seconds
from interlock.lib.clock import SystemClock
from interlock.lib.note import SigningKey
from interlock.lib.redact import Redactor
from interlock.settings import Locations

log = structlog.get_logger()

BRIDGE_SECONDS = 30.0
THREADS_SPARE = 8


class ProjectSource:
    """The project in force; a reload that fails keeps the old one and is loud."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self.current = load_project(locations.project_file)

    def read(self) -> Project:
        """interlock.yaml as it is on disk. Raises Invalid."""
        return load_project(self._locations.project_file)

    def reload(self) -> Project:
        """Put interlock.yaml in force as it is on disk. Raises Invalid and keeps the old one."""
        self.current = self.read()
        return self.current

    def __call__(self) -> Project:
        return self.current


class LiveRecords:
    """Reads Interlock's own tables for Actions, from their threads."""

    def __init__(self, store: RunStore, control: ControlStore) -> None:
        self._store = store
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._adopted: tuple[JsonObject, ...] = ()

    def run(self, number: int) -> Run:
        """Raises NotFound."""
        return asyncio.run_coroutine_threadsafe(self._store.by_number(number), self._loop).result(BRIDGE_SECONDS)

    def adopted(self) -> tuple[JsonObject, ...]:
        """As of the last refresh, which every adoption brings about."""
        return self._adopted

    async def refresh(self) -> None:
        """Read the adopted programs anew."""
        self._adopted = await self._control.adopted()


@dataclass(frozen=True)
class Installation:
    """Everything that is alive in a resident process, for interfaces to speak to."""

    locations: Locations
    project: ProjectSource
    address: DatabaseAddress
    embedded: EmbeddedPostgres | None
    database: Database
    store: RunStore
    outputs: OutputStore
    output_log: Outputs
    door: Door
    approvals: Approvals
    interventions: Interventions
    holds: Holds
    judge: Judge
    loader: PolicyLoader
    book: PolicyBook
    catalog: Catalog
    views: ViewDesk
    runner: Runner
    reconcilers: Reconcilers
    signals: Signals
    key: SigningKey
    clock: SystemClock
    started_at: datetime

    def backup_parts(self) -> BackupParts:
        """What a backup of this installation is made of."""
        return BackupParts(
            state_folder=self.locations.state_folder,
            project_file=self.locations.project_file,
            policies=tuple(self.locations.project_folder / name for name in self.project().policies),
            dump=partial(dump_database, self.embedded, self.address),
        )


def _alarm(event: str, fields: JsonObject) -> None:
    log.error(event, **fields)


def _own_parts(locations: Locations) -> OwnParts:
    """What belongs to Interlock itself on this machine."""
    package = Path(__file__).resolve().parent
    return OwnParts(
        changed=(
            f"file:{locations.project_file}",
            f"file:{locations.project_folder}/policies/**",
            f"file:{locations.runtime_folder}/**",
            f"file:{package}/**",
            "unit:interlock*",
            "process:interlock:*",
        ),
        private=(f"file:{locations.state_folder}/**",),
    )


async def open_database(
    locations: Locations, database_url: str | None, owner_url: str | None, report: Callable[[str], None]
) -> tuple[DatabaseAddress, EmbeddedPostgres | None]:
    """Start or find the database and bring its schema up to date.

    Raises: Transient, Permanent as `migrate` and the embedded server do.
    """
    embedded = None
    if database_url is not None:
        address = DatabaseAddress(app=database_url, owner=owner_url or database_url)
    else:
        embedded = embedded_server(locations, report)
        endpoint = await asyncio.to_thread(embedded.start)
        address = DatabaseAddress(app=endpoint.app_conninfo, owner=endpoint.owner_conninfo)
    await migrate(address)
    return address, embedded


def embedded_server(locations: Locations, report: Callable[[str], None]) -> EmbeddedPostgres:
    """The installation's own database server, running or not."""
    return EmbeddedPostgres(locations.state_folder, locations.runtime_folder, clock=SystemClock(), report=report)


@asynccontextmanager
async def open_installation(
    locations: Locations,
    database_url: str | None,
    owner_url: str | None,
    *,
    report: Callable[[str], None] = lambda _: None,
    work: bool = True,
) -> AsyncIterator[Installation]:
    """Everything but the interfaces, started, and stopped at the end.

    `work` False leaves out the worker and the reconcilers: for tools that only look.
    """
    locations.make_folders()
    project = ProjectSource(locations)
    address, embedded = await open_database(locations, database_url, owner_url, report)
    async with AsyncExitStack() as stack:
        database = Database(address)
        await database.open()
        stack.push_async_callback(database.close)
        threads = ThreadPoolExecutor(project().limits.runs_at_once_max + THREADS_SPARE, thread_name_prefix="step")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        installation = await _assemble(locations, project, address, embedded, database, threads)
        if work:
            await installation.runner.start()
            stack.push_async_callback(installation.runner.stop)
            await installation.reconcilers.start()
            stack.push_async_callback(installation.reconcilers.stop)
        yield installation


async def _assemble(
    locations: Locations,
    project: ProjectSource,
    address: DatabaseAddress,
    embedded: EmbeddedPostgres | None,
    database: Database,
    threads: ThreadPoolExecutor,
) -> Installation:
    clock, signals, worker = SystemClock(), Signals(), process_identity()
    keys = locations.state_folder / "keys"
    key = signing_key(keys, f"interlock/{project().name}")
    body_key = blob_key(keys)
    blobs = FileBlobs(locations.state_folder / "blobs", body_key)
    store, control = RunStore(database), ControlStore(database)
    outputs = OutputStore(database, PieceCipher(body_key))
    redactor = Redactor(project().secrets_patterns)
    output_log = Outputs(outputs, signals, redactor)
    records = LiveRecords(store, control)
    await records.refresh()
    catalog = Catalog(find_action_classes())
    loader = PolicyLoader(
        CedarEngine(),
        lambda: catalog.names,
        _own_parts(locations),
        realpath=os.path.realpath,
        monotonic=clock.monotonic,
    )
    book = PolicyBook(lambda: loader.load(project()), _alarm)
    judge = Judge(book, _alarm)
    resolvers = make_resolvers(own={"interlock": (os.getpid(), *_server_pids(embedded))})
    catalog.connect(Ports(project, resolvers, clock, records, redactor, catalog.action))
    thread = in_threads(threads)
    door = Door(store, Planner(catalog.action, redactor, thread), judge, signals, clock, lambda: project().limits)
    holds = Holds()
    arrange = Arrangements(store, control, records, holds)
    services = Services(
        store=store,
        contexts=LiveContexts(blobs, output_log, arrange, worker),
        action=catalog.action,
        recheck=door.recheck,
        frozen=door.frozen,
        in_thread=thread,
        wait_seconds=partial(wait_seconds, random=SystemRandom()),
        stopping=asyncio.Event(),
        worker=worker,
        clock=clock,
        step_attempts_max=project().limits.step_attempts_max,
        retry_budget_seconds=project().limits.retry_budget_seconds,
    )
    limits = project().limits
    caps = Caps(limits.runs_at_once_per_actor_max, limits.runs_at_once_per_action)
    runner = Runner(
        database,
        store=store,
        services=services,
        signals=signals,
        worker=worker,
        limits=WorkerLimits(limits.runs_at_once_max, caps),
    )
    door.attach(runner)
    approvals = Approvals(database, store, door, signals, clock, lambda: project().limits)
    reconcilers = Reconcilers(
        database,
        approvals=approvals,
        outputs=output_log,
        blobs=blobs,
        key=key,
        clock=clock,
        retention=lambda: project().retention,
        reaper=OrphanReaper(),
    )
    desk = Desk(store, ViewStore(database), door, judge, catalog, project, clock, lambda: _troubles(book, reconcilers))
    views: dict[str, View] = {cls.name: cls(desk) for cls in ENGINE_VIEWS}
    return Installation(
        locations=locations,
        project=project,
        address=address,
        embedded=embedded,
        database=database,
        store=store,
        outputs=outputs,
        output_log=output_log,
        door=door,
        approvals=approvals,
        interventions=Interventions(database, store, door, runner, signals, clock),
        holds=holds,
        judge=judge,
        loader=loader,
        book=book,
        catalog=catalog,
        views=ViewDesk(views, judge, clock),
        runner=runner,
        reconcilers=reconcilers,
        signals=signals,
        key=key,
        clock=clock,
        started_at=clock.now(),
    )


def _server_pids(embedded: EmbeddedPostgres | None) -> tuple[int, ...]:
    pid = embedded.postmaster_pid if embedded is not None else None
    return () if pid is None else (pid,)


def _troubles(book: PolicyBook, reconcilers: Reconcilers) -> list[JsonObject]:
    """What is broken now, each with the fix."""
    found: list[InterlockError] = [*reconcilers.troubles]
    if book.trouble is not None:
        found.append(book.trouble)
    return [cast("JsonObject", error.to_json()) for error in found]


class Arrangements:
    """What an Action may have changed in Interlock's own tables, by name."""

    def __init__(self, store: RunStore, control: ControlStore, records: LiveRecords, holds: Holds) -> None:
        self._store = store
        self._control = control
        self._records = records
        self._known: dict[str, Callable[[Run, JsonObject], Awaitable[JsonObject]]] = {
            "freeze.set": self._set,
            "freeze.lift": self._lift,
            "program.adopt": self._adopt,
            "program.forget": self._forget,
            "hold.look": holds.look,
        }

    async def __call__(self, name: str, run: int, payload: JsonObject) -> JsonObject:
        """Raises NotFound for a name that is none."""
        if name not in self._known:
            msg = f"nothing can be arranged under {name!r}"
            raise NotFound(msg, code="arrangement.unknown")
        return await self._known[name](await self._store.by_number(run), payload)

    async def _set(self, run: Run, payload: JsonObject) -> JsonObject:
        return {"count": await self._control.set_freeze(run.number, run.actor.id, payload)}

    async def _lift(self, run: Run, payload: JsonObject) -> JsonObject:
        scope, pattern = str(payload["scope"]), str(payload["pattern"])
        return {"count": await self._control.lift_freeze(run.actor.id, scope, pattern)}

    async def _adopt(self, run: Run, payload: JsonObject) -> JsonObject:
        await self._control.adopt(run.number, run.actor.id, payload)
        await self._records.refresh()
        return {"name": payload["name"]}

    async def _forget(self, run: Run, payload: JsonObject) -> JsonObject:  # noqa: ARG002 - the shape of them all
        count = await self._control.forget(str(payload["name"]))
        await self._records.refresh()
        return {"count": count}


def dump_database(embedded: EmbeddedPostgres | None, address: DatabaseAddress, target: IO[bytes]) -> None:
    """Write the database in pg_dump's custom format. Raises Permanent or Transient when that fails."""
    arguments = ["--format=custom", "--no-owner", "--no-privileges", "--schema=public"]
    if embedded is not None:
        embedded.run_tool("pg_dump", arguments, stdout=target)
    else:
        run_external_tool("pg_dump", arguments, address.owner, stdout=target)


async def serve(
    locations: Locations,
    database_url: str | None,
    owner_url: str | None,
    *,
    on_ready: Callable[[str], None],
    server: Callable[[Installation], Any],
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """The resident process, until it is told to stop by a signal or through its own door.

    `server` makes the interface that answers at the socket; it is an asynchronous context manager whose value is an
    event that is set when somebody asked it to stop.
    """
    configure_logging(Redactor())
    become_subreaper()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_installation(locations, database_url, owner_url, report=report) as installation:
        async with server(installation) as asked_to_stop:
            on_ready(str(locations.door_socket))
            waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(asked_to_stop.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        log.info("serve.stopping", running=installation.runner.running)


__all__ = ["Installation", "embedded_server", "open_database", "open_installation", "serve"]
