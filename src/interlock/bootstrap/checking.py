"""What `interlock check` finds: everything that is written in files, and what a resident process knows besides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from interlock.adapters.cedar import CedarEngine
from interlock.adapters.secret_files import SecretFiles
from interlock.bootstrap.installation import Installation
from interlock.bootstrap.outside import own_parts
from interlock.bootstrap.project import command_action
from interlock.commands.library import load_library
from interlock.core.errors import Conflict, InterlockError
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.engine.actors import declared_actor
from interlock.engine.catalog import Catalog, find_action_classes
from interlock.engine.inspection import finding, inspect_policies, inspect_project, inspect_state
from interlock.engine.policy.load import PolicyLoader, PolicySet, read_layers
from interlock.engine.policy.tables import read_table_file, run_tables, table_files
from interlock.engine.project_file import ReadProject, environments_of, read_project
from interlock.engine.references import inspect_references
from interlock.engine.token_store import TokenStore
from interlock.engine.yaml_model import faults_of
from interlock.lib.clock import SystemClock
from interlock.settings import Locations

TABLE_FAULTS_SHOWN = 20


def check_files(locations: Locations, environment: str | None, *, alone: bool) -> list[JsonObject]:
    """Everything that files say: interlock.yaml and every overlay, what they refer to, policies and decision tables.

    All faults are found at once, each with `file`, `line` and `path` where it has them.

    Args:
        locations: Where the project lies.
        environment: The one that is in force; the others are checked as well.
        alone: No resident process is asked besides; it looks itself at the policies and programs in force.
    """
    found: list[JsonObject] = []
    others = [name for name in environments_of(locations.project_file) if name != environment]
    keyed: str | None = None
    for name in (environment, *others):
        read = _read(locations.project_file, name, found)
        chosen = name == environment
        if read is None or (not chosen and read.project.environment == keyed):
            continue
        keyed = read.project.environment if chosen else keyed
        mine = [*inspect_references(read, SecretFiles(locations.state_folder / "credentials"))]
        if alone and chosen:
            mine += [*inspect_project(read.project), *_programs(read.project)]
        if alone or not chosen:
            mine += _policies(locations, read.project)
        mine += _tables(locations, read.project)
        where = "" if chosen else f"{name}: "
        found += [
            {**each, "message": f"{where}{each['message']}"} for each in mine if chosen or each["level"] == "error"
        ]
    if others:
        found.append(finding("ok", "environments", f"looked at {', '.join(others)} as well"))
    return _once(found)


async def check_tokens(on: Installation) -> list[JsonObject]:
    """Tokens whose actor interlock.yaml no longer declares: whoever shows one is refused."""
    now, found = on.clock.now(), []
    for token in await TokenStore(on.database).all():
        if token.revoked_at is not None or token.expires_at <= now:
            continue
        try:
            declared_actor(on.project(), token)
        except InterlockError as error:
            fix = f"interlock tokens revoke {token.id}, or declare the actor"
            found.append(finding("warning", "tokens", f"token {token.id}: {error.message}", fix))
    return found


def check_installation(on: Installation) -> list[JsonObject]:
    """What a resident process finds wrong; it reads files and asks the capabilities, so it runs in a thread."""
    project, unread = _on_disk(on)
    try:
        policies: PolicySet | InterlockError = on.loader.load(project)
    except InterlockError as error:
        policies = error
    found = [
        *check_files(on.locations, on.project().environment, alone=False),
        *unread,
        *inspect_project(project),
        *inspect_policies(policies, on.book.current),
        *_programs_in_force(on, project),
        *inspect_state(on.locations.state_folder),
        *(each for inspect in on.inspections for each in inspect(project)),
    ]
    if not on.address.separated:
        message = "the database has one role for everything: triggers alone keep the evidence append-only"
        fix = "set INTERLOCK_DATABASE_OWNER_URL to a role that owns the schema"
        found.append(finding("warning", "database", message, fix))
    return found


def _on_disk(on: Installation) -> tuple[Project, list[JsonObject]]:
    """The project as it is on disk, otherwise the one in force. What is wrong with the file `check_files` tells; here
    only what it cannot know."""
    try:
        return on.project.read(), []
    except Conflict as error:
        return on.project(), [finding("error", "project", error.message, error.fix)]
    except InterlockError:
        return on.project(), []


def _programs_in_force(on: Installation, project: Project) -> list[JsonObject]:
    """Whether what the project says about programs of its own can be loaded, with all its examples."""
    try:
        library = command_action(on.catalog).load(project)
    except InterlockError as error:
        return [finding("error", "programs", error.message, error.fix)]
    return [finding("ok", "programs", f"{len(library.programs)} programs are described soundly")]


def _programs(project: Project) -> list[JsonObject]:
    try:
        load_library(tuple(Path(project.folder, name) for name in project.programs))
    except InterlockError as error:
        return [finding("error", "programs", error.message, error.fix)]
    return []


def _read(file: Path, environment: str | None, found: list[JsonObject]) -> ReadProject | None:
    """The project as it is in one environment; what is wrong with it is added."""
    try:
        return read_project(file, environment)
    except InterlockError as error:
        faults = faults_of(error)
        found += [_of_fault(fault, str(error.details.get("file", file))) for fault in faults]
        if not faults:
            found.append({**finding("error", "project", error.message, error.fix), "file": str(file)})
    return None


def _of_fault(fault: JsonObject, file: str) -> JsonObject:
    place = {"file": fault.get("file") or file, "line": fault["line"], "path": fault["path"]}
    line = f":{place['line']}" if place["line"] else ""
    path = f" {place['path']}:" if place["path"] else ""
    message = f"{place['file']}{line}:{path} {fault['message']}"
    return {**finding("error", "project", message, str(fault["fix"])), **place}


def _loader(locations: Locations) -> PolicyLoader:
    names = Catalog(find_action_classes()).names
    clock = SystemClock()
    return PolicyLoader(
        CedarEngine(), lambda: names, own_parts(locations), realpath=os.path.realpath, monotonic=clock.monotonic
    )


def _policies(locations: Locations, project: Project) -> list[JsonObject]:
    try:
        loaded = _loader(locations).load(project)
    except InterlockError as error:
        return [{**finding("error", "policies", error.message, error.fix), **_place_of(error)}]
    return [
        finding("ok", "policies", f"{len(loaded.rules)} policies are sound"),
        *(finding("warning", "policies", warning) for warning in loaded.warnings),
    ]


def _tables(locations: Locations, project: Project) -> Iterator[JsonObject]:
    """The decision tables beside the policies: whether they can be read, and whether they come true."""
    try:
        sources, _ = read_layers(project)
        tables = [read_table_file(path) for path in table_files(project)]
        report = run_tables(_loader(locations), sources, tables, preset=project)
    except InterlockError as error:
        faults = faults_of(error)
        if faults:
            yield from (_of_fault(each, str(error.details.get("file"))) | {"area": "tables"} for each in faults)
        elif error.code == "policy.table" or not error.code.startswith("policy"):  # other ones are told already
            yield {**finding("error", "tables", error.message, error.fix), **_place_of(error)}
        return
    for row in report.failed[:TABLE_FAULTS_SHOWN]:
        message = f"{row.file}{f':{row.line}' if row.line else ''}: {row.name}: {row.fault}"
        yield {**finding("error", "tables", message, "interlock policy test"), "file": row.file, "line": row.line}
    if not report.failed and report.results:
        yield finding("ok", "tables", f"{len(report.results)} rows of decision tables come true")


def _place_of(error: InterlockError) -> JsonObject:
    return {name: value for name in ("file", "line") if isinstance(value := error.details.get(name), str | int)}


def _once(found: list[JsonObject]) -> list[JsonObject]:
    """What is wrong with interlock.yaml is wrong in every environment, and told once."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for each in found:
        key = (str(each["level"]), str(each["area"]), str(each["message"]))
        if key not in seen:
            seen.add(key)
            kept.append(each)
    return kept
