"""`service.start`, `service.stop` and `service.restart`: versions of services beside each other."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, JsonValue

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Risk, Step
from interlock.core.ports import StepContext
from interlock.core.release import RELEASES
from interlock.core.service_instance import SERVICE_INSTANCES, STANDING, ServiceInstance
from interlock.core.service_runtime import SERVICE_RUNTIMES, ServiceRuntime, VersionSpec, runtime_of
from interlock.core.source_layout import SOURCE_LAYOUTS, LaidSource
from interlock.core.traffic import DATA_PLANES, VersionName, WorkloadName
from interlock.core.workload import ServiceWorkload
from interlock.services.configuration import built_with, joined, layout_name, parts_of, short
from interlock.services.model import runs_alike, service_of, share_of, version_target
from interlock.services.performing import VersionSteps, step_seconds
from interlock.services.store import other_files

UNRECORDED = "sha256:unknown"
"""Of a version that runs although nobody wrote it down."""
NO_PORT = 1
"""In a plan: the port is picked when the version is started, and is nobody's concern before."""
Release = Field(default=None, ge=1)


class StartArgs(Frozen):
    """A workload of interlock.yaml, and the version that is to run: a git ref, a folder's name, a tag or a digest.

    `identity` refuses a version that is something else by now than what was looked at. `release` is the number of the
    release that it is started for.
    """

    workload: WorkloadName
    version: VersionName
    identity: str | None = Field(default=None, max_length=200)
    release: int | None = Release


class StopArgs(Frozen):
    """A version that was started here. One that users have is refused, unless `even_if_used` is set."""

    workload: WorkloadName
    version: VersionName
    even_if_used: bool = False
    release: int | None = Release


class RestartArgs(Frozen):
    """All versions of the workload that stand, one after the other; or only this one."""

    workload: WorkloadName
    version: VersionName | None = None


class _OfVersions(Action):
    """What the three have in common: a step says by its verb what becomes of which version."""

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Start, stop or restart it. Raises what runtimes and layouts raise."""
        return VersionSteps(self.ports, context).perform(step)

    def check(self, step: Step, context: StepContext) -> StepResult:
        """Whether it is healthy, or gone."""
        return VersionSteps(self.ports, context).check(step)

    def declared(self, workload: str) -> ServiceWorkload:
        """Raises NotFound, Invalid."""
        return service_of(self.ports.project().workloads, workload)

    def runtime(self, declared: ServiceWorkload) -> ServiceRuntime:
        """What runs it."""
        return self.ports.outside[SERVICE_RUNTIMES[runtime_of(declared)]]

    def known(self, workload: str, version: str) -> ServiceInstance | None:
        """From the table."""
        return self.ports.outside[SERVICE_INSTANCES].find(workload, version)

    def require_release(self, release: int | None, workload: str, version: str) -> None:
        """Raises NotFound, and Denied when that release is not about this version."""
        if release is not None:
            self.ports.outside[RELEASES].require(release, workload, versions=(version,))


class ServiceStart(_OfVersions):
    """Let a version run beside those that run already; users do not notice."""

    name: ClassVar[str] = "service.start"
    summary: ClassVar[str] = "Build and start a version of a service beside the others, and wait until it is healthy."
    example: ClassVar[JsonObject] = {"workload": "web", "version": "v1.4"}
    Args: ClassVar[type[Frozen]] = StartArgs

    def read_facts(self, args: StartArgs) -> JsonObject:
        """What the version is, and whether it runs. Raises NotFound, Conflict, Stale, Denied, Invalid."""
        self.require_release(args.release, args.workload, args.version)
        if args.release is not None:
            declared = self.ports.outside[RELEASES].declared(args.release)
        else:
            declared = self.declared(args.workload)
        laid, configuration = self._laid(declared, args)
        code = laid.identity if laid is not None else self._image(declared, args)
        identity = joined(code, configuration.identity if configuration is not None else None)
        if args.identity is not None and args.identity != identity:
            msg = f"{args.workload} {args.version} is {identity} by now, and not {args.identity}"
            raise Conflict(msg, code="service.moved", fix="ask again for what it is now, or give it a name of its own")
        spec = VersionSpec(
            workload=args.workload,
            version=args.version,
            declared=declared,
            identity=identity,
            source=laid.folder if laid is not None else None,
            origin=laid.origin if laid is not None else None,
            configuration=configuration,
            port=NO_PORT,
        )
        known = self.known(args.workload, args.version)
        runs = known is not None and known.stage in STANDING and self._runs(known, spec)
        return {
            "identity": identity,
            "spec": spec.model_dump(mode="json"),
            "runs": runs,
            "before": known.spec.identity if known is not None else None,
        }

    def _laid(self, declared: ServiceWorkload, args: StartArgs) -> tuple[LaidSource | None, LaidSource | None]:
        """Code and configuration, which is always laid out: what somebody edits later reaches no version."""
        if declared.source.image is not None:
            return None, None
        layouts = self.ports.outside[SOURCE_LAYOUTS]
        base = self.ports.project().folder
        parts = parts_of(args.workload, args.version, declared)
        code = layouts.identify(args.workload, parts.code, declared.source, base)
        if declared.configuration is None or parts.configuration is None:
            return code, None
        name, source = layout_name(args.workload), declared.configuration
        configuration = layouts.identify(name, parts.configuration, source, base)
        return built_with(code, configuration, declared), configuration

    def _image(self, declared: ServiceWorkload, args: StartArgs) -> str:
        return self.runtime(declared).identify(args.workload, args.version, declared)

    def _runs(self, known: ServiceInstance, spec: VersionSpec) -> bool:
        """Raises Conflict when it runs as something else."""
        state = self.runtime(known.spec.declared).state(known.spec)
        if state is None or state.phase == "stopped":
            return False
        if known.spec.identity != spec.identity:
            raise other_files(spec)
        if not runs_alike(known.spec.declared, spec.declared):
            msg = f"{spec.name} runs already, and interlock.yaml says since that it is run in another way"
            raise Conflict(msg, code="service.other_declaration", fix="stop it first, or release a new version")
        return True

    def plan(self, args: StartArgs, facts: JsonObject) -> Plan:
        """One step: files, build, start, probe. Taken back by stopping it, if it did not run before."""
        spec = VersionSpec.model_validate(facts["spec"])
        declared, runs = spec.declared, facts["runs"] is True
        builds = ", built first" if declared.build else ""
        step = Step(
            verb="start",
            summary=f"start {spec.workload} {spec.version} ({short(spec.identity)}{builds}) until it is healthy",
            params={"spec": facts["spec"], "release": args.release},
            targets=(version_target(args.workload, args.version),),
            risk="medium",
            operations=_operations("service.start", args.release),
            repeatable=True,
            discloses="content",
            undo=None if runs else stop_step(spec, args.release, "low"),
            irreversible="it was running before" if runs else None,
            timeout_seconds=step_seconds(declared),
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={name: facts[name] for name in ("identity", "runs", "before")},
            preview=_preview(spec, facts),
        )


class ServiceStop(_OfVersions):
    """End a version that nobody needs any more."""

    name: ClassVar[str] = "service.stop"
    summary: ClassVar[str] = "Stop a version of a service once it has answered what it is answering."
    example: ClassVar[JsonObject] = {"workload": "web", "version": "v1.3"}
    Args: ClassVar[type[Frozen]] = StopArgs

    def read_facts(self, args: StopArgs) -> JsonObject:
        """Whether it stands, and who uses it. Raises NotFound, Denied, Conflict (users have it)."""
        self.require_release(args.release, args.workload, args.version)
        known = self.known(args.workload, args.version)
        spec = known.spec if known is not None else self._unrecorded(args)
        share = self._share(spec.declared, args.workload, args.version)
        if share and not args.even_if_used:
            raise in_use(args.workload, args.version)
        return {
            "spec": spec.model_dump(mode="json"),
            "identity": spec.identity,
            "stands": known is not None and known.stage in STANDING,
            "used": share > 0,
            "kept_by": self._kept_by(args),
        }

    def _kept_by(self, args: StopArgs) -> int | None:
        """The release whose way back this version is; None for one that ends it itself."""
        found = self.ports.outside[RELEASES].revocable(args.workload) if args.release is None else None
        return found.number if found is not None and found.stable == args.version else None

    def _unrecorded(self, args: StopArgs) -> VersionSpec:
        """A version that runs although no row says so: an older database was restored, say. Raises NotFound."""
        msg = f"no version {args.version} of {args.workload} was started here"
        unknown = NotFound(msg, code="service.unknown", fix="interlock service list")
        declared = self.ports.project().workloads.get(args.workload)
        if not isinstance(declared, ServiceWorkload):
            raise unknown
        spec = VersionSpec(
            workload=args.workload, version=args.version, declared=declared, identity=UNRECORDED, port=NO_PORT
        )
        if self.runtime(declared).state(spec) is None:
            raise unknown
        return spec

    def _share(self, declared: ServiceWorkload, workload: str, version: str) -> int:
        return share_of(self.ports.outside[DATA_PLANES[declared.traffic.proxy]].current(workload), version)

    def plan(self, args: StopArgs, facts: JsonObject) -> Plan:
        """One step, taken back by starting the very same version."""
        spec = VersionSpec.model_validate(facts["spec"])
        step = stop_step(
            spec, args.release, "high" if facts["used"] else "medium", even_if_used=args.even_if_used
        ).model_copy(
            update={"undo": start_again(spec)} if facts["stands"] else {"irreversible": "no record of it"},
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={name: facts[name] for name in ("identity", "stands", "used", "kept_by")},
            preview=_way_back(args, facts["kept_by"]),
        )


def _way_back(args: StopArgs, release: JsonValue) -> str | None:
    """What an approver should know of a version that is kept running on purpose."""
    if release is None:
        return None
    return (
        f"release {release} keeps {args.version} running: it is what `interlock rollback {args.workload}` goes "
        "back to, and cannot once it is stopped"
    )


class ServiceRestart(_OfVersions):
    """Start what runs anew."""

    name: ClassVar[str] = "service.restart"
    summary: ClassVar[str] = "Restart all processes of a service, version after version, each until it is healthy."
    example: ClassVar[JsonObject] = {"workload": "web"}
    Args: ClassVar[type[Frozen]] = RestartArgs

    def read_facts(self, args: RestartArgs) -> JsonObject:
        """What stands. Raises NotFound."""
        standing = [
            each
            for each in self.ports.outside[SERVICE_INSTANCES].of(args.workload)
            if each.stage in {"starting", "running"} and args.version in {None, each.spec.version}
        ]
        if not standing:
            what = args.workload if args.version is None else f"{args.workload} {args.version}"
            msg = f"nothing of {what} runs"
            raise NotFound(msg, code="service.unknown", fix="interlock service list")
        standing.sort(key=lambda each: each.spec.version)
        return {"specs": [each.spec.model_dump(mode="json") for each in standing]}

    def plan(self, args: RestartArgs, facts: JsonObject) -> Plan:
        """A step for each version; one that does not become healthy keeps the next from being touched."""
        found = facts["specs"]
        specs = [VersionSpec.model_validate(each) for each in found] if isinstance(found, list) else []
        steps = tuple(_restart_step(spec) for spec in specs)
        names = ", ".join(spec.version for spec in specs)
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=f"restart {args.workload}: {names}",
            steps=steps,
            facts={"versions": {spec.version: spec.identity for spec in specs}},
        )


def stop_step(spec: VersionSpec, release: int | None, risk: Risk, *, even_if_used: bool = False) -> Step:
    """Ends one version."""
    return Step(
        verb="stop",
        summary=f"stop {spec.workload} {spec.version} ({short(spec.identity)})",
        params={"spec": spec.model_dump(mode="json"), "even_if_used": even_if_used, "release": release},
        targets=(version_target(spec.workload, spec.version),),
        risk=risk,
        operations=_operations("service.stop", release),
        repeatable=True,
        timeout_seconds=step_seconds(spec.declared),
    )


def start_again(spec: VersionSpec) -> Step:
    """Starts what was stopped, from the same files."""
    return Step(
        verb="start",
        summary=f"start {spec.workload} {spec.version} ({short(spec.identity)}) again",
        params={"spec": spec.model_dump(mode="json"), "release": None},
        targets=(version_target(spec.workload, spec.version),),
        risk="medium",
        operations=("service.start",),
        repeatable=True,
        discloses="content",
        timeout_seconds=step_seconds(spec.declared),
    )


def _restart_step(spec: VersionSpec) -> Step:
    return Step(
        verb="restart",
        summary=f"restart {spec.workload} {spec.version}, and wait until it is healthy",
        params={"spec": spec.model_dump(mode="json"), "release": None},
        targets=(version_target(spec.workload, spec.version),),
        risk="medium",
        operations=("service.restart",),
        repeatable=True,
        irreversible="what a process held in memory is gone",
        timeout_seconds=step_seconds(spec.declared),
    )


def _operations(name: str, release: int | None) -> tuple[str, ...]:
    """With a release, whose plan was approved, it is one of that release's steps."""
    return (name,) if release is None else (name, "release.step")


def in_use(workload: str, version: str) -> Conflict:
    """Users have it."""
    msg = f"users have {workload} {version}"
    return Conflict(msg, code="service.in_use", fix="give them another version first: interlock deploy")


def _preview(spec: VersionSpec, facts: JsonObject) -> str:
    declared = spec.declared
    lines = [f"what      {spec.workload} {spec.version} = {spec.identity}"]
    before = facts["before"]
    if isinstance(before, str) and before != spec.identity:
        lines.append(f"NOTE      the last time {spec.version} was started it was {before}")
    lines += [f"files     {spec.source}"] if spec.source is not None else []
    lines += [f"config    {spec.configuration.folder}"] if spec.configuration is not None else []
    lines += [f"build     {' '.join(command)}" for command in declared.build]
    lines += [f"command   {' '.join(declared.command)}"] if declared.command is not None else []
    health = declared.health
    lines.append(f"healthy   GET {health.path}, {health.successes} times in a row within {health.deadline_seconds:g} s")
    return "\n".join(lines)
