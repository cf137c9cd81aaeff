"""Reads interlock.yaml into a Project, or says in which line what is wrong and how to mend it."""

from __future__ import annotations

import glob
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from interlock.core.environment import ENVIRONMENT
from interlock.core.errors import Invalid, NotFound
from interlock.core.project import Project
from interlock.core.role import BUILT_IN_ROLES
from interlock.engine.trusted_file import read_trusted
from interlock.engine.yaml_model import Faults, fault_at, faults_of, invalid, read_document, to_model, written
from interlock.lib.overlay import lay_over
from interlock.lib.strict_yaml import BYTES_MAX, Document
from interlock.lib.strict_yaml import Path as YamlPath

FILE_NAME = "interlock.yaml"
ENTRIES_MAX = 1000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
"""Names of people, agents and services: what stands after `person:`, `agent:` and `service:` in evidence."""

IDENTITIES = ("people", "agents", "services")

_CODE = "project.invalid"
_BASE_ONLY = ("version", "environment", "folder")
_ENVIRONMENT_FIX = "Use lower-case letters, digits, - and _, as in prod."


@dataclass(frozen=True)
class ReadProject:
    """A project, and the document that it was made from: of each value the file and the line.

    `environment` is the one that was chosen, `chosen_by` says whether it was `asked` for or the file's own key.
    """

    project: Project
    document: Document
    file: Path
    overlay: Path | None
    chosen_by: Literal["asked", "key"] | None


def load_project(path: Path, environment: str | None = None) -> Project:
    """The project that a file declares. `path` is the file or the folder in which interlock.yaml lies.

    Relative paths in it become absolute, from that folder, and `on_behalf_of: person:alice` becomes `alice`. Nothing
    but the file is read, and the overlay of the environment: of `environment`, otherwise of the file's own key.

    Raises:
        NotFound: there is no such file, or no overlay for this environment.
        Invalid: one cannot be read or trusted, is not plain YAML, or both together do not say what a project may say.
            `details` holds `file`, `line` and `path` of the first fault, and `faults` with all of them.
    """
    return read_project(path, environment).project


def read_project(path: Path, environment: str | None = None) -> ReadProject:
    """`load_project`, with the places of all values. Raises as `load_project`."""
    file = (path / FILE_NAME if path.is_dir() else path).absolute()
    try:
        body = read_trusted(file, BYTES_MAX)
    except NotFound as error:
        error.fix = "interlock init"
        raise
    base = read_document(body, str(file), _CODE)
    chosen = environment if environment is not None else base.data.get("environment")
    if chosen is None:
        return _made(base, file, None, None)
    if not isinstance(chosen, str) or not ENVIRONMENT.fullmatch(chosen):
        fault = fault_at(("environment",), base.line_of(("environment",)), f"{chosen!r} is no name", _ENVIRONMENT_FIX)
        raise invalid(str(file), [fault], _CODE)
    overlay = overlay_file(file, chosen)
    document = _with_overlay(base, file, read_overlay(overlay, file), overlay)
    document.data["environment"] = chosen
    return _made(document, file, overlay, "key" if environment is None else "asked")


def read_base(path: Path) -> ReadProject:
    """The file without any overlay, whatever its key says. Raises as `load_project`."""
    file = (path / FILE_NAME if path.is_dir() else path).absolute()
    base = read_document(read_trusted(file, BYTES_MAX), str(file), _CODE)
    return _made(
        replace(base, data={key: base.data[key] for key in base.data if key != "environment"}), file, None, None
    )


def overlay_file(file: Path, environment: str) -> Path:
    """Where the overlay of an environment lies: `interlock.prod.yaml` beside `interlock.yaml`."""
    return file.with_name(f"{file.stem}.{environment}{file.suffix}")


def environments_of(file: Path) -> tuple[str, ...]:
    """The environments that have an overlay beside this file, by name."""
    names = (path.name for path in file.parent.glob(f"{glob.escape(file.stem)}.*{glob.escape(file.suffix)}"))
    ends = (name.removeprefix(f"{file.stem}.").removesuffix(file.suffix) for name in names)
    return tuple(sorted(name for name in ends if ENVIRONMENT.fullmatch(name)))


def read_overlay(overlay: Path, file: Path) -> Document:
    """An overlay as it stands; it is trusted as the file itself is, or not at all. Raises as `load_project`."""
    try:
        return read_document(read_trusted(overlay, BYTES_MAX), str(overlay), _CODE)
    except NotFound as error:
        known = environments_of(file)
        msg = f"there is no {overlay}"
        fix = f"choose one of {', '.join(known)}" if known else f"write {overlay.name}, or choose no environment"
        raise NotFound(msg, code="project.environment", fix=fix, details={"known": list(known)}) from error


def parse_project(body: bytes, file: Path) -> Project:
    """`load_project` for bytes that are already there, without an overlay; `file` is where they came from.

    Raises:
        Invalid: as `load_project`.
    """
    return _made(read_document(body, str(file), _CODE), file, None, None).project


def _with_overlay(base: Document, file: Path, over: Document, overlay: Path) -> Document:
    """Both as one. Raises Invalid for what only the file itself may say, and for a removal of what is not there."""
    faults = Faults(over)
    for key in _BASE_ONLY:
        if key in over.data:
            faults.add((key,), f"`{key}` cannot be said by an overlay", f"Say it in {file.name}.")
    document, absent = lay_over(base, str(file), over, str(overlay))
    for path in absent:
        message = f"there is no `{written(path)}` in {file.name} that could be removed"
        faults.add(path, message, "Remove the line, or mend the name.")
    if faults.found:
        raise invalid(str(overlay), faults.found, _CODE)
    return document


def _made(
    document: Document, file: Path, overlay: Path | None, chosen_by: Literal["asked", "key"] | None
) -> ReadProject:
    """Every fault is told at once: where a section does not fit, the others are looked at all the same."""
    faults = Faults(document)
    if "folder" in document.data:
        faults.add(("folder",), "`folder` is where the file lies and cannot be set", "Remove the line.")
    given = {key: value for key, value in document.data.items() if key != "folder"}
    broken: frozenset[str] = frozenset()
    try:
        project = to_model(Project, replace(document, data=given), str(file), _CODE, {"folder": str(file.parent)})
    except Invalid as error:
        found = faults_of(error)
        faults.found += found
        broken = frozenset(re.split(r"[.\[]", str(fault["path"]))[0] for fault in found)
        sound = {key: value for key, value in given.items() if key not in broken}
        project = to_model(Project, replace(document, data=sound), str(file), _CODE, {"folder": str(file.parent)})
    _check_sense(faults, project, broken)
    if faults.found:
        raise invalid(str(file), faults.found, _CODE)
    return ReadProject(_settled(project, file.parent), document, file, overlay, chosen_by)


def _check_sense(faults: Faults, project: Project, broken: frozenset[str]) -> None:
    """What types cannot say. Nothing is said about sections that refer to one that is `broken`."""
    for key in (*IDENTITIES, "windows", "protected", "policies", "programs", "contexts", "schedules"):
        if len(getattr(project, key)) > ENTRIES_MAX:
            faults.add((key,), f"more than {ENTRIES_MAX} entries", "Declare fewer, with patterns where possible.")
    _check_windows(faults, project)
    _check_paths(faults, project)
    if not broken & frozenset(IDENTITIES):
        _check_identities(faults, project)
    if not broken & {"roles", "services"}:
        _check_roles(faults, project)
    if not broken & {"schedules", "services"}:
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
