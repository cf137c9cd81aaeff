"""Reads interlock.yaml into a Project, or says in which line what is wrong and how to mend it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from interlock.core.errors import NotFound
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.role import BUILT_IN_ROLES
from interlock.engine.trusted_file import read_trusted
from interlock.engine.yaml_model import Faults, invalid, read_document, to_model
from interlock.lib.strict_yaml import BYTES_MAX
from interlock.lib.strict_yaml import Path as YamlPath

FILE_NAME = "interlock.yaml"
ENTRIES_MAX = 1000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
"""Names of people, agents and services: what stands after `person:`, `agent:` and `service:` in evidence."""

IDENTITIES = ("people", "agents", "services")

_CODE = "project.invalid"


def load_project(path: Path) -> Project:
    """The project that a file declares. `path` is the file or the folder in which interlock.yaml lies.

    Relative paths in it become absolute, from that folder, and `on_behalf_of: person:alice` becomes `alice`. Nothing
    but the file is read.

    Raises:
        NotFound: there is no such file.
        Invalid: it cannot be read or trusted, is not plain YAML, or does not say what a project may say. `details`
            holds `file`, `line` and `path` of the first fault, and `faults` with all of them.
    """
    file = (path / FILE_NAME if path.is_dir() else path).absolute()
    try:
        body = read_trusted(file, BYTES_MAX)
    except NotFound as error:
        error.fix = "interlock init"
        raise
    return parse_project(body, file)


def parse_project(body: bytes, file: Path) -> Project:
    """`load_project` for bytes that are already there; `file` is where they came from.

    Raises:
        Invalid: as `load_project`.
    """
    document = read_document(body, str(file), _CODE)
    faults = Faults(document)
    if "folder" in document.data:
        faults.add(("folder",), "`folder` is where the file lies and cannot be set", "Remove the line.")
        raise invalid(str(file), faults.found, _CODE)
    project = to_model(Project, document, str(file), _CODE, {"folder": str(file.parent)})
    _check_sense(faults, project)
    if faults.found:
        raise invalid(str(file), faults.found, _CODE)
    return _settled(project, file.parent)


def project_json_schema() -> JsonObject:
    """The JSON Schema of interlock.yaml, for editors."""
    schema: JsonObject = Project.model_json_schema(by_alias=True)
    properties = schema["properties"]
    if isinstance(properties, dict):
        properties.pop("folder", None)
    return schema


def _check_sense(faults: Faults, project: Project) -> None:
    """What types cannot say."""
    for key in (*IDENTITIES, "windows", "protected", "policies", "programs", "contexts", "schedules"):
        if len(getattr(project, key)) > ENTRIES_MAX:
            faults.add((key,), f"more than {ENTRIES_MAX} entries", "Declare fewer, with patterns where possible.")
    _check_windows(faults, project)
    _check_identities(faults, project)
    _check_roles(faults, project)
    _check_paths(faults, project)
    _check_schedules(faults, project)


def _check_schedules(faults: Faults, project: Project) -> None:
    for name, schedule in project.schedules.items():
        if schedule.service not in project.services:
            message = f"a schedule asks as a service, and {schedule.service!r} is not among `services`"
            faults.add(("schedules", name, "as"), message, "Declare the service with its roles, and name it with `as`.")


def _check_windows(faults: Faults, project: Project) -> None:
    names = Counter(window.name for window in project.windows)
    for index, window in enumerate(project.windows):
        if not _is_timezone(window.timezone):
            message = f"there is no timezone {window.timezone!r} on this machine"
            faults.add(("windows", index, "timezone"), message, "Use a name such as Europe/Berlin, or UTC.")
        if names[window.name] > 1:
            faults.add(("windows", index, "name"), f"two windows are called {window.name!r}", "Rename one.")


def _check_paths(faults: Faults, project: Project) -> None:
    for key in ("read", "write"):
        for index, root in enumerate(getattr(project.roots, key)):
            _check_path(faults, ("roots", key, index), root)
    for key in ("policies", "programs"):
        for index, entry in enumerate(getattr(project, key)):
            _check_path(faults, (key, index), entry)
    for index, pattern in enumerate(project.protected):
        kind, _, rest = pattern.partition(":")
        if kind == "file":
            _check_path(faults, ("protected", index), rest)
        if kind != kind.lower() or not rest.strip():
            faults.add(
                ("protected", index), f"{pattern!r} names nothing", "Write KIND:PATTERN, as in unit:postgresql*."
            )


def _check_identities(faults: Faults, project: Project) -> None:
    for key in IDENTITIES:
        for name in getattr(project, key):
            if not NAME.fullmatch(name):
                faults.add((key, name), f"{name!r} is not a name", "Use letters, digits and . _ @ -")
    for name, agent in project.agents.items():
        if agent.on_behalf_of is not None and agent.on_behalf_of.removeprefix("person:") not in project.people:
            message = f"{agent.on_behalf_of!r} is not among `people`"
            faults.add(("agents", name, "on_behalf_of"), message, "Name somebody declared under `people`.")
    owner: dict[str, str] = {}
    for key in IDENTITIES:
        for name, identity in getattr(project, key).items():
            if identity.user is None:
                continue
            first = owner.setdefault(identity.user, f"{key}.{name}")
            if first != f"{key}.{name}":
                message = f"the account {identity.user!r} already belongs to {first}"
                faults.add((key, name, "user"), message, "Give each person, service and agent an account of its own.")


def _check_roles(faults: Faults, project: Project) -> None:
    for name in project.roles or {}:
        if not NAME.fullmatch(name):
            faults.add(("roles", name), f"{name!r} is not a name", "Use letters, digits and . _ @ -")
    known = sorted({*BUILT_IN_ROLES, *(project.roles or {})})
    for name, service in project.services.items():
        for role in service.roles:
            if role not in known:
                fix = f"Declare it under `roles`, or use one of {', '.join(known)}."
                faults.add(("services", name, "roles"), f"there is no role {role!r}", fix)


def _check_path(faults: Faults, path: YamlPath, text: str) -> None:
    if text.startswith("~") or "$" in text or "\0" in text or not text:
        message = f"{text!r} is not expanded"
        faults.add(path, message, "Write the path in full, or relative to the folder of interlock.yaml.")


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _settled(project: Project, folder: Path) -> Project:
    """With absolute paths, and people called by their plain names."""

    def absolute(text: str) -> str:
        return str(folder / text)

    def absolute_pattern(pattern: str) -> str:
        kind, _, rest = pattern.partition(":")
        return f"file:{absolute(rest)}" if kind == "file" else pattern

    return project.model_copy(
        update={
            "roots": project.roots.model_copy(
                update={
                    "read": tuple(map(absolute, project.roots.read)),
                    "write": tuple(map(absolute, project.roots.write)),
                }
            ),
            "programs": tuple(map(absolute, project.programs)),
            "policies": tuple(map(absolute, project.policies)),
            "protected": tuple(map(absolute_pattern, project.protected)),
            "agents": {
                name: agent.model_copy(
                    update={"on_behalf_of": agent.on_behalf_of and agent.on_behalf_of.removeprefix("person:")}
                )
                for name, agent in project.agents.items()
            },
            "contexts": {
                name: context.model_copy(update={"folder": absolute(context.folder)})
                for name, context in project.contexts.items()
            },
        }
    )
