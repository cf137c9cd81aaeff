"""Runs versions of services as containers beside each other, each made from a Compose service and one pinned image."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from interlock.adapters import docker_identity as identity
from interlock.adapters.compose_runtime_definition import (
    DEFINITION_LABEL,
    IDENTITY_LABEL,
    NAME_LABEL,
    PORT_LABEL,
    beside,
    findings,
    project_of,
    service_name,
)
from interlock.adapters.docker_engine import SOCKET, DockerEngine
from interlock.adapters.program_output import CLEAN_ENVIRONMENT, read_program
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent, Transient
from interlock.core.ports import ProcessResult, ProcessSpec, StepContext
from interlock.core.service_runtime import InstancePhase, InstanceState, RuntimeFinding, VersionSpec
from interlock.core.workload import ComposeService, ServiceWorkload
from interlock.lib.random_ids import random_hex
from interlock.lib.strict_yaml import YamlFault, read_yaml

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG_SECONDS = 30.0
UP_SECONDS = 300.0
ENGINE_SECONDS = 5.0
WORDS_CHARACTERS_MAX = 500
_PHASES: dict[str, InstancePhase] = {
    "created": "starting",
    "running": "running",
    "restarting": "waiting",
    "paused": "stopped",
    "removing": "stopped",
    "exited": "stopped",
    "dead": "given_up",
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NEVER = "0001-"
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


class ComposeServices:
    """The runtime of workloads with `compose`. Other containers of the engine are never touched.

    Args:
        folder: Ours: the Compose files of versions, which may hold what the operator's environment files hold.
        base: The folder from which a relative Compose file is meant.
        environment: The operator's settings for docker (DOCKER_HOST).
        path: Where docker and docker-compose are looked for.
    """

    def __init__(
        self,
        folder: Path,
        base: Callable[[], str],
        environment: Callable[[], Mapping[str, str]],
        *,
        path: str = PATH,
    ) -> None:
        self._folder = folder
        self._path_of_programs = path
        self._base = base
        self._settings = environment
        self._words: tuple[str, ...] | None = None

    def identify(self, workload: str, version: str, declared: ServiceWorkload) -> str:
        """A tag, the digest of an image in a registry (64 digits), or an image id (the same); it is here already."""
        image = declared.source.image
        if image is None:
            msg = f"{workload} has no image"
            raise Invalid(msg, code="service.image")
        engine = self._engine()
        names = [f"{image}:{version}"]
        if _DIGEST.fullmatch(version):
            names = [f"{image}@sha256:{version}", f"sha256:{version}"]
        for name in names:
            try:
                return f"image:{identity.text(engine.get('images', name, 'json'), 'Id')}"
            except NotFound:
                continue
        msg = f"there is no image {names[0]} on this machine"
        raise NotFound(msg, code="image.unknown", fix=f"docker pull {names[0]}")

    def start(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """Let Compose make it and start it."""
        compose = _compose_of(spec.declared)
        body = beside(spec, compose, self._config(compose))
        wanted = _labels_in(body)
        container = self._container(spec)
        if container is not None:
            self._require_own(spec, container, wanted)
            if _phase(container) in {"running", "starting", "waiting"}:
                return self._shown(spec, container)
        context.hold()
        self._write(spec, body)
        result = self._run(spec, context, "up", "--detach", "--no-build")
        if result.exit_code != 0:
            msg = f"Compose did not start {spec.name}: {_words_of(result)}"
            raise Permanent(msg, code="compose.refused", fix=f"see the Run's output; docker logs {service_name(spec)}")
        return self._required(spec)

    def stop(self, spec: VersionSpec, context: StepContext) -> None:
        """End it and remove its container; networks and volumes were never ours."""
        if self._container(spec) is None:
            self._path(spec).unlink(missing_ok=True)
            return
        if not self._path(spec).exists():
            self._write(spec, {"services": {service_name(spec): {"image": spec.identity.removeprefix("image:")}}})
        grace = str(max(1, round(spec.declared.stop_grace_seconds)))
        result = self._run(spec, context, "down", "--timeout", grace)
        if result.exit_code != 0:
            msg = f"Compose did not stop {spec.name}: {_words_of(result)}"
            raise Transient(msg, code="compose.refused", fix="see the Run's output")
        self._path(spec).unlink(missing_ok=True)

    def restart(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """The same container anew."""
        if self._container(spec) is None or not self._path(spec).exists():
            msg = f"there is no container of {spec.name}"
            raise NotFound(msg, code="service.unknown", fix="start it")
        grace = str(max(1, round(spec.declared.stop_grace_seconds)))
        result = self._run(spec, context, "restart", "--timeout", grace)
        if result.exit_code != 0:
            msg = f"Compose did not restart {spec.name}: {_words_of(result)}"
            raise Transient(msg, code="compose.refused", fix="see the Run's output")
        return self._required(spec)

    def state(self, spec: VersionSpec) -> InstanceState | None:
        """As the engine tells."""
        container = self._container(spec)
        return None if container is None else self._shown(spec, container)

    def listens(self, spec: VersionSpec) -> bool | None:  # noqa: ARG002
        """Its processes listen in a network of their own; the engine keeps the port on this side for them."""
        return None

    def said(self, spec: VersionSpec, lines_max: int) -> str:
        """From the engine, as long as there is the container."""
        container = self._container(spec)
        if container is None or not self._path(spec).exists():
            return ""
        words = ("logs", "--no-color", "--no-log-prefix", "--tail", str(lines_max))
        argv = [*self._program(), "-f", str(self._path(spec)), "-p", project_of(spec), *words]
        answer = read_program(
            argv, timeout_seconds=CONFIG_SECONDS, environment=self._environment(), decode_errors="replace"
        )
        if answer.exit_code != 0:
            said = " ".join(answer.stderr.split())[-WORDS_CHARACTERS_MAX:]
            msg = f"Compose does not show the log of {spec.name}: {said}"
            raise Transient(msg, code="compose.refused", fix=self._shown(spec, container).log)
        return answer.stdout

    def inspect(self, workload: str, declared: ServiceWorkload) -> Iterable[RuntimeFinding]:
        """What Compose itself says of the file, and what stands against a second container."""
        return findings(workload, declared, self._config(_compose_of(declared)))

    # The engine.

    def _engine(self) -> DockerEngine:
        address = self._environment().get("DOCKER_HOST") or f"unix://{SOCKET}"
        if not address.startswith("unix:///"):
            msg = "the operator's DOCKER_HOST is not a Unix socket of this machine"
            raise Invalid(msg, code="docker.remote", fix="set DOCKER_HOST to unix:///path/of.sock in interlock.yaml")
        return DockerEngine(address.removeprefix("unix://"), timeout_seconds=ENGINE_SECONDS)

    def _container(self, spec: VersionSpec) -> Any:
        """Ours alone. Raises Conflict when there are several."""
        engine = self._engine()
        labels = [f"{NAME_LABEL}={spec.name}", f"{identity.PROJECT_LABEL}={project_of(spec)}"]
        found = engine.get("containers", "json", all="1", filters={"label": labels})
        ids = [identity.full_id(entry, "Id") for entry in identity.listing({"list": found}, "list")]
        if len(ids) > 1:
            msg = f"{spec.name} has {len(ids)} containers: {', '.join(each[:12] for each in ids[:5])}"
            raise Conflict(msg, code="compose.several", fix="docker rm those that should not be")
        try:
            return engine.get("containers", ids[0], "json") if ids else None
        except NotFound:
            return None  # it was removed since

    def _require_own(self, spec: VersionSpec, container: Any, wanted: Mapping[str, str]) -> None:
        labels = identity.dictionary(identity.dictionary(container, "Config"), "Labels")
        other = [name for name in (IDENTITY_LABEL, PORT_LABEL, DEFINITION_LABEL) if labels.get(name) != wanted[name]]
        if other and _phase(container) in {"running", "waiting"}:
            what = ", ".join(name.rpartition(".")[2] for name in other)
            msg = f"{spec.name} runs already, with another {what}"
            raise Conflict(msg, code="service.other", fix="stop it first")

    def _required(self, spec: VersionSpec) -> InstanceState:
        container = self._container(spec)
        if container is None:
            msg = f"Compose said that it started {spec.name}, and there is no container of it"
            raise Transient(msg, code="compose.vanished", fix="docker ps --all")
        return self._shown(spec, container)

    def _shown(self, spec: VersionSpec, container: Any) -> InstanceState:
        state = identity.dictionary(container, "State")
        phase = _phase(container)
        code = state.get("ExitCode")
        ended = str(state.get("FinishedAt") or _NEVER).startswith(_NEVER) is False
        return InstanceState(
            phase=phase,
            address=spec.address,
            identity=f"image:{identity.text(container, 'Image')}",
            pid=int(state.get("Pid") or 0) or None,
            started_at=_moment(state.get("StartedAt")),
            restarts=int(container.get("RestartCount") or 0),
            last_exit=f"exit {code}" if ended else None,
            log=f"docker logs {identity.full_id(container, 'Id')[:12]}",
        )

    # Compose.

    def _environment(self) -> dict[str, str]:
        return {**CLEAN_ENVIRONMENT, "PATH": self._path_of_programs, **self._settings()}

    def _program(self) -> tuple[str, ...]:
        """`docker compose` or `docker-compose`: whichever is here."""
        if self._words is None:
            docker, alone = (shutil.which(name, path=self._path_of_programs) for name in ("docker", "docker-compose"))
            if docker is not None:
                answer = read_program(
                    [docker, "compose", "version"], timeout_seconds=CONFIG_SECONDS, environment=self._environment()
                )
                if answer.exit_code == 0:
                    self._words = (docker, "compose")
            if self._words is None and alone is not None:
                self._words = (alone,)
        if self._words is None:
            msg = "there is neither `docker compose` nor `docker-compose` on this machine"
            raise Permanent(msg, code="compose.absent", fix="apt install docker-compose")
        return self._words

    def _config(self, compose: ComposeService) -> Mapping[str, Any]:
        """The whole project with all its values. Raises Permanent with Compose's own words."""
        file = Path(self._base(), compose.file)
        if not file.is_file():
            msg = f"there is no Compose file {file}"
            raise Permanent(msg, code="compose.file", fix="correct `compose.file`")
        argv = [*self._program(), "-f", str(file), "-p", compose.project, "config"]
        answer = read_program(argv, timeout_seconds=CONFIG_SECONDS, environment=self._environment())
        if answer.exit_code != 0:
            said = " ".join(answer.stderr.split())[-WORDS_CHARACTERS_MAX:]
            msg = f"Compose refuses {file}: {said}"
            raise Permanent(msg, code="compose.refused", fix=f"docker compose -f {file} config")
        try:
            body = read_yaml(answer.stdout.encode()).data
        except YamlFault as error:
            msg = f"what Compose makes of {file} cannot be read: {error.message}"
            raise Permanent(msg, code="compose.unreadable", fix=f"docker compose -f {file} config") from error
        if not isinstance(body, dict):
            msg = f"what Compose makes of {file} holds no services"
            raise Permanent(msg, code="compose.unreadable", fix=f"docker compose -f {file} config")
        return body

    def _path(self, spec: VersionSpec) -> Path:
        return self._folder / f"{spec.name}.json"

    def _write(self, spec: VersionSpec, body: Mapping[str, Any]) -> None:
        """JSON is YAML. Whole or not at all, and ours alone."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f".{spec.name}.{random_hex(6)}"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            json.dump(body, file)
        new.replace(self._path(spec))

    def _run(self, spec: VersionSpec, context: StepContext, *words: str) -> ProcessResult:
        program = self._program()
        compose = _compose_of(spec.declared)
        folder = str(Path(self._base(), compose.file).parent)
        argv = (*program, "-f", str(self._path(spec)), "-p", project_of(spec), "--project-directory", folder, *words)
        return context.execute(
            ProcessSpec(
                path=program[0],
                argv=argv,
                environment=self._environment(),
                timeout_seconds=UP_SECONDS + spec.declared.stop_grace_seconds,
            )
        )


def _compose_of(declared: ServiceWorkload) -> ComposeService:
    if declared.compose is None:
        msg = "this workload has no Compose service"
        raise Invalid(msg, code="service.runtime")
    return declared.compose


def _labels_in(body: Mapping[str, Any]) -> Mapping[str, str]:
    (service,) = body["services"].values()
    found: Mapping[str, str] = service["labels"]
    return found


def _phase(container: Any) -> InstancePhase:
    """One that ended by itself, and that nobody starts again, was given up."""
    state = identity.dictionary(container, "State")
    phase = _PHASES.get(identity.text(state, "Status"), "stopped")
    if phase == "stopped" and state.get("ExitCode") not in {0, 137, 143, None}:
        return "given_up"
    return phase


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str) or value.startswith(_NEVER):
        return None
    try:
        return datetime.fromisoformat(_FRACTION.sub(r".\1", value))
    except ValueError:
        return None


def _words_of(result: ProcessResult) -> str:
    how = "it took too long" if result.timed_out else f"exit {result.exit_code}"
    return f"{' '.join(result.tail.split())[-WORDS_CHARACTERS_MAX:] or how}"
