"""Which services of a Compose project an operation on one of them reaches, from the project's own files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interlock.adapters.names import require_ascii, require_visible, unique
from interlock.core.errors import Invalid
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.lib.strict_yaml import BYTES_MAX, read_yaml

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_NAMES = (
    *("compose.override.yaml", "compose.override.yml"),
    *("docker-compose.override.yaml", "docker-compose.override.yml"),
)
FILES_MAX = 16
PATH_CHARACTERS_MAX = 4096
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NOT_IN_PROJECT = re.compile(r"[^a-z0-9_-]")
_ELSEWHERE = ("extends", "include")
_NEEDS = ("depends_on", "links", "network_mode", "volumes_from", "ipc", "pid")


@dataclass(frozen=True)
class ComposeProject:
    """A project: the folder its files lie in, the files, and all names under which its containers may be labelled.

    `is_default` says that nobody gave it a name, so that the containers of its folder may know a better one.
    """

    folder: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    is_default: bool

    @property
    def target(self) -> Target:
        """The project itself."""
        return Target(kind="compose-project", id=self.names[0], names=self.names[1:])

    def service(self, name: str) -> Target:
        """One of its services, whether it has containers or not."""
        first, *others = self.names
        names = (name, f"service:{name}", *(f"compose-project:{project}" for project in self.names))
        return Target(
            kind="compose-service", id=f"{first}/{name}", names=(*names, *(f"{other}/{name}" for other in others))
        )

    def known_as(self, names: Iterable[str]) -> ComposeProject:
        """The same project with further names."""
        return replace(self, names=unique((*self.names, *sorted(set(names)))))


def locate_project(name: str, context: JsonObject) -> ComposeProject:
    """The project that Compose would work on, by its own order: `project`, COMPOSE_PROJECT_NAME, the file `.env`,
    `name:` in its file, the folder.

    `name` is `.` for the project of the context. Raises: Invalid (a relative folder, no possible name).
    """
    given = _word(context, "file")
    folder = _word(context, "folder") or "/"
    if not folder.startswith("/"):
        msg = f"the project folder {folder} is relative, and it is not said to which folder"
        raise Invalid(msg, code="path.relative", fix="name the project folder from / on")
    require_visible("project folder", folder, characters_max=PATH_CHARACTERS_MAX)
    if given:
        folder = posixpath.normpath(posixpath.dirname(posixpath.join(folder, given)))
    settings = _settings(posixpath.join(folder, _word(context, "env_file") or ".env"))
    listed = _word(context, "COMPOSE_FILE") or settings.get("COMPOSE_FILE", "")
    files = compose_files(
        folder, [posixpath.basename(given)] if given else [part for part in listed.split(":") if part]
    )
    chosen = name if name != "." else _word(context, "project") or _word(context, "COMPOSE_PROJECT_NAME")
    found = chosen or settings.get("COMPOSE_PROJECT_NAME") or ComposeFiles.read(files).name or project_name(folder)
    require_ascii("Compose project", found, _PROJECT)
    return ComposeProject(folder=folder, files=files, names=(found,), is_default=not chosen)


def project_name(folder: str) -> str:
    """What Compose calls a project that nobody named: its folder's name, folded.

    Raises: Invalid where nothing is left of it.
    """
    name = _NOT_IN_PROJECT.sub("", posixpath.basename(folder.rstrip("/")).lower()).lstrip("_-")
    if not _PROJECT.fullmatch(name):
        msg = f"the folder {folder} gives no project name"
        raise Invalid(msg, code="compose.project", fix="name the project: docker compose -p NAME")
    return name


def compose_files(folder: str, named: Sequence[str]) -> tuple[str, ...]:
    """The files Compose would read: those named, else the usual ones and their overrides."""
    if named:
        return tuple(posixpath.join(folder, name) for name in named)
    first = next((name for name in FILE_NAMES if _may_be(folder, name)), None)
    if first is None:
        return ()
    return tuple(posixpath.join(folder, name) for name in (first, *OVERRIDE_NAMES) if _may_be(folder, name))


def _may_be(folder: str, name: str) -> bool:
    """Whether a file is there, or may be where this account cannot look; reading it then tells of the doubt."""
    try:
        return Path(folder, name).is_file()
    except OSError:
        return True


class ComposeFiles:
    """What several Compose files say together. `is_whole` False means: they may say more than could be understood."""

    def __init__(self, bodies: Sequence[Mapping[str, Any]], *, is_whole: bool) -> None:
        self.name: str | None = None
        self.services: dict[str, list[Mapping[str, Any]]] = {}
        self.is_whole = is_whole and bool(bodies)
        for body in bodies:
            self._add(body)

    @classmethod
    def read(cls, paths: Sequence[str]) -> ComposeFiles:
        """Read files as far as they can be read; what cannot be is doubt, which reaches every service."""
        bodies: list[Mapping[str, Any]] = []
        is_whole = len(paths) <= FILES_MAX
        for path in paths[:FILES_MAX]:
            try:
                with Path(path).open("rb") as file:
                    body = read_yaml(file.read(BYTES_MAX + 1)).data
            except (OSError, ValueError):  # YamlFault among them
                is_whole = False
                continue
            if isinstance(body, dict):
                bodies.append(body)
            else:
                is_whole = False
        return cls(bodies, is_whole=is_whole)

    def needed_by(self, service: str) -> tuple[str, ...] | None:
        """The services that `up SERVICE` would start or make anew besides it; None when that is in doubt."""
        return self._reach(service, self._needs_of)

    def following(self, service: str) -> tuple[str, ...] | None:
        """The services that are restarted with this one (`depends_on: {db: {restart: true}}`); None in doubt."""
        return self._reach(service, lambda name: {other for other in self.services if name in self._followed_by(other)})

    def _add(self, body: Mapping[str, Any]) -> None:
        name, services = body.get("name"), body.get("services", {})
        if isinstance(name, str):
            self.name = name
        if any(key in body for key in _ELSEWHERE) or not isinstance(services, dict):
            self.is_whole = False
            return
        for service, settings in services.items():
            if not isinstance(settings, dict) or any(key in settings for key in _ELSEWHERE):
                self.is_whole = False
            elif any("$" in word for word in _needs(settings)):
                self.is_whole = False  # what a variable stands for is known to Compose alone
            self.services.setdefault(service, []).append(settings if isinstance(settings, dict) else {})

    def _reach(self, service: str, onward: Any) -> tuple[str, ...] | None:
        if not self.is_whole or service not in self.services:
            return None
        found, waiting = {service}, [service]
        while waiting:
            further = set(onward(waiting.pop())) - found
            found |= further
            waiting += sorted(further)
        return tuple(sorted(found - {service}))

    def _needs_of(self, service: str) -> set[str]:
        found: set[str] = set()
        for settings in self.services.get(service, ()):
            found |= {_service_of(word) for word in _needs(settings)}
        return found & set(self.services)

    def _followed_by(self, service: str) -> set[str]:
        found: set[str] = set()
        for settings in self.services.get(service, ()):
            needs = settings.get("depends_on")
            if isinstance(needs, dict):
                found |= {name for name, how in needs.items() if isinstance(how, dict) and how.get("restart")}
        return found


def _needs(settings: Mapping[str, Any]) -> Iterator[str]:
    """What a service says it needs, in Compose's own words: `db`, `service:vpn`, `cache:redis`."""
    for key in _NEEDS:
        value = settings.get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            yield from (str(word) for word in value)


def _service_of(word: str) -> str:
    """`db` from `db`, `db:alias`, `service:db`."""
    return word.removeprefix("service:").partition(":")[0]


def _word(context: JsonObject, key: str) -> str:
    found = context.get(key, "")
    return found if isinstance(found, str) else ""


def _settings(path: str) -> dict[str, str]:
    """The settings in a project's `.env`, as far as they are plain `NAME=value` lines."""
    try:
        with Path(path).open("rb") as file:
            lines = file.read(BYTES_MAX).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):  # none, unreadable, or no path
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
