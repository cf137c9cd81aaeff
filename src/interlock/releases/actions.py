"""`release.*`: start one, pause it, resume it, promote it, abort it, and go back to the version before."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.release import RELEASES, ReleaseRecord
from interlock.core.service_instance import SERVICE_INSTANCES, ServiceInstance
from interlock.core.service_runtime import VersionSpec
from interlock.core.source_layout import SOURCE_LAYOUTS
from interlock.core.traffic import DATA_PLANES, WHOLE, Routing, WorkloadName, moving
from interlock.core.workload import ServiceWorkload
from interlock.engine.planner import validate
from interlock.releases.asks import REASON_CHARACTERS_MAX
from interlock.releases.configuration_diff import configuration_diff
from interlock.releases.plan_text import release_text
from interlock.releases.versions import AskedVersion, changes, require_kept, wanted_version

START = "service.start"
BACK = ("release.rollback", "rollback")
"""By these, policies let everybody go back at once, in a freeze too."""
Reason = Field(min_length=1, max_length=REASON_CHARACTERS_MAX)


class StartArgs(Frozen):
    """The workload, and the version that its users are to have: a git ref, a folder's name, a tag or a digest.

    With a configuration: both, as v1.4+c7; +c8 keeps the code that users have, and v1.5 the configuration.
    `at_once` leaves out the steps: all users get it when it is healthy, and red lines are watched.
    """

    workload: WorkloadName
    version: AskedVersion
    at_once: bool = False


class OrderArgs(Frozen):
    """A workload that is being released, and why; both stand in the timeline."""

    workload: WorkloadName
    reason: str = Reason


class PromoteArgs(Frozen):
    """The next step, whatever the judge says; with `full` all users at once."""

    workload: WorkloadName
    reason: str = Reason
    full: bool = False


class BackArgs(Frozen):
    """Back to the version before, at once; and why.

    `release` refuses any other release than the one that was meant. `evidence` is what was seen, for the report.
    `accept_irreversible`: back across a change of which the project says that there is no way back.
    """

    workload: WorkloadName
    reason: str = Reason
    release: int | None = Field(default=None, ge=1)
    accept_irreversible: bool = False
    evidence: JsonObject = {}


class Start(Action):
    """Let a new version come to all users."""

    name: ClassVar[str] = "release.start"
    summary: ClassVar[str] = "Release a version of a service step by step, under the judge."
    example: ClassVar[JsonObject] = {"workload": "web", "version": "v1.4"}
    Args: ClassVar[type[Frozen]] = StartArgs

    def read_facts(self, args: StartArgs) -> JsonObject:
        """What users have, what both versions are, and how it is declared. Raises NotFound, Conflict, Invalid."""
        declared = service(self.ports.project().workloads, args.workload)
        if args.at_once:
            release = declared.release.model_copy(update={"steps": ()})
            declared = declared.model_copy(update={"release": release})
        active = self.ports.outside[RELEASES].active(args.workload)
        if active is not None:
            raise busy(active)
        routing = self.ports.outside[DATA_PLANES[declared.traffic.proxy]].current(args.workload)
        stable = version_of(routing)
        _require_same_place(routing, declared)
        version = wanted_version(args.workload, args.version, declared, stable)
        if stable == version.name:
            msg = f"users of {args.workload} have {version.name} already"
            raise Conflict(msg, code="release.same", fix=f"interlock release status {args.workload}")
        spec, known = self._spec(args.workload, version.name), self._known(args.workload, stable)
        before = known.spec if known is not None else None
        require_kept(args.workload, version, before, spec)
        return {
            "declared": declared.model_dump(mode="json"),
            "stable": stable,
            "stable_identity": before.identity if before is not None else None,
            "version": version.name,
            "identity": spec.identity,
            "routing": routing.model_dump(mode="json") if routing is not None else None,
            "changes": [[*each] for each in changes(before, spec)],
            "diff": self._diff(before, spec),
        }

    def _known(self, workload: str, version: str | None) -> ServiceInstance | None:
        """The version that users have, where it was started here."""
        return self.ports.outside[SERVICE_INSTANCES].find(workload, version) if version is not None else None

    def _spec(self, workload: str, version: str) -> VersionSpec:
        """What the version is, whatever its name points to later: as starting it by hand would find it."""
        start = self.ports.action(START)
        asked = validate(start.Args, {"workload": workload, "version": version}, START)
        return VersionSpec.model_validate(start.read_facts(asked)["spec"])

    def _diff(self, before: VersionSpec | None, spec: VersionSpec) -> str:
        """What changes in the configuration; empty where nothing does, or nothing is known of the one before."""
        was = before.configuration if before is not None else None
        if was is None or spec.configuration is None or was.identity == spec.configuration.identity:
            return ""
        layouts = self.ports.outside[SOURCE_LAYOUTS]
        return configuration_diff(layouts.read(was), layouts.read(spec.configuration), self.ports.redactor)

    def plan(self, args: StartArgs, facts: JsonObject) -> Plan:
        """One step, which records the release; what it does to the world is asked for step by step, as it goes."""
        declared = ServiceWorkload.model_validate(facts["declared"])
        stable = facts["stable"]
        before = stable if isinstance(stable, str) else None
        identities = {str(facts["version"]): facts["identity"]}
        if before is not None and isinstance(facts["stable_identity"], str):
            identities[before] = facts["stable_identity"]
        version = str(facts["version"])
        change = f"from {before} to {version}" if before is not None else f"to {version}, its first version"
        risk = "high" if declared.release.irreversible else "medium"
        step = Step(
            verb="start",
            summary=f"release {args.workload} {change}",
            params={
                "name": args.workload,
                "stable": before,
                "candidate": version,
                "identities": identities,
                "spec": facts["declared"],
                "routing": facts["routing"],
            },
            targets=_targets(args.workload),
            operations=("release.start",),
            risk=risk,
            repeatable=True,
            precondition={"routing": facts["routing"]},
            irreversible=f"it is taken back by: interlock rollback {args.workload}",
        )
        told = {name: str(each) for name, each in identities.items()}
        preview = release_text(declared, before, version, told, _pairs(facts["changes"]), str(facts["diff"]))
        given = args.model_dump(mode="json")
        return Plan(
            action=self.name, args=given, summary=step.summary, steps=(step,), facts=_brief(facts), preview=preview
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Record it, if users still have what they had. Raises Conflict."""
        declared = ServiceWorkload.model_validate(step.params["spec"])
        routing = self.ports.outside[DATA_PLANES[declared.traffic.proxy]].current(str(step.params["name"]))
        now = routing.model_dump(mode="json") if routing is not None else None
        if now != step.params["routing"]:
            msg = f"the routing of {step.params['name']} was changed since this was planned"
            raise Conflict(msg, code="release.routing", fix="ask again, and read the new plan")
        data = context.arrange("release.start", step.params)
        return StepResult(ok=True, summary=f"release {data['release']} began", data=data)


class _Order(Action):
    """A person's order about a release that is on its way, in one repeatable step."""

    order: ClassVar[str]
    operations: ClassVar[tuple[str, ...]]
    effect: ClassVar[str]

    def read_facts(self, args: Any) -> JsonObject:
        """Which release that is, and where it stands. Raises NotFound, and Conflict where none is on its way."""
        return {"release": _shown(_active(self.ports.outside[RELEASES].active(args.workload), args.workload))}

    def plan(self, args: Any, facts: JsonObject) -> Plan:
        """One step; what follows from it is the release's own business."""
        record = ReleaseRecord.model_validate(facts["release"])
        effect = self.effect.format(stable=record.stable or "nothing", candidate=record.candidate)
        return self._planned(args, facts, f"{args.workload}, release {record.number}: {effect}", self.operations, "low")

    def _planned(self, args: Any, facts: JsonObject, summary: str, operations: tuple[str, ...], risk: Any) -> Plan:
        record = ReleaseRecord.model_validate(facts["release"])
        given = args.model_dump(mode="json")
        step = Step(
            verb=self.order,
            summary=summary,
            params={**given, "release": record.number, "state": record.state},
            targets=_targets(args.workload),
            operations=operations,
            risk=risk,
            repeatable=True,
            irreversible="a release goes on, goes back or waits; it does not become what it was",
        )
        return Plan(action=self.name, args=given, summary=summary, steps=(step,), facts=facts)

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Give the order. Raises Conflict when the release meanwhile stands where it makes no sense."""
        data = context.arrange(f"release.{self.order}", step.params)
        return StepResult(ok=True, summary=f"release {data['release']} is {data['state']}", data=data)


class Pause(_Order):
    """Not further for now."""

    name: ClassVar[str] = "release.pause"
    summary: ClassVar[str] = "Stop a release where it is; what is bad still goes back by itself."
    example: ClassVar[JsonObject] = {"workload": "web", "reason": "the on-call looks at an odd log"}
    Args: ClassVar[type[Frozen]] = OrderArgs
    order, operations = "pause", ("release.pause",)
    effect = "stop where it is"


class Resume(_Order):
    """Further."""

    name: ClassVar[str] = "release.resume"
    summary: ClassVar[str] = "Let a release that was paused or frozen go on from where it stands."
    example: ClassVar[JsonObject] = {"workload": "web", "reason": "the log was harmless"}
    Args: ClassVar[type[Frozen]] = OrderArgs
    order, operations = "resume", ("release.resume",)
    effect = "go on"


class Promote(_Order):
    """Further than it would go by itself."""

    name: ClassVar[str] = "release.promote"
    summary: ClassVar[str] = "Take a release to its next step now, or to all users, whatever the judge still waits for."
    example: ClassVar[JsonObject] = {"workload": "web", "reason": "a fix that cannot wait", "full": True}
    Args: ClassVar[type[Frozen]] = PromoteArgs
    order, operations = "promote", ("release.promote",)
    effect = "on to the next step"

    def plan(self, args: PromoteArgs, facts: JsonObject) -> Plan:
        """To all users is worse than to some more."""
        record = ReleaseRecord.model_validate(facts["release"])
        to = f"all users get {record.candidate} now" if args.full else "on to the next step now"
        summary = f"{args.workload}, release {record.number}: {to}, whatever the judge says"
        return self._planned(args, facts, summary, self.operations, "medium")


class Abort(_Order):
    """Not at all."""

    name: ClassVar[str] = "release.abort"
    summary: ClassVar[str] = "End a release that is on its way, and leave users with the version before."
    example: ClassVar[JsonObject] = {"workload": "web", "reason": "superseded"}
    Args: ClassVar[type[Frozen]] = OrderArgs
    order, operations = "abort", ("release.abort", *BACK)
    effect = "all users have {stable}, and {candidate} is stopped"

    def read_facts(self, args: OrderArgs) -> JsonObject:
        """Which release that is. Raises NotFound, and Conflict where there is no way back; a first one is ended."""
        found = _active(self.ports.outside[RELEASES].active(args.workload), args.workload)
        if found.stable is not None:
            _require_way_back(found, accepted=False)
        return {"release": _shown(found)}

    def plan(self, args: OrderArgs, facts: JsonObject) -> Plan:
        """Where users have a first version, this takes the service from them: no way back, and a high risk."""
        record = ReleaseRecord.model_validate(facts["release"])
        if record.stable is not None:
            return super().plan(args, facts)
        if record.can_go_back:
            summary = f"{args.workload}, release {record.number}: {record.candidate} is stopped; nobody has it yet"
            return self._planned(args, facts, summary, self.operations, "low")
        summary = (
            f"{args.workload}, release {record.number}: NOBODY IS ANSWERED ANY MORE, {record.candidate} is stopped"
        )
        return self._planned(args, facts, summary, ("release.abort", "traffic.forget"), "high")


class Rollback(_Order):
    """Back, at once."""

    name: ClassVar[str] = "release.rollback"
    summary: ClassVar[str] = "Give all users the version before again, while a release is on its way or after it."
    example: ClassVar[JsonObject] = {"workload": "web", "reason": "customers cannot check out"}
    Args: ClassVar[type[Frozen]] = BackArgs
    order = "rollback"

    def read_facts(self, args: BackArgs) -> JsonObject:
        """Which release would be taken back. Raises NotFound, and Conflict where none can be."""
        records = self.ports.outside[RELEASES]
        found = records.revocable(args.workload)
        if found is None:
            service(self.ports.project().workloads, args.workload)
            msg = f"no version of {args.workload} is kept to go back to"
            fix = f"deploy the one you want: interlock deploy {args.workload} VERSION"
            raise Conflict(msg, code="release.cold", fix=fix)
        if args.release is not None and args.release != found.number:
            msg = f"release {args.release} of {args.workload} cannot be taken back: the newest is {found.number}"
            raise Conflict(msg, code="release.number", fix=f"interlock release status {args.workload}")
        _require_way_back(found, accepted=args.accept_irreversible)
        return {"release": _shown(found)}

    def plan(self, args: BackArgs, facts: JsonObject) -> Plan:
        """Everybody may, but not where nobody promised that there is a way back."""
        record = ReleaseRecord.model_validate(facts["release"])
        to = f"all users get {record.stable} again" if record.stable is not None else f"{record.candidate} is ended"
        summary = f"{args.workload}, release {record.number}: {to}"
        if args.accept_irreversible:
            summary = f"{summary}, across what cannot be undone"
            return self._planned(args, facts, summary, ("release.back_across",), "high")
        return self._planned(args, facts, summary, BACK, "low")


def service(workloads: Any, name: str) -> ServiceWorkload:
    """The declaration of a service. Raises NotFound, and Invalid for a batch job."""
    declared = workloads.get(name)
    if declared is None:
        msg = f"interlock.yaml declares no workload {name!r}"
        fix = f"declare it under `workloads`, or name one of: {', '.join(sorted(workloads)) or 'none is declared'}"
        raise NotFound(msg, code="workload.unknown", fix=fix)
    if not isinstance(declared, ServiceWorkload):
        msg = f"{name} is a batch job"
        raise Invalid(msg, code="workload.batch", fix=f"interlock release shadow {name} VERSION")
    return declared


def version_of(routing: Routing | None) -> str | None:
    """The version that all users have. Raises Conflict where they have several and no release is on its way."""
    if routing is None:
        return None
    whole = [arm.name for arm in routing.arms if arm.share == WHOLE]
    if not whole:
        shares = ", ".join(f"{arm.name} {arm.share / 100:g} %" for arm in routing.arms)
        msg = f"users of {routing.workload} have several versions, by hand: {shares}"
        fix = f"give all to one of them first: interlock do traffic.route --arg workload={routing.workload} ..."
        raise Conflict(msg, code="release.split", fix=fix)
    return whole[0]


def _require_same_place(routing: Routing | None, declared: ServiceWorkload) -> None:
    """A release changes who answers, and not where: its first step would take the old address from all users."""
    if routing is not None and routing.listen != declared.traffic.listen:
        name = routing.workload
        msg = f"users of {name} come at {routing.listen}, and interlock.yaml says {declared.traffic.listen} by now"
        raise Conflict(msg, code="release.listen", fix=f"write `listen: {routing.listen}` again; or {moving(routing)}")


def busy(active: ReleaseRecord) -> Conflict:
    """A second release of one workload would be a second truth."""
    msg = f"release {active.number} of {active.workload}, to {active.candidate}, is on its way ({active.state})"
    fix = f"interlock release status {active.workload}; or end it: interlock release abort {active.workload}"
    return Conflict(msg, code="release.active", fix=fix, details={"release": active.number})


def _active(found: ReleaseRecord | None, workload: str) -> ReleaseRecord:
    if found is None:
        msg = f"no release of {workload} is on its way"
        raise NotFound(msg, code="release.none", fix=f"interlock release status {workload}")
    return found


def _require_way_back(record: ReleaseRecord, *, accepted: bool) -> None:
    if record.can_go_back:
        return
    if record.stable is None:
        msg = f"{record.candidate} is the first version of {record.workload}: there is none to go back to"
        raise Conflict(msg, code="release.first", fix=f"end it: interlock release abort {record.workload}")
    if not accepted:
        msg = f"interlock.yaml says that there is no way back from {record.candidate} of {record.workload}"
        fix = "look first whether the version before can live with what was changed; then: --accept-irreversible"
        raise Conflict(msg, code="release.irreversible", fix=fix)


def _shown(record: ReleaseRecord) -> JsonObject:
    return record.model_dump(mode="json")


def _brief(facts: JsonObject) -> JsonObject:
    """The declaration stands in the step already, and the diff in the preview."""
    return {name: value for name, value in facts.items() if name not in {"declared", "diff"}}


def _pairs(found: object) -> list[tuple[str, str]]:
    return [(str(each[0]), str(each[1])) for each in found if isinstance(each, list)] if isinstance(found, list) else []


def _targets(workload: str) -> tuple[Target, ...]:
    return (Target(kind="workload", id=workload, names=(workload,)),)
