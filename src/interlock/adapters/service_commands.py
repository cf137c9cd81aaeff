"""Runs versions of services as programs under Interlock's keeper, beside each other on ports of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from interlock.adapters.listening import listens
from interlock.core.errors import Invalid, NotFound, Transient
from interlock.core.keeper import Keeper, KeptProcess, KeptState
from interlock.core.ports import StepContext
from interlock.core.service_runtime import InstanceState, RuntimeFinding, VersionSpec
from interlock.core.workload import ServiceWorkload, filled, filled_values

LOG_BYTES_MAX = 256 * 1024
"""Of the end of a log, when somebody asks for it."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def places_of(spec: VersionSpec) -> dict[str, str]:
    """What stands for the places of a service's command."""
    places = {"port": str(spec.port), "version": spec.version, "workload": spec.workload}
    places |= {"source": spec.source} if spec.source is not None else {}
    return places | ({"configuration": spec.configuration.folder} if spec.configuration is not None else {})


def program_path(program: str, folder: str, path: str) -> str:
    """The absolute path of a program: `bin/web` in the version's folder, `python3` on the PATH. Raises NotFound."""
    if "/" in program:
        found = str(Path(folder, program))
        return found if os.access(found, os.X_OK) else _missing(found)
    return shutil.which(program, path=path) or _missing(program)


def _missing(program: str) -> str:
    msg = f"there is no program {program}, or it may not be executed"
    raise NotFound(msg, code="service.program", fix="check the command, and PATH in `environment`")


class CommandServices:
    """The runtime of workloads with a `command`."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def identify(self, workload: str, version: str, declared: ServiceWorkload) -> str:  # noqa: ARG002
        """A program is known by its files, which the room looks at. Raises Invalid."""
        msg = f"{workload} runs a command, which has no image"
        raise Invalid(msg, code="service.image")

    def start(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """Keep it."""
        process = self._process(spec)
        context.hold()
        return self._shown(spec, self._keeper.ensure(process))

    def stop(self, spec: VersionSpec, context: StepContext) -> None:
        """Keep it no longer."""
        context.hold()
        self._keeper.stop(spec.name)

    def restart(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """All its processes, by the keeper's own hand."""
        context.hold()
        return self._shown(spec, self._keeper.restart(spec.name))

    def state(self, spec: VersionSpec) -> InstanceState | None:
        """From the keeper's file."""
        state = self._keeper.state(spec.name)
        return None if state is None else self._shown(spec, state)

    def listens(self, spec: VersionSpec) -> bool | None:
        """The sockets there belong to the processes that are kept."""
        return listens(self._keeper.members(spec.name), spec.port)

    def said(self, spec: VersionSpec, lines_max: int) -> str:
        """From the keeper's file, which stays when the version was stopped."""
        try:
            with self._keeper.log_path(spec.name).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_BYTES_MAX))
                text = file.read(LOG_BYTES_MAX).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            msg = f"the log of {spec.name} cannot be read: {error.strerror}"
            raise Transient(msg, code="service.log", fix="df -h, and `interlock check`") from error
        return "\n".join(text.splitlines()[-lines_max:])

    def inspect(self, workload: str, declared: ServiceWorkload) -> Iterable[RuntimeFinding]:
        """Whether the command can mean anything before there is a version."""
        command = declared.command or ()
        if not any("{port}" in argument for argument in (*command, *declared.environment.values())):
            yield RuntimeFinding(
                level="warning",
                message=f"the command of {workload} does not say {{port}}: it must read the variable PORT",
                fix="versions run beside each other, each on the port it is given",
            )
        program = command[0] if command else ""
        if "/" not in program and "{" not in program:
            found = shutil.which(program, path=declared.environment.get("PATH", PATH))
        else:
            found = program if "{" in program or not program.startswith("/") or os.access(program, os.X_OK) else None
        if found is None:
            yield RuntimeFinding(
                level="error",
                message=f"the command of {workload} begins with {program}, which is no program here",
                fix="give its absolute path, or one below {source}",
            )

    def _process(self, spec: VersionSpec) -> KeptProcess:
        declared = spec.declared
        folder = spec.source or "/"
        places = places_of(spec)
        environment = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "PORT": str(spec.port),
            "VERSION": spec.version,
            "PYTHONDONTWRITEBYTECODE": "1",  # its files stay what their digest says
            **filled_values(declared.environment, places),
        }
        program, *arguments = filled(declared.command or (), places)
        return KeptProcess(
            name=spec.name,
            argv=(program_path(program, folder, environment["PATH"]), *arguments),
            environment=environment,
            folder=folder,
            stop_grace_seconds=declared.stop_grace_seconds,
        )

    def _shown(self, spec: VersionSpec, state: KeptState) -> InstanceState:
        return InstanceState(
            phase=state.phase,
            address=spec.address,
            identity=None,
            pid=state.pid,
            started_at=state.started_at,
            restarts=state.restarts,
            last_exit=state.last_exit,
            log=str(self._keeper.log_path(spec.name)),
        )
