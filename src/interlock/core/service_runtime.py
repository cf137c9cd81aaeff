"""What runs one version of a service: our keeper, Docker Compose or systemd, each behind the same Protocol."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Protocol

from pydantic import Field

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.ports import StepContext
from interlock.core.source_layout import LaidSource
from interlock.core.traffic import VersionName, WorkloadName
from interlock.core.workload import ServiceWorkload

RuntimeName = Literal["command", "compose", "systemd"]
InstancePhase = Literal["starting", "running", "waiting", "stopped", "given_up"]
"""`waiting`: it ended by itself and is started again soon. `stopped`: it is there, known to its runtime, and does not
run. `given_up`: it ended too often, and nobody starts it again."""


def runtime_of(declared: ServiceWorkload) -> RuntimeName:
    """Which runtime a workload is declared for."""
    if declared.compose is not None:
        return "compose"
    return "systemd" if declared.systemd is not None else "command"


class VersionSpec(Frozen):
    """One version of one service, pinned: all that a runtime needs to run it, then as well as a week later.

    Args:
        workload: Whose version it is.
        version: What people call it.
        declared: The workload as interlock.yaml declared it when this version was planned.
        identity: What the version is, whatever its name points to later: `sha256:...` of its folder's content,
            `commit:...` of a git ref, or `image:...` of a container image; with a configuration both, joined by `+`.
        source: The absolute folder of its files; None for an image.
        origin: The absolute folder, or repository, that its files come from; the same as `source` if it runs in place.
        configuration: Its configuration, pinned and laid out for itself; None for a workload that declares none.
        port: Where it listens, on 127.0.0.1. It was free when it was picked.
    """

    workload: WorkloadName
    version: VersionName
    declared: ServiceWorkload
    identity: str = Field(pattern=r"^(sha256|commit|image):[0-9a-z:]{7,100}(\+(sha256|commit):[0-9a-f]{7,100})?$")
    source: str | None = None
    origin: str | None = None
    configuration: LaidSource | None = None
    port: int = Field(ge=1, le=65_535)

    @property
    def name(self) -> str:
        """web@v1.4: one name for it everywhere."""
        return f"{self.workload}@{self.version}"

    @property
    def address(self) -> str:
        """Where it is reached, unless its runtime says otherwise."""
        return f"127.0.0.1:{self.port}"

    @property
    def runtime(self) -> RuntimeName:
        """Which runtime it is for."""
        return runtime_of(self.declared)


class InstanceState(Frozen):
    """How one version fares, as its runtime sees it."""

    phase: InstancePhase
    address: str
    """HOST:PORT, where the proxy and the probe reach it."""
    identity: str | None = None
    """What really runs, where the runtime knows it (an image id): compared with what was pinned."""
    pid: int | None = None
    started_at: datetime | None = None
    restarts: int = 0
    """How often it was started again by itself."""
    last_exit: str | None = None
    """`exit 1`, `signal 9`."""
    log: str | None = None
    """The file its output goes to, or the command that shows it."""


class RuntimeFinding(Frozen):
    """Something that `check` says about a declaration: what would fail, and what to do about it."""

    level: Literal["warning", "error"]
    message: str
    fix: str


class ServiceRuntime(Protocol):
    """Runs versions of services beside each other.

    A runtime neither probes health nor picks ports nor records anything: the services room does. What runs programs to
    change something does so by `context.execute`; what changes something by itself calls `context.hold()` right before.
    Every call is bounded in time. All raise Transient when the runtime does not answer, Permanent when it refuses.
    """

    def identify(self, workload: str, version: str, declared: ServiceWorkload) -> str:
        """The pinned identity behind a name that only the runtime can look up (`image:...`); no effect.

        Asked for sources of images only. Raises NotFound when there is no such version.
        """
        ...

    def start(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """Run it, or find it running as it is specified; returns when it was started, not when it is healthy.

        Doing it twice is doing it once. Raises Conflict when something else runs under its name.
        """
        ...

    def stop(self, spec: VersionSpec, context: StepContext) -> None:
        """End it within its grace, with all its processes, and let go of its port. Nothing happens where none runs."""
        ...

    def restart(self, spec: VersionSpec, context: StepContext) -> InstanceState:
        """End it and start it again: all its processes. Raises NotFound where nothing of it is there."""
        ...

    def state(self, spec: VersionSpec) -> InstanceState | None:
        """How it fares; None when the runtime knows nothing of it. Read often, so it costs milliseconds."""
        ...

    def listens(self, spec: VersionSpec) -> bool | None:
        """Whether it is this version that answers at its port; None where that cannot be seen. No effect."""
        ...

    def said(self, spec: VersionSpec, lines_max: int) -> str:
        """The end of what it wrote to its log, a bounded part; empty where nothing is left of it. No effect."""
        ...

    def inspect(self, workload: str, declared: ServiceWorkload) -> Iterable[RuntimeFinding]:
        """What would keep versions of this workload from running beside each other; no effect."""
        ...


COMMANDS: OutsideKey[ServiceRuntime] = OutsideKey("programs under Interlock's keeper")
COMPOSE: OutsideKey[ServiceRuntime] = OutsideKey("Docker Compose")
SYSTEMD: OutsideKey[ServiceRuntime] = OutsideKey("systemd units")
SERVICE_RUNTIMES: dict[RuntimeName, OutsideKey[ServiceRuntime]] = {
    "command": COMMANDS,
    "compose": COMPOSE,
    "systemd": SYSTEMD,
}
