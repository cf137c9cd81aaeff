"""The doctor's round: everything of a machine and an installation that can be looked at, with or without a process."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from interlock.adapters.postgres import SYSTEM_FOLDER
from interlock.adapters.postgres_orphans import OrphanedCluster, find_orphaned_clusters, remove_orphaned_cluster
from interlock.adapters.reachability import reach
from interlock.adapters.remote_hosts import SshHosts
from interlock.adapters.tool_versions import installer, tool_versions
from interlock.bootstrap.checking import check_files
from interlock.bootstrap.installation import Installation
from interlock.bootstrap.kept import kept_processes
from interlock.core.errors import InterlockError
from interlock.core.project import Project
from interlock.doctor.clock import judge_future, judge_pace, judge_skew, judge_zones, modified_at
from interlock.doctor.database import judge_database, judge_log, judge_pool
from interlock.doctor.keys import examine_certificate, examine_keys, judge_checkpoint
from interlock.doctor.model import Finding, doubtful, sound, wrong
from interlock.doctor.place import (
    examine_files,
    examine_left_sockets,
    examine_room,
    examine_runtime,
    examine_state,
)
from interlock.doctor.store import DatabaseFacts, read_facts
from interlock.doctor.targets import Place, declared_places, declared_tools
from interlock.engine.db import DatabaseAddress, one_connection
from interlock.engine.project_file import environments_of, load_project, overlay_file
from interlock.lib.clock import SystemClock
from interlock.lib.note import SigningKey
from interlock.settings import Locations

REACH_SECONDS = 3.0
PYTHON_MIN = (3, 11)
TOOLS = ("git", "openssl", "ssh")

Part = Callable[[], Iterable[Finding]]
Report = Callable[[str], None]


async def examine_installation(on: Installation) -> list[Finding]:
    """Everything a resident process can see: the machine as its account sees it, its database, its keys, its log."""
    environment = on.project().environment
    found = await asyncio.to_thread(_machine, on.locations, on.project(), environment, running=True)
    async with on.database.connection() as connection:
        before = on.clock.now()
        facts = await read_facts(connection)
        after = on.clock.now()
    found += _of_database(facts, on.key, separated=on.address.separated)
    found += [judge_skew(facts.now, before, after), judge_pool(on.database.pool_statistics)]
    return found


def examine_machine(
    locations: Locations, environment: str | None, database_url: str | None, owner_url: str | None
) -> list[Finding]:
    """What can be looked at without a resident process; a database of one's own is asked, an embedded one sleeps."""
    try:
        project = load_project(locations.project_file, environment)
    except InterlockError:
        project = Project()  # what is wrong with it is among the findings about files
    found = _machine(locations, project, environment, running=False)
    if database_url is None:
        return [*found, sound("database", "the embedded database is started when it is needed")]
    address = DatabaseAddress(database_url, owner_url or database_url)
    try:
        return [*found, *asyncio.run(_ask_database(locations, address))]
    except InterlockError as error:
        why = "without its database Interlock records nothing, and so performs nothing"
        return [*found, wrong("database", error.message, why, 'psql "$INTERLOCK_DATABASE_URL" -c "select 1"')]


def orphaned_clusters() -> list[OrphanedCluster]:
    """Root's embedded databases whose project is gone; an ordinary user's lie in his state folders."""
    return find_orphaned_clusters(SYSTEM_FOLDER) if os.geteuid() == 0 else []


def remove_cluster(folder: Path) -> None:
    """Raises as `remove_orphaned_cluster`."""
    remove_orphaned_cluster(folder)


async def _ask_database(locations: Locations, address: DatabaseAddress) -> list[Finding]:
    clock = SystemClock()
    async with one_connection(address, int(REACH_SECONDS)) as connection:
        before = clock.now()
        facts = await read_facts(connection)
        after = clock.now()
    _, key = examine_keys(locations.state_folder / "keys")
    return [*_of_database(facts, key, separated=address.separated), judge_skew(facts.now, before, after)]


def _of_database(facts: DatabaseFacts, key: SigningKey | None, *, separated: bool) -> list[Finding]:
    now = SystemClock().now()
    written = [("the newest Run", facts.newest_evidence_at)] if facts.newest_evidence_at is not None else []
    return [
        *judge_database(facts, separated=separated),
        judge_log(facts, now),
        *([judge_checkpoint(facts.note, key)] if key is not None else []),
        *judge_future(now, written),
    ]


def _machine(locations: Locations, project: Project, environment: str | None, *, running: bool) -> list[Finding]:
    """Each part by itself: what cannot be looked at hides nothing of the others."""
    clock = SystemClock()
    wall, monotonic = clock.now(), clock.monotonic()
    file = locations.project_file
    files = (file, *(overlay_file(file, name) for name in environments_of(file)))
    parts: list[tuple[str, Part]] = [
        ("tools", lambda: _tools(project)),
        ("rights", lambda: examine_files(files)),
        ("rights", lambda: examine_state(locations.state_folder)),
        ("socket", lambda: _sockets(locations, running=running)),
        ("clock", lambda: _clock(locations, project)),
        ("disk", lambda: examine_room(locations.state_folder)),
        ("policies", lambda: _written(locations, environment)),
        ("keys", lambda: examine_keys(locations.state_folder / "keys")[0]),
        ("http", lambda: _http(project, running=running)),
        ("reach", lambda: _reach((*declared_places(project), *_hosts(locations)))),
        ("kept", lambda: _kept(locations)),
        ("clusters", _clusters),
    ]
    found: list[Finding] = []
    for area, part in parts:
        found += _looked(area, part)
    return [*found, judge_pace((clock.now() - wall).total_seconds(), clock.monotonic() - monotonic)]


def _looked(area: str, part: Part) -> list[Finding]:
    try:
        return list(part())
    except PermissionError as error:
        message = f"{error.filename} is closed to this account: nothing is known of it"
        why = "whoever runs Interlock can look at everything"
        return [doubtful(area, message, why, "sudo interlock doctor")]
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        return [wrong(area, message, "the doctor cannot look at it", f"ls -ld {error.filename}")]


def _hosts(locations: Locations) -> Iterator[Place]:
    """The machines that were added: they are known by the state folder and not by interlock.yaml."""
    for host in SshHosts(locations.state_folder / "hosts").listed():
        yield Place(f"hosts.{host.name}", host.address, host.port)


def _tools(project: Project) -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < PYTHON_MIN:
        why = "Interlock is tested on newer ones only"
        yield wrong("tools", f"Python {version} is too old", why, f"{installer()} python3.12")
    else:
        yield sound("tools", f"Python {version}")
    needed = declared_tools(project)
    for name, said in tool_versions(dict.fromkeys((*TOOLS, *needed))).items():
        if said is not None:
            yield sound("tools", f"{name}: {said or 'it does not tell its version'}")
        elif name in needed:
            why = f"{needed[name]} is declared: it cannot be looked at or changed without this program"
            yield doubtful("tools", f"there is no program {name}", why, f"{installer()} {name}")
        else:
            yield sound("tools", f"{name} is not there, and nothing that is declared needs it")


def _sockets(locations: Locations, *, running: bool) -> Iterator[Finding]:
    folder = locations.runtime_folder
    yield from examine_runtime(folder, locations.door_socket, shared=locations.shared, running=running)
    yield from examine_left_sockets(folder.parent, folder)


def _clock(locations: Locations, project: Project) -> Iterator[Finding]:
    written = [modified_at(path) for path in (locations.project_file, locations.log_file)]
    yield from judge_future(SystemClock().now(), (each for each in written if each is not None))
    zones = {window.timezone for window in project.windows}
    yield from judge_zones(zones | {schedule.timezone for schedule in project.schedules.values()})


def _written(locations: Locations, environment: str | None) -> Iterator[Finding]:
    """What `check` finds in files."""
    why = "what is not sound is not put in force, and Interlock does not start on it"
    bad = False
    for each in check_files(locations, environment, alone=True):
        if each["level"] == "error":
            bad = True
            fix = str(each["fix"] or "")
            yield wrong(str(each["area"]), str(each["message"]), why, f"interlock check   # {fix}")
    if not bad:
        yield sound("policies", "configuration, policies and decision tables are sound")


def _http(project: Project, *, running: bool) -> Iterator[Finding]:
    yield from examine_certificate(project.http, SystemClock().now())
    listen = project.http.listen
    if listen is None or not running:
        return
    host, _, port = listen.rpartition(":")
    why_not = reach({"http": (host.strip("[]"), int(port))}, REACH_SECONDS)["http"]
    if why_not is None:
        yield sound("http", f"{listen} answers")
    else:
        why = "nobody comes in over HTTP"
        yield wrong("http", f"{listen} does not answer: {why_not}", why, "interlock stop; interlock status")


def _reach(places: tuple[Place, ...]) -> Iterator[Finding]:
    addresses = {place.name: place.path or (place.host, place.port) for place in places}
    answers = reach(addresses, REACH_SECONDS)
    for place in places:
        why_not = answers[place.name]
        if why_not is None:
            yield sound("reach", f"{place.name} answers at {place}")
            continue
        why = "what is asked of it fails until it can be reached"
        look = f"ls -l {place.path}" if place.path else f"curl -v --max-time 5 telnet://{place} < /dev/null"
        yield wrong("reach", f"{place.name} cannot be reached at {place}: {why_not}", why, look)


def _kept(locations: Locations) -> Iterator[Finding]:
    """What goes on whether Interlock runs or not."""
    for state in kept_processes(locations.state_folder):
        name, log = state.process.name, f"tail {locations.state_folder}/kept/{state.process.name}/log"
        if state.phase == "given_up":
            message = f"{name} ended too often and was given up ({state.last_exit})"
            yield wrong("kept", message, "nobody starts it again", log)
        elif state.phase == "stopped":
            why = "it is started again as soon as Interlock runs"
            yield doubtful("kept", f"{name} should run, and does not", why, "interlock status")
        elif state.phase == "waiting":
            yield doubtful("kept", f"{name} ends again and again ({state.last_exit})", "it is started again", log)
        else:
            yield sound("kept", f"{name} runs (process {state.pid}), also without Interlock")


def _clusters() -> Iterator[Finding]:
    for cluster in orphaned_clusters():
        size = f"{cluster.bytes / 2**20:.0f} MiB"
        if cluster.running:
            message = f"{cluster.folder} ({size}) belongs to no project, and its server still runs"
            command = f"fuser -v {cluster.folder}/server.lock   # shows it: {cluster.origin} was deleted or moved"
        else:
            message = f"{cluster.folder} ({size}) belongs to no project: {cluster.origin} is gone"
            command = f"rm -r -- {cluster.folder}   # or: interlock doctor --remove-orphans"
        yield doubtful(
            "clusters", message, "it takes up room, and holds the records of a project that is gone", command
        )
