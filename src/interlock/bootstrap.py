"""Puts the parts together: the one place that knows adapters, and the resident process itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
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
from interlock.adapters.devices import DeviceTargets
from interlock.adapters.docker import DockerTargets
from interlock.adapters.files import FileTargets
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.postgres import SYSTEM_FOLDER, EmbeddedPostgres
from interlock.adapters.postgres_tools import dump_external, restore_external
from interlock.adapters.processes import ProcessTargets
from interlock.adapters.repositories import RepositoryTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.adapters.systemd import UnitTargets
from interlock.commands.actions import CommandExec
from interlock.core.action import Action, PathClass, Ports
from interlock.core.errors import Conflict, InterlockError, Permanent
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.view import View
from interlock.engine.approvals import Approvals
from interlock.engine.arrangements import Arrangements
from interlock.engine.audit.seal import after_restore
from interlock.engine.backup import DATABASE, STATE_PARTS, BackupParts, unpack_backup
from interlock.engine.blobs import FileBlobs
from interlock.engine.catalog import Catalog, find_action_classes
from interlock.engine.cipher import PieceCipher
from interlock.engine.control_store import ControlStore
from interlock.engine.db import Database, DatabaseAddress, connection_words, grant_rights, migrate
from interlock.engine.execution import Services
from interlock.engine.guard.orphans import OrphanReaper, become_subreaper
from interlock.engine.hanging import leave_hanging_threads
from interlock.engine.holds import Holds
from interlock.engine.identity import process_identity
from interlock.engine.interventions import Interventions
from interlock.engine.keys import blob_key, signing_key
from interlock.engine.logging import configure_logging
from interlock.engine.output import Outputs
from interlock.engine.output_store import OutputStore
from interlock.engine.planner import Planner
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader, PolicySet
from interlock.engine.policy.target_classes import CLASSES
from interlock.engine.project_file import load_project
from interlock.engine.reconcile import Reconcilers
from interlock.engine.records import LiveRecords
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

THREADS_SPARE = 8
PROJECT_LOOK_SECONDS = 3.0
THREADS_NAME = "step"


class ProjectSource:
    """The project in force; a reload that fails keeps the old one and is loud."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self.current = load_project(locations.project_file)
        self.trouble: InterlockError | None = None
        """Why what is on disk could not be put in force the last time; None when it is."""

    def read(self) -> Project:
        """interlock.yaml as it is on disk. Raises Invalid."""
        return load_project(self._locations.project_file)

    def reload(self, catalog: Catalog, book: PolicyBook) -> PolicySet:
        """Put interlock.yaml, the programs and the policies in force as they are on disk: all of them, or none.

        Raises: InterlockError when one is not sound; then all stays as it was, and `trouble` says why.
        """
        before, execute = self.current, command_action(catalog)
        try:
            project = self.read()
            programs = execute.load(project)
            self.current = project
            found = book.reload()
        except InterlockError as error:
            self.current, self.trouble = before, error
            raise
        execute.put_in_force(project, programs)
        self.trouble = None
        return found

    def __call__(self) -> Project:
        return self.current


def restore(archive: Path, locations: Locations, database_url: str | None, owner_url: str | None) -> JsonObject:
    """Put a backup in place of an installation that has no state yet; the resident process must not run.

    What is there already is never overwritten: the caller moves it aside first.

    Returns: the archive's manifest.
    Raises: Invalid (no sound backup), Conflict (there is state already), Permanent or Transient from the database.
    """
    occupied = [path for path in (locations.state_folder / "keys", locations.state_folder / "blobs") if path.exists()]
    if occupied:
        msg = f"{locations.state_folder} holds an installation already"
        fix = f"move it aside: mv {locations.state_folder} {locations.state_folder}.before"
        raise Conflict(msg, code="restore.occupied", fix=fix)
    locations.make_folders()
    with tempfile.TemporaryDirectory(prefix="restore-", dir=locations.state_folder) as folder:
        manifest = unpack_backup(archive, Path(folder))
        address = _restore_database(Path(folder, DATABASE), locations, database_url, owner_url)
        for part in STATE_PARTS:
            if (source := Path(folder, "state", part)).is_dir():
                _make_private(source)
                source.rename(locations.state_folder / part)
    asyncio.run(_after_restore(address))
    return manifest


def _restore_database(
    dump: Path, locations: Locations, database_url: str | None, owner_url: str | None
) -> DatabaseAddress:
    if database_url is not None:
        address = DatabaseAddress(app=database_url, owner=owner_url or database_url)
        with dump.open("rb") as body:
            restore_external(body, connection_words(address.owner))
        return address
    embedded = embedded_server(locations, lambda _: None)
    endpoint = embedded.start()
    arguments = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    arguments.append(f"--dbname={endpoint.database}")
    with dump.open("rb") as body:
        embedded.run_tool("pg_restore", arguments, stdin=body)
    return DatabaseAddress(app=endpoint.app_conninfo, owner=endpoint.owner_conninfo)


async def _after_restore(address: DatabaseAddress) -> None:
    """Bring the schema up to date, give the app role its rights again, and free what waited to be sealed."""
    await grant_rights(address)
    await migrate(address)
    database = Database(DatabaseAddress(app=address.owner, owner=address.owner))
    await database.open()
    try:
        async with database.connection() as connection:
            await after_restore(connection)
    finally:
        await database.close()


def _make_private(folder: Path) -> None:
    """Folders 0700, files 0600."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


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


def _path_classes(catalog: Catalog) -> Callable[[str], PathClass]:
    """How a path may be read, as the library of programs says, which `command.exec` holds."""

    def path_class(real_path: str) -> PathClass:
        execute = catalog.action(CommandExec.name)
        if not isinstance(execute, CommandExec):
            msg = f"{CommandExec.name} is another action"
            raise Permanent(msg, code="bug")
        return execute.library().classify_path(real_path)

    return path_class


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
            "interlock:*",
        ),
        private=(f"file:{locations.state_folder}/**", f"file:{SYSTEM_FOLDER}/**"),
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


def remove_database(locations: Locations) -> None:
    """Delete the embedded database with everything in it; the resident process must not run."""
    embedded_server(locations, lambda _: None).remove()


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
        base = await _base(locations, project, database)
        installation = _assemble(base, address, embedded, threads, catalog)
        if project().programs:
            # Those of the project may be broken: then `status` says so from the beginning.
            await asyncio.to_thread(command_action(catalog).library)
        if work:
            await installation.runner.start()
            stack.push_async_callback(installation.runner.stop)
            await installation.reconcilers.start()
            stack.push_async_callback(installation.reconcilers.stop)
        yield installation


@dataclass(frozen=True)
class _Base:
    """What everything else stands on: where it lies, its clock, its keys, its tables."""

    locations: Locations
    project: ProjectSource
    database: Database
    clock: SystemClock
    signals: Signals
    worker: JsonObject
    key: SigningKey
    blobs: FileBlobs
    store: RunStore
    control: ControlStore
    redactor: Redactor
    outputs: OutputStore
    output_log: Outputs
    records: LiveRecords


async def _base(locations: Locations, project: ProjectSource, database: Database) -> _Base:
    keys = locations.state_folder / "keys"
    body_key = blob_key(keys)
    store, control, signals = RunStore(database), ControlStore(database), Signals()
    redactor = Redactor(project().secrets_patterns)
    outputs = OutputStore(database, PieceCipher(body_key))
    records = LiveRecords(store, control)
    await records.refresh()
    return _Base(
        locations=locations,
        project=project,
        database=database,
        clock=SystemClock(),
        signals=signals,
        worker=process_identity(),
        key=signing_key(keys, f"interlock/{project().name}"),
        blobs=FileBlobs(locations.state_folder / "blobs", body_key),
        store=store,
        control=control,
        redactor=redactor,
        outputs=outputs,
        output_log=Outputs(outputs, signals, redactor),
        records=records,
    )


def _loader(base: _Base, catalog: Catalog) -> PolicyLoader:
    return PolicyLoader(
        CedarEngine(),
        lambda: catalog.names,
        _own_parts(base.locations),
        realpath=os.path.realpath,
        monotonic=base.clock.monotonic,
    )


def _runner(base: _Base, door: Door, catalog: Catalog, holds: Holds, threads: ThreadPoolExecutor) -> Runner:
    limits = base.project().limits
    arrange = Arrangements(base.store, base.control, base.records, holds)
    services = Services(
        store=base.store,
        contexts=LiveContexts(base.blobs, base.output_log, arrange, base.worker),
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


def _reconcilers(base: _Base, approvals: Approvals, embedded: EmbeddedPostgres | None) -> Reconcilers:
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
    )


def _assemble(
    base: _Base,
    address: DatabaseAddress,
    embedded: EmbeddedPostgres | None,
    threads: ThreadPoolExecutor,
    catalog: Catalog,
) -> Installation:
    project, clock, store, signals = base.project, base.clock, base.store, base.signals
    loader = _loader(base, catalog)
    book = PolicyBook(lambda: loader.load(project()), _alarm)
    judge = Judge(book, _alarm)
    resolvers = _resolvers(base.locations, project, _own_parts(base.locations), embedded)
    catalog.connect(
        Ports(project, resolvers, clock, base.records, base.redactor, _path_classes(catalog), catalog.action)
    )
    planner = Planner(catalog.action, base.redactor, in_threads(threads))
    door = Door(store, planner, judge, signals, clock, lambda: project().limits)
    holds = Holds()
    runner = _runner(base, door, catalog, holds, threads)
    door.attach(runner)
    approvals = Approvals(base.database, store, door, signals, clock, lambda: project().limits)
    reconcilers = _reconcilers(base, approvals, embedded)
    desk = Desk(
        store,
        ViewStore(base.database),
        door,
        judge,
        catalog,
        project,
        clock,
        lambda: _troubles(project, book, reconcilers, catalog),
    )
    views: dict[str, View] = {cls.name: cls(desk) for cls in ENGINE_VIEWS}
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
        loader=loader,
        book=book,
        catalog=catalog,
        views=ViewDesk(views, judge, clock),
        runner=runner,
        reconcilers=reconcilers,
        signals=signals,
        key=base.key,
        clock=clock,
        started_at=clock.now(),
    )


def _resolvers(
    locations: Locations, project: ProjectSource, own: OwnParts, embedded: EmbeddedPostgres | None
) -> ResolverSet:
    """Every outside system whose names can be turned into identities."""

    def own_pids() -> tuple[int, ...]:
        server = embedded.postmaster_pid if embedded is not None else None
        return (os.getpid(),) if server is None else (os.getpid(), server)

    well_known = tuple(pattern for patterns in CLASSES.values() for pattern in patterns if pattern.startswith("file:"))
    files = FileTargets(lambda: (*project().protected, *own.changed, *own.private, *well_known))
    processes = ProcessTargets(own_pids, (str(locations.state_folder), str(locations.runtime_folder)))
    return ResolverSet(
        (
            files,
            processes,
            UnitTargets(),
            DockerTargets(paths_of=files.paths_of),
            DeviceTargets(files.resolve),
            KubernetesTargets(),
            NamedTargets(host_names=(socket.gethostname(), socket.getfqdn())),
            RepositoryTargets(files.resolve),
        ),
        own_places=processes.own_places,
    )


def command_action(catalog: Catalog) -> CommandExec:
    """The action that holds the library of programs."""
    execute = catalog.action(CommandExec.name)
    if not isinstance(execute, CommandExec):
        msg = f"{CommandExec.name} is another action"
        raise Permanent(msg, code="bug")
    return execute


def _troubles(project: ProjectSource, book: PolicyBook, reconcilers: Reconcilers, catalog: Catalog) -> list[JsonObject]:
    """What is broken now, each with the fix."""
    troubles = (project.trouble, book.trouble, command_action(catalog).trouble)
    found = [*reconcilers.troubles, *dict.fromkeys(trouble for trouble in troubles if trouble is not None)]
    return [cast("JsonObject", error.to_json()) for error in found]


def dump_database(embedded: EmbeddedPostgres | None, address: DatabaseAddress, target: IO[bytes]) -> None:
    """Write the database in pg_dump's custom format. Raises Permanent or Transient when that fails."""
    if embedded is not None:
        embedded.run_tool("pg_dump", ["--format=custom", "--no-owner", "--no-privileges"], stdout=target)
    else:
        dump_external(connection_words(address.owner), target)


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
            ends = (stop.wait(), asked_to_stop.wait(), _until_project_is_gone(locations.project_folder))
            waiting = [asyncio.create_task(each) for each in ends]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        log.info("serve.stopping", running=installation.runner.running)
    if installation.embedded is not None:
        # Nobody else uses it, and whoever stops Interlock expects that nothing of it goes on.
        await asyncio.to_thread(installation.embedded.stop)
    leave_hanging_threads(THREADS_NAME)


async def _until_project_is_gone(folder: Path) -> None:
    """Until the folder that held interlock.yaml at the start is moved or deleted: clients find us by its path."""
    began = _identity_of(folder)
    while True:
        await asyncio.sleep(PROJECT_LOOK_SECONDS)
        if _identity_of(folder) != began:
            break
    log.warning("serve.project_gone", folder=str(folder))


def _identity_of(folder: Path) -> tuple[int, int] | None:
    """Device and inode; None where there is none."""
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


__all__ = [
    "Installation",
    "command_action",
    "embedded_server",
    "open_database",
    "open_installation",
    "remove_database",
    "restore",
    "serve",
]
