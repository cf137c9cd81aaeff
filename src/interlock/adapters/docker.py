"""Turns names of containers, images, volumes, networks and Compose services into what the Docker engine knows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from interlock.adapters import docker_identity as identity
from interlock.adapters.docker_compose import ComposeFiles, ComposeProject, locate_project
from interlock.adapters.docker_engine import PODMAN_SOCKET, SOCKET, DockerEngine
from interlock.adapters.names import require_ascii
from interlock.core.errors import Invalid, NotFound
from interlock.core.model import JsonObject
from interlock.core.plan import Target

TARGETS_MAX = 500

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_BRINGS_UP = frozenset({"compose.up", "container.start", "container.recreate"})
_NEEDS_NO_CONTAINER = frozenset({"image.pull", "image.tag", "image.build"})
_AT_REST = ("created", "exited", "dead")


def _real_path(path: str) -> tuple[str, ...]:
    return (os.path.realpath(path),)


class DockerTargets:
    """Everything of one engine: at the operator's DOCKER_HOST (in context), or else at `socket_path`.

    Args:
        socket_path: The engine's Unix socket.
        podman_path: The same of Podman (`podman system service`), asked where context says `engine: podman`.
        timeout_seconds: For each question to it.
        paths_of: The real path of a mounted folder and all other known ones (`FileTargets.paths_of`).

    Context keys: DOCKER_HOST, `engine`, CONTAINER_HOST; for Compose `folder`, `project`, `file`, `env_file`,
    `services`, COMPOSE_PROJECT_NAME and COMPOSE_FILE.
    """

    kinds: tuple[str, ...] = ("container", "image", "volume", "network", "compose-service", "compose-project")

    def __init__(
        self,
        socket_path: str = SOCKET,
        *,
        podman_path: str = PODMAN_SOCKET,
        timeout_seconds: float = 5.0,
        paths_of: Callable[[str], tuple[str, ...]] = _real_path,
    ) -> None:
        self._socket_path = socket_path
        self._podman_path = podman_path
        self._timeout_seconds = timeout_seconds
        self._paths_of = paths_of

    def resolve(self, kind: str, name: str, context: JsonObject) -> tuple[Target, ...]:
        """One target; for a Compose service also its containers.

        Raises: Invalid (no such kind of name, or the beginning of several ids), NotFound, Transient, Permanent.
        """
        engine = self._engine(context)
        if kind == "compose-project":
            return (self._project(engine, name, context).target,)
        require_ascii(kind, name, _IMAGE if kind == "image" else _NAME)
        if kind == "compose-service":
            project = self._project(engine, name=".", context=context)
            return (project.service(name), *self._of_project(engine, project.names, service=name))
        if kind == "container":
            return (self._container(engine, name),)
        if kind == "volume":
            return (self._volume(engine, engine.get("volumes", name)),)
        if kind == "network":
            return (identity.network_target(engine.get("networks", name)),)
        return (_image(engine, name),)

    def pulled_along(self, target: Target, operation: str, context: JsonObject) -> tuple[Target, ...]:
        """What else falls: containers in another's network, users of a volume, image or network, what a Compose
        service needs, and for a Compose project all that it is made of, unless `services` in context names its parts.
        An operation on `host` is a prune.

        Raises: Invalid (more than a plan can show), NotFound, Transient, Permanent.
        """
        engine = self._engine(context)
        reach = {
            "container": self._behind_container,
            "volume": self._behind_volume,
            "image": self._behind_image,
            "network": self._behind_network,
            "compose-service": self._behind_service,
            "compose-project": self._behind_project,
            "host": self._pruned,
        }.get(target.kind)
        if reach is None:
            return ()
        found = {other.key: other for other in reach(engine, target, operation, context) if other.key != target.key}
        _require_few(len(found))
        return tuple(found[key] for key in sorted(found))

    def everything(self, context: JsonObject) -> tuple[Target, ...]:
        """Every container that is not at rest. Raises NotFound (no engine here), Invalid, Transient, Permanent."""
        engine = self._engine(context)
        return tuple(self._listed(engine, {"status": ["running", "paused", "restarting"]}))

    def _engine(self, context: JsonObject) -> DockerEngine:
        """Podman answers the same questions on a socket of its own; its containers are not Docker's."""
        is_podman = context.get("engine") == "podman"
        variable, usual = ("CONTAINER_HOST", self._podman_path) if is_podman else ("DOCKER_HOST", self._socket_path)
        address = context.get(variable) or f"unix://{usual}"
        if not isinstance(address, str) or not address.startswith("unix:///"):
            msg = f"the operator's {variable} is not a Unix socket of this machine"
            raise Invalid(msg, code="docker.remote", fix=f"set {variable} to unix:///path/of.sock in interlock.yaml")
        return DockerEngine(address.removeprefix("unix://"), timeout_seconds=self._timeout_seconds)

    def _container(self, engine: DockerEngine, name: str) -> Target:
        body = engine.get("containers", name, "json")
        return identity.container_target(body, self._volumes_of(engine, body), self._paths_of)

    def _volumes_of(self, engine: DockerEngine, body: Any) -> Iterator[Any]:
        for mount in identity.listing(body, "Mounts"):
            name = identity.text(mount, "Name")
            if identity.text(mount, "Type") == "volume" and name:
                try:
                    yield engine.get("volumes", name)
                except NotFound:
                    continue  # it is gone; the mount itself still tells where it lay

    def _listed(self, engine: DockerEngine, filters: dict[str, list[str]]) -> Iterator[Target]:
        """The containers that the engine lists for these filters; those that vanish meanwhile are left out."""
        found = [
            identity.full_id(entry, "Id")
            for entry in _entries(engine.get("containers", "json", all="1", filters=filters))
        ]
        _require_few(len(found))
        for container in found:
            try:
                yield self._container(engine, container)
            except NotFound:
                continue

    def _volume(self, engine: DockerEngine, body: Any) -> Target:
        users = self._listed(engine, {"volume": [identity.text(body, "Name")]})
        return identity.volume_target(body, users, self._paths_of)

    def _project(self, engine: DockerEngine, name: str, context: JsonObject) -> ComposeProject:
        """The project of the context, under the name that its own containers give it too."""
        project = locate_project(name, context)
        entries = _entries(engine.get("containers", "json", all="1", filters={"label": [identity.PROJECT_LABEL]}))
        labels = [identity.dictionary(entry, "Labels") for entry in entries]
        return project.known_as(
            identity.text(found, identity.PROJECT_LABEL)
            for found in labels
            if project.is_default
            and identity.text(found, identity.FOLDER_LABEL) in {project.folder, os.path.realpath(project.folder)}
        )

    def _of_project(self, engine: DockerEngine, projects: Iterable[str], *, service: str = "") -> list[Target]:
        found: list[Target] = []
        for project in projects:
            labels = [
                f"{identity.PROJECT_LABEL}={project}",
                *([f"{identity.SERVICE_LABEL}={service}"] if service else []),
            ]
            found += self._listed(engine, {"label": labels})
        return found

    def _behind_container(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        """Containers that live in its network, and with `volume.remove` the volumes that nobody named."""
        del context
        if operation == "volume.remove":
            body = engine.get("containers", target.id, "json")
            for mount in identity.listing(body, "Mounts"):
                name = identity.text(mount, "Name")
                if identity.text(mount, "Type") == "volume" and _ANONYMOUS.fullmatch(name):
                    yield self._volume(engine, engine.get("volumes", name))
            return
        hosts = {f"container:{name}" for name in (target.id, *target.names)}
        for entry in _entries(engine.get("containers", "json", all="1")):
            if identity.text(identity.dictionary(entry, "HostConfig"), "NetworkMode") in hosts:
                yield self._container(engine, identity.full_id(entry, "Id"))

    def _behind_volume(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        del operation, context
        yield from self._listed(engine, {"volume": [target.id]})

    def _behind_image(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        del context
        if operation not in _NEEDS_NO_CONTAINER:
            yield from self._listed(engine, {"ancestor": [target.id]})

    def _behind_network(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        del operation, context
        yield from self._listed(engine, {"network": [target.id]})

    def _behind_service(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        """What `up` and `start` bring up with it, and what is restarted with it; the whole project in doubt."""
        if operation in _NEEDS_NO_CONTAINER or operation in {"network.remove", "volume.remove"}:
            return
        project = self._project(engine, ".", context)
        service = target.id.rpartition("/")[2]
        files = ComposeFiles.read(project.files)
        following = files.following(service)
        needed = files.needed_by(service) if operation in _BRINGS_UP else ()
        if following is None or needed is None:
            yield from self._whole_project(engine, project, files)
            return
        for name in sorted({*following, *needed}):
            yield project.service(name)
            yield from self._of_project(engine, project.names, service=name)

    def _behind_project(
        self, engine: DockerEngine, target: Target, operation: str, context: JsonObject
    ) -> Iterator[Target]:
        project = self._project(engine, target.id, context)
        labels = [f"{identity.PROJECT_LABEL}={name}" for name in project.names]
        if operation == "volume.remove":
            for label in labels:
                volumes = identity.listing(engine.get("volumes", filters={"label": [label]}), "Volumes")
                yield from (self._volume(engine, body) for body in volumes)
        elif operation == "network.remove":
            for label in labels:
                found = _entries(engine.get("networks", filters={"label": [label]}))
                yield from (identity.network_target(body) for body in found)
        elif not context.get("services") and operation not in _NEEDS_NO_CONTAINER:
            yield from self._whole_project(engine, project, ComposeFiles.read(project.files))

    def _whole_project(self, engine: DockerEngine, project: ComposeProject, files: ComposeFiles) -> Iterator[Target]:
        yield from (project.service(name) for name in files.services)
        yield from self._of_project(engine, project.names)

    def _pruned(self, engine: DockerEngine, target: Target, operation: str, context: JsonObject) -> Iterator[Target]:
        """What is removed when all that is unused of a kind is: containers at rest first, then what only they used."""
        del target, context
        if operation == "container.remove":
            yield from self._listed(engine, {"status": list(_AT_REST)})
        elif operation == "network.remove":
            yield from (
                identity.network_target(body)
                for body in _entries(engine.get("networks", filters={"dangling": ["true"]}))
            )
        elif operation in {"image.remove", "volume.remove"}:
            running = _entries(engine.get("containers", "json"))
            if operation == "image.remove":
                used = {identity.text(entry, "ImageID") for entry in running}
                images = _entries(engine.get("images", "json"))
                _require_few(len(images))
                yield from (_image(engine, identity.text(body, "Id")) for body in images if body.get("Id") not in used)
                return
            used = {identity.text(mount, "Name") for entry in running for mount in identity.listing(entry, "Mounts")}
            found = identity.listing(engine.get("volumes"), "Volumes")
            yield from (self._volume(engine, body) for body in found if identity.text(body, "Name") not in used)


def _image(engine: DockerEngine, name: str) -> Target:
    """An image; one that is not here yet is what it is called."""
    try:
        body = engine.get("images", name, "json")
    except NotFound:
        return Target(kind="image", id=name, names=())
    found = identity.image_target(body)
    return found if name in {found.id, *found.names} else found.model_copy(update={"names": (*found.names, name)})


def _entries(body: Any) -> list[Any]:
    """A list of objects. Raises Transient for anything else."""
    return [
        entry for entry in identity.listing({"list": body}, "list") if identity.dictionary({"entry": entry}, "entry")
    ]


def _require_few(count: int) -> None:
    if count > TARGETS_MAX:
        msg = f"this would touch {count} things of the Docker engine, more than a plan can show"
        raise Invalid(msg, code="docker.too_wide", fix="name fewer")
