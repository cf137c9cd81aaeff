"""Performs one step about one version: files, build, port, start, probe; or its stop; or its restart."""

from __future__ import annotations

import threading
from itertools import islice

from interlock.core.action import Ports, StepResult
from interlock.core.errors import Conflict, InterlockError, NotFound, Stale
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.model import JsonObject
from interlock.core.plan import Step
from interlock.core.ports import StepContext
from interlock.core.service_instance import SERVICE_INSTANCES, STANDING, ServiceInstance
from interlock.core.service_runtime import SERVICE_RUNTIMES, ServiceRuntime, VersionSpec
from interlock.core.source_layout import SOURCE_LAYOUTS, LaidSource
from interlock.core.traffic import DATA_PLANES, DataPlane
from interlock.core.workload import ServiceWorkload
from interlock.services.building import build_spec
from interlock.services.gates import GateResult, run_gates
from interlock.services.last_words import last_lines, last_words, log_command, sentence, told
from interlock.services.model import laid_of, port_order, share_of
from interlock.services.probing import Probed, ask_inside, await_healthy, hopeless_of

BUILD_SECONDS = 1800.0
LAY_OUT_SECONDS = 900.0
DRAIN_SECONDS = 30.0
"""How long a version that nobody is sent to any more may take to answer what it is answering."""
DRAIN_LOOK_SECONDS = 0.05
PORTS_TRIED = 50
LOOK_SECONDS = 0.2
REASON_CHARACTERS_MAX = 1000


def step_seconds(declared: ServiceWorkload) -> float:
    """The most that a step about a version may take."""
    build = BUILD_SECONDS * len(declared.build) + sum(gate.timeout_seconds for gate in declared.release.gates)
    return min(24 * 3600.0, LAY_OUT_SECONDS + build + declared.health.deadline_seconds + declared.stop_grace_seconds)


class VersionSteps:
    """One attempt of one step."""

    def __init__(self, ports: Ports, context: StepContext) -> None:
        self._ports = ports
        self._context = context

    def perform(self, step: Step) -> StepResult:
        """By its verb."""
        spec = VersionSpec.model_validate(step.params["spec"])
        if step.verb == "stop":
            return self._stop(spec, even_if_used=step.params.get("even_if_used") is True)
        if step.verb == "restart":
            return self._restart(spec)
        release = step.params["release"]
        return self._start(spec, release if isinstance(release, int) else None)

    def check(self, step: Step) -> StepResult:
        """What is stopped is gone; anything else is healthy."""
        spec = VersionSpec.model_validate(step.params["spec"])
        known = self._known(spec)
        if step.verb == "stop":
            state = self._runtime(spec).state(known.spec if known is not None else spec)
            if state is not None and state.phase != "stopped":
                return StepResult(ok=False, summary=f"{spec.name} still runs (process {state.pid})")
            return StepResult(ok=True, summary=f"nothing of {spec.name} runs")
        if known is None:
            return StepResult(ok=False, summary=f"{spec.name} is not in the table of versions")
        probed = self._probe(known)
        payload: JsonObject = {"workload": spec.workload, "version": spec.version}
        data: JsonObject = {"address": known.address, "asked": probed.asked, "identity": known.spec.identity}
        if probed.ok:
            self._context.arrange("service.healthy", payload)
            return StepResult(ok=True, summary=f"{spec.name}: {probed.words}", data=data)
        said, more = last_words(self._runtime(spec), known.spec, self._ports.redactor), log_command(spec)
        words = f"{probed.words}{sentence(said)}"
        self._context.arrange("service.failed", {**payload, "reason": words[:REASON_CHARACTERS_MAX]})
        listed = "".join(f"    {line}\n" for line in said) or "    nothing\n"
        self._context.write_output(f"{spec.name} said last ({more}):\n{listed}")
        return StepResult(ok=False, summary=f"{spec.name}: {words} ({more})", data={**data, **told(said, more)})

    # Starting.

    def _start(self, spec: VersionSpec, release: int | None) -> StepResult:
        laid = laid_of(spec)
        if laid is not None:
            failed = self._prepare(spec, laid)
            if failed is not None:
                return failed
        gates = self._gates(spec) if release is not None else ()
        passed: JsonObject = {"gates": [gate.told() for gate in gates]}
        if gates and not gates[-1].ok:
            return StepResult(ok=False, summary=gates[-1].sentence, data=passed)
        placed = self._reserve(spec, release)
        state = self._runtime(spec).start(placed, self._context)
        if state.identity is not None and state.identity != spec.identity:
            msg = f"{spec.name} runs as {state.identity}, and not as {spec.identity}"
            raise Stale(msg, code="service.identity", fix="ask again, and read the new plan")
        place: JsonObject = {"workload": spec.workload, "version": spec.version, "address": state.address}
        self._context.arrange("service.started", place)
        data: JsonObject = {"address": state.address, "pid": state.pid, "identity": spec.identity, **passed}
        return StepResult(ok=True, summary=f"{spec.name} was started on {state.address}", data=data)

    def _prepare(self, spec: VersionSpec, laid: LaidSource) -> StepResult | None:
        """Lay out and build, before anything else is touched; what is wrong, if it cannot be built."""
        layouts = self._ports.outside[SOURCE_LAYOUTS]
        if spec.configuration is not None and layouts.lay_out(spec.configuration, self._context):
            layouts.finish(spec.configuration)
        if layouts.lay_out(laid, self._context):
            for command in spec.declared.build:
                self._context.write_output(f"$ {' '.join(command)}\n")
                result = self._context.execute(build_spec(command, spec, BUILD_SECONDS))
                if result.exit_code != 0:
                    how = "took too long" if result.timed_out else f"ended with {result.exit_code or result.signal}"
                    said, more = last_lines(result.tail, self._ports.redactor), f"interlock show {self._context.run}"
                    words = f"the build of {spec.name} failed: {' '.join(command)} {how}{sentence(said)}"
                    return StepResult(ok=False, summary=words, data=told(said, more))
            layouts.finish(laid)
        return None

    def _gates(self, spec: VersionSpec) -> tuple[GateResult, ...]:
        """What a release asks of a version before it is started; a start by hand asks nothing."""
        return run_gates(
            spec.declared.release.gates,
            lambda command, seconds: build_spec(command, spec, seconds),
            self._context,
        )

    def _reserve(self, spec: VersionSpec, release: int | None) -> VersionSpec:
        """A port of its own. Raises Conflict when none is free, or when the version stands as something else."""
        probe = self._ports.outside[HEALTH_PROBE]
        free = islice((port for port in port_order(spec) if probe.is_free(port)), PORTS_TRIED)
        payload: JsonObject = {"spec": spec.model_dump(mode="json"), "ports": [*free], "release": release}
        return VersionSpec.model_validate(self._context.arrange("service.reserve", payload)["spec"])

    # Stopping.

    def _stop(self, spec: VersionSpec, *, even_if_used: bool) -> StepResult:
        known = self._known(spec)
        if known is not None:
            spec = known.spec
        stands = known is not None and known.stage in STANDING
        if not stands and self._runtime(spec).state(spec) is None:
            return StepResult(ok=True, summary=f"nothing of {spec.name} runs")
        payload: JsonObject = {"workload": spec.workload, "version": spec.version}
        if not even_if_used:
            self._require_unused(spec)
        self._context.arrange("service.stopping", payload)
        self._drain(spec)
        self._runtime(spec).stop(spec, self._context)
        self._context.arrange("service.stopped", payload)
        return StepResult(ok=True, summary=f"{spec.name} was stopped", data={"identity": spec.identity})

    def _require_unused(self, spec: VersionSpec) -> None:
        """Raises Conflict: users got it since this was planned, or before its start was taken back."""
        if share_of(self._plane(spec).current(spec.workload), spec.version):
            msg = f"users have {spec.workload} {spec.version}"
            raise Conflict(msg, code="service.in_use", fix="give them another version first: interlock deploy")

    def _drain(self, spec: VersionSpec) -> None:
        """Bounded; a proxy that cannot say is not waited for."""
        end = self._ports.clock.monotonic() + DRAIN_SECONDS
        plane = self._plane(spec)
        if plane.current(spec.workload) is None:
            return  # nobody comes through it
        try:
            while plane.in_flight(spec.workload, spec.version) and self._ports.clock.monotonic() < end:
                self._pause(DRAIN_LOOK_SECONDS)
        except InterlockError as error:
            self._context.write_output(f"nobody knows what {spec.name} is answering: {error.message}\n")

    # Restarting.

    def _restart(self, spec: VersionSpec) -> StepResult:
        known = self._known(spec)
        if known is None or known.stage not in STANDING:
            msg = f"{spec.name} was stopped meanwhile"
            raise NotFound(msg, code="service.unknown", fix="interlock service list")
        state = self._runtime(known.spec).restart(known.spec, self._context)
        data: JsonObject = {"address": state.address, "pid": state.pid}
        return StepResult(ok=True, summary=f"{spec.name} was restarted", data=data)

    # What all need.

    def _probe(self, known: ServiceInstance) -> Probed:
        """At its own address; it must be the version itself that answers there."""
        spec, runtime = known.spec, self._runtime(known.spec)
        probe = self._ports.outside[HEALTH_PROBE]
        before = runtime.state(spec)
        restarts = before.restarts if before is not None else 0

        def hopeless() -> str | None:
            if self._context.cancelled:
                return "cancelled while it was waited for"
            return hopeless_of(runtime.state(spec), restarts)

        probed = await_healthy(
            lambda: ask_inside(probe, known.address, spec.declared.health),
            spec.declared.health,
            clock=self._ports.clock,
            pause=self._pause,
            hopeless=hopeless,
        )
        state = runtime.state(spec) if probed.ok else before
        if probed.ok and (state is None or state.phase != "running"):
            return Probed(ok=False, words=f"something else answers on {known.address}", asked=probed.asked)
        return self._require_own(known, probed) if probed.ok and spec.runtime == "command" else probed

    def _require_own(self, known: ServiceInstance, probed: Probed) -> Probed:
        """What is healthy must be the version, and not whoever else listens at its port."""
        own = self._runtime(known.spec).listens(known.spec)
        if own is None:
            self._context.write_output(
                f"whether {known.spec.name} itself answers on {known.address} cannot be seen: "
                "processes of it are hidden from this account\n"
            )
        if own is False:
            words = f"something else answers on {known.address}: no process of this version listens there alone"
            return Probed(ok=False, words=words, asked=probed.asked)
        return probed

    def _pause(self, seconds: float) -> None:
        """Not longer than until somebody cancels."""
        never = threading.Event()
        end = self._ports.clock.monotonic() + seconds
        while not self._context.cancelled and (left := end - self._ports.clock.monotonic()) > 0:
            never.wait(min(left, LOOK_SECONDS))

    def _known(self, spec: VersionSpec) -> ServiceInstance | None:
        return self._ports.outside[SERVICE_INSTANCES].find(spec.workload, spec.version)

    def _runtime(self, spec: VersionSpec) -> ServiceRuntime:
        return self._ports.outside[SERVICE_RUNTIMES[spec.runtime]]

    def _plane(self, spec: VersionSpec) -> DataPlane:
        return self._ports.outside[DATA_PLANES[spec.declared.traffic.proxy]]
