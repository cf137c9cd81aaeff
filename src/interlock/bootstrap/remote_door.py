"""The small door of another machine: no database, no keys; the same described programs, under that machine's policy."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from interlock.adapters.devices import DeviceTargets
from interlock.adapters.docker import DockerTargets
from interlock.adapters.files import FileTargets
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.names import NamedTargets
from interlock.adapters.processes import ProcessTargets
from interlock.adapters.repositories import RepositoryTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.adapters.systemd import UnitTargets
from interlock.commands.actions import CommandExec
from interlock.core.action import Action, PathClass, Ports, StepResult
from interlock.core.errors import Denied, NotFound, Permanent, Stale, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.ports import TAIL_BYTES, Blobs, ProcessResult, ProcessSpec
from interlock.core.project import Project
from interlock.core.remote_host import DoorRequest
from interlock.core.run import Run
from interlock.engine.guard.process_tree import boot_seconds
from interlock.engine.guard.supervise import GuardedProcess
from interlock.engine.planner import validate
from interlock.engine.trusted_file import read_trusted
from interlock.engine.yaml_model import read_document, to_model
from interlock.hosts.door_policy import DoorPolicy, require_allowed
from interlock.lib.clock import SystemClock
from interlock.lib.redact import Redactor

POLICY_FILE = Path("/etc/interlock/door.yaml")
POLICY_BYTES_MAX = 256 * 1024
GRACE_SECONDS = 30.0

Show = Callable[[bytes], None]


def read_door_policy(path: Path) -> DoorPolicy:
    """What this machine allows; without a file only what changes nothing and discloses nothing.

    Raises: Invalid when others could write it, or it does not fit: then nothing runs at all.
    """
    try:
        body = read_trusted(path, POLICY_BYTES_MAX)
    except NotFound:
        return DoorPolicy()
    return to_model(DoorPolicy, read_document(body, str(path), "door.policy"), str(path), "door.policy")


class RemoteDoor:
    """Answers one request.

    Args:
        policy: What this machine allows.
        redactor: Blots secrets out of what is printed.
    """

    def __init__(self, policy: DoorPolicy) -> None:
        self._policy = policy
        self.redactor = Redactor()
        project = Project(folder="/", roots=policy.roots, protected=policy.protected)
        files = FileTargets(lambda: project.protected)
        resolvers = ResolverSet(
            (
                files,
                ProcessTargets(),
                UnitTargets(),
                DockerTargets(paths_of=files.paths_of),
                DeviceTargets(files.resolve),
                KubernetesTargets(),
                NamedTargets(host_names=(socket.gethostname(),)),  # the full name may take seconds to find out
                RepositoryTargets(files.resolve),
            )
        )
        self._action = CommandExec(
            Ports(
                lambda: project, resolvers, SystemClock(), NoRecords(), self.redactor, self._path_class, self._no_other
            )
        )

    def plan(self, request: DoorRequest) -> Plan:
        """What would happen. Raises Denied where this machine does not allow it, and as the action does."""
        asked: JsonObject = {"argv": [*request.argv], "folder": request.folder}
        if request.timeout_seconds is not None:
            asked["timeout_seconds"] = min(request.timeout_seconds, self._policy.timeout_seconds_max)
        args = validate(CommandExec.Args, asked, CommandExec.name)
        plan = self._action.plan(args, self._action.read_facts(args))
        require_allowed(plan, self._policy, os.path.realpath)
        return plan

    def run(self, request: DoorRequest, show: Show, lost: Callable[[Callable[[], None]], None]) -> StepResult:
        """Perform what has the plan that was decided on.

        `lost` is told what to call when whoever asked has gone.

        Raises: Stale (it would do something else now), and as `plan`.
        """
        plan = self.plan(request)
        if plan.digest != request.digest:
            msg = "it would do something else now than when it was planned; nothing was run"
            raise Stale(msg, code="door.stale", fix="ask again to see the new plan")
        context = DoorContext(request, show, lost)
        (step,) = plan.steps
        result = self._action.perform(step, context)
        checked = self._action.check(step, context) if result.ok else result
        return checked if not checked.ok else result

    def _path_class(self, path: str) -> PathClass:
        return self._action.library().classify_path(path)

    @staticmethod
    def _no_other(name: str) -> Action:
        msg = f"the door of another machine knows no action {name}"
        raise NotFound(msg, code="action.unknown")


class NoRecords:
    """Where there is no database: no Runs, no adopted programs."""

    def run(self, number: int) -> Run:
        """Raises NotFound."""
        msg = f"there is no Run {number} on this machine"
        raise NotFound(msg, code="run.unknown")

    def adopted(self) -> tuple[JsonObject, ...]:
        """None."""
        return ()


class NoBlobs:
    """Nothing is kept on another machine."""

    def put(self, body: bytes) -> str:
        """Raises Denied."""
        raise _keeps_nothing(str(len(body)))

    def get(self, digest: str) -> bytes:
        """Raises Denied."""
        raise _keeps_nothing(digest)


def _keeps_nothing(what: str) -> Denied:
    msg = f"the door of another machine keeps no bodies ({what})"
    return Denied(msg, code="door.blobs", fix="ask for commands only")


class DoorContext:
    """What the one step is given: a guard, and nothing that outlives the request."""

    run, attempt, cancelled = 0, 1, False

    def __init__(self, request: DoorRequest, show: Show, lost: Callable[[Callable[[], None]], None]) -> None:
        self.key = f"door:{request.id}"
        self.blobs: Blobs = NoBlobs()
        self._bytes_max = request.output_bytes_max
        self._show = show
        self._lost = lost
        self._gone = threading.Event()

    def hold(self) -> None:
        """Raises Transient when whoever asked has gone."""
        if self._gone.is_set():
            msg = "whoever asked has gone; nothing was run"
            raise Transient(msg, code="door.lost", effect_sent=False)

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        """Run it under a guard that also ends it when whoever asked has gone."""
        bounded = spec.model_copy(update={"output_bytes_max": min(spec.output_bytes_max, self._bytes_max)})
        process = GuardedProcess.start(bounded, token=self.key)

        def end() -> None:
            self._gone.set()
            process.kill()

        try:
            self._lost(end)
            self.hold()
            outcome = process.go(boot_seconds() + spec.timeout_seconds + GRACE_SECONDS, self._show)
        finally:
            process.close()
        if outcome.ended_by not in {"exited", "timed_out"}:
            msg = "it was killed, because whoever asked has gone"
            raise Transient(msg, code="door.lost")
        return ProcessResult(
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            timed_out=outcome.timed_out,
            output_bytes=outcome.output_bytes,
            truncated=outcome.truncated,
            output_sha256=outcome.output_sha256,
            tail=outcome.tail.decode("utf-8", "replace")[-TAIL_BYTES:],
            duration_seconds=outcome.duration_seconds,
        )

    def write_output(self, text: str) -> None:
        """Show it."""
        self._show(text.encode())

    def arrange(self, name: str, payload: JsonObject) -> JsonObject:  # noqa: ARG002 - the Protocol's
        """Raises Permanent: there are no tables."""
        msg = f"nothing can be arranged here, {name} neither"
        raise Permanent(msg, code="arrangement.unknown")
