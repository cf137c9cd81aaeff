"""The small door of another machine: no database, no keys; the same actions on commands and files, by its policy."""

from __future__ import annotations

import base64
import hashlib
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
from interlock.core.remote_host import ORIGINAL_BYTES_MAX, DoorRequest
from interlock.core.run import Run
from interlock.engine.guard.process_tree import boot_seconds
from interlock.engine.guard.supervise import GuardedProcess
from interlock.engine.planner import validate
from interlock.engine.trusted_file import read_trusted
from interlock.engine.yaml_model import read_document, to_model
from interlock.files.actions import FileRemove, FileWrite
from interlock.files.disk import read_file
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
        ports = Ports(
            lambda: project, resolvers, SystemClock(), NoRecords(), self.redactor, self._path_class, self._no_other
        )
        self._commands = CommandExec(ports)
        self._actions: dict[str, Action] = {
            action.name: action for action in (self._commands, FileWrite(ports), FileRemove(ports))
        }

    def plan(self, request: DoorRequest) -> Plan:
        """What would happen. Raises Denied where this machine does not allow it, and as the action does."""
        action = self._actions[request.action]
        args = validate(action.Args, self._arguments(request), action.name)
        plan = action.plan(args, action.read_facts(args))
        require_allowed(plan, self._policy, os.path.realpath)
        return plan

    def _arguments(self, request: DoorRequest) -> JsonObject:
        if request.action == "file.write":
            return {"path": request.path, "content_base64": request.content_base64}
        if request.action == "file.remove":
            return {"path": request.path}
        asked: JsonObject = {"argv": [*request.argv], "folder": request.folder}
        if request.timeout_seconds is not None:
            asked["timeout_seconds"] = min(request.timeout_seconds, self._policy.timeout_seconds_max)
        return asked

    def original(self, request: DoorRequest) -> str | None:
        """What the file holds that would be written or removed, in base64; None where there is none.

        Raises: Denied for more than `ORIGINAL_BYTES_MAX`, and as `plan`: only what may be changed here is read.
        """
        (step,) = self.plan(request).steps
        found = read_file(step.targets[0].id)
        if found is not None and len(found.body) > ORIGINAL_BYTES_MAX:
            msg = f"{len(found.body):,} bytes; an original of at most {ORIGINAL_BYTES_MAX:,} is kept elsewhere"
            raise Denied(msg, code="door.original", fix="change it there")
        return None if found is None else base64.b64encode(found.body).decode()

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
        action = self._actions[request.action]
        result = action.perform(step, context)
        checked = action.check(step, context) if result.ok else result
        return checked if not checked.ok else result

    def _path_class(self, path: str) -> PathClass:
        return self._commands.library().classify_path(path)

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
    """Nothing is kept on another machine: whoever asked took the original before (`DoorRequest.do == "read"`)."""

    def put(self, body: bytes) -> str:
        """Its digest; whoever asked holds the body."""
        return hashlib.sha256(body).hexdigest()

    def get(self, digest: str) -> bytes:
        """Raises Denied."""
        msg = f"the door of another machine keeps no bodies ({digest})"
        raise Denied(msg, code="door.blobs", fix="send the content along")


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
