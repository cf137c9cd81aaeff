"""`golden.*`: accept what a service answers as right, hold a version against it, and take back that it was right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from interlock.comparison.golden import (
    AT_ONCE_MAX,
    TIMEOUT_SECONDS,
    GoldenResult,
    accepted,
    pin,
    read_samples,
    replay,
    unpin,
)
from interlock.comparison.rules import ReadyRules
from interlock.core.action import Action, StepResult
from interlock.core.comparison import GoldenName, GoldenRequest, GoldenSample
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.golden import GOLDEN_FOLDER
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.release import RELEASES
from interlock.core.service_instance import SERVICE_INSTANCES, ServiceInstance
from interlock.core.traffic import DATA_PLANES, WHOLE, VersionName, WorkloadName
from interlock.core.workload import ServiceWorkload
from interlock.lib.canonical import digest_of

TOLD_MAX = 20
WORDS_CHARACTERS = 200
SERVER_ERRORS = 500
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class AcceptArgs(Frozen):
    """A service, a name for the sample, the path that is asked for by GET, and why its answer is right.

    `version` is the one that is asked, which runs; without it the one that users have. Whoever asks is who accepts.
    """

    workload: WorkloadName
    name: GoldenName
    path: str = Field(pattern=r"^/[!-~]{0,2000}$")
    reason: Reason
    version: VersionName | None = None


class CheckArgs(Frozen):
    """A service, and the version that must still answer what was accepted; without it the one that users have.

    `release` is the number of the release that it is checked for.
    """

    workload: WorkloadName
    version: VersionName | None = None
    release: int | None = Field(default=None, ge=1)


class RemoveArgs(Frozen):
    """A service, and the sample that no version has to answer any more."""

    workload: WorkloadName
    name: GoldenName


class _OfGolden(Action):
    """What all of them look up."""

    @property
    def folder(self) -> Path:
        """Where the samples of all services lie."""
        return self.ports.outside[GOLDEN_FOLDER]

    def declared(self, workload: str) -> ServiceWorkload:
        """Raises NotFound, and Invalid for a batch job."""
        found = self.ports.project().workloads.get(workload)
        if found is None:
            msg = f"interlock.yaml declares no workload {workload!r}"
            raise NotFound(msg, code="workload.unknown", fix="declare it under `workloads`")
        if not isinstance(found, ServiceWorkload):
            msg = f"{workload} is a batch job, whose samples are inputs and outputs"
            raise Invalid(msg, code="workload.batch", fix="use batch.accept and batch.check")
        return found

    def running(self, workload: str, version: str | None) -> ServiceInstance:
        """The version that is asked. Raises NotFound where it does not run, Conflict where users have several."""
        declared = self.declared(workload)
        wanted = version if version is not None else self._of_users(workload, declared)
        found = self.ports.outside[SERVICE_INSTANCES].find(workload, wanted)
        if found is None or found.stage != "running":
            msg = f"{workload} {wanted} does not run"
            raise NotFound(msg, code="golden.not_running", fix=f"interlock service start {workload} {wanted}")
        return found

    def _of_users(self, workload: str, declared: ServiceWorkload) -> str:
        routing = self.ports.outside[DATA_PLANES[declared.traffic.proxy]].current(workload)
        whole = [arm.name for arm in routing.arms if arm.share == WHOLE] if routing is not None else []
        if not whole:
            msg = f"users of {workload} have no version, or several"
            raise Conflict(msg, code="golden.which_version", fix="say which version is to be asked")
        return whole[0]

    def kept(self, workload: str) -> dict[str, GoldenSample]:
        """All samples of a service by name. Raises Permanent when one cannot be read."""
        return {sample.name: sample for sample in read_samples(self.folder, workload)}


class GoldenAccept(_OfGolden):
    """What a person knows to be right."""

    name: ClassVar[str] = "golden.accept"
    summary: ClassVar[str] = "Keep what a service answers to a GET request as a golden sample for all later versions."
    example: ClassVar[JsonObject] = {
        "workload": "web",
        "name": "price-of-7",
        "path": "/items/7",
        "reason": "checked against the price list",
    }
    Args: ClassVar[type[Frozen]] = AcceptArgs

    def read_facts(self, args: AcceptArgs) -> JsonObject:
        """Who is asked, and whether there is a sample of this name. Raises NotFound, Conflict, Invalid."""
        found = self.running(args.workload, args.version)
        known = self.kept(args.workload).get(args.name)
        return {
            "version": found.spec.version,
            "identity": found.spec.identity,
            "address": found.address,
            "known": known.digest if known is not None else None,
        }

    def plan(self, args: AcceptArgs, facts: JsonObject) -> Plan:
        """One step; what differs between several answers of the version itself is kept as noise."""
        over = ", in place of the sample of that name" if facts["known"] is not None else ""
        step = Step(
            verb="accept",
            summary=f"accept what {args.workload} {facts['version']} answers to GET {args.path} as {args.name}{over}",
            params={**args.model_dump(mode="json"), **facts},
            targets=_targets(args.workload, args.name),
            risk="low",
            operations=("golden.accept",),
            repeatable=True,
            discloses="content",
            irreversible="a sample is replaced by accepting another answer under its name",
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Ask it, and keep the answer. Raises Transient (no answer), Permanent (too large), Invalid (an error)."""
        workload, now = str(step.params["workload"]), self.ports.clock.now()
        sample = accepted(
            workload,
            str(step.params["name"]),
            GoldenRequest(target=str(step.params["path"])),
            str(step.params["address"]),
            ReadyRules(self.declared(workload).comparison, now.date()),
            by=self.ports.records.run(context.run).actor.id,
            at=now,
            reason=str(step.params["reason"]),
            monotonic=self.ports.clock.monotonic,
        )
        status = sample.answer.status if sample.answer is not None else 0
        if status >= SERVER_ERRORS:
            msg = f"{workload} {step.params['version']} answers {status} to GET {step.params['path']}"
            raise Invalid(msg, code="golden.error", fix="accept an answer that is right")
        context.hold()
        try:
            pin(self.folder, sample)
        except OSError as error:
            msg = f"the sample cannot be kept: {error.strerror or error}"
            raise Transient(msg, code="golden.disk", fix="make room on the disk of the state folder") from error
        data: JsonObject = {"digest": sample.digest, "status": status, "noise": len(sample.noise)}
        return StepResult(ok=True, summary=f"{workload}: {sample.name} is accepted ({status})", data=data)


class GoldenCheck(_OfGolden):
    """Whether it is still right."""

    name: ClassVar[str] = "golden.check"
    summary: ClassVar[str] = "Ask a running version of a service for all golden samples and compare its answers."
    example: ClassVar[JsonObject] = {"workload": "web", "version": "v1.4"}
    Args: ClassVar[type[Frozen]] = CheckArgs

    def read_facts(self, args: CheckArgs) -> JsonObject:
        """Who is asked, and for which samples. Raises NotFound, Conflict, Denied, Invalid."""
        found = self.running(args.workload, args.version)
        if args.release is not None:
            self.ports.outside[RELEASES].require(args.release, args.workload, versions=(found.spec.version,))
        samples = self.kept(args.workload)
        if not samples:
            msg = f"{args.workload} has no golden sample"
            fix = f"interlock release golden accept {args.workload} NAME --path /... --reason ..."
            raise NotFound(msg, code="golden.none", fix=fix)
        return {
            "version": found.spec.version,
            "identity": found.spec.identity,
            "address": found.address,
            "samples": digest_of({name: sample.digest for name, sample in samples.items()}),
            "count": len(samples),
            "rules": digest_of(self.declared(args.workload).comparison.model_dump(mode="json")),
        }

    def plan(self, args: CheckArgs, facts: JsonObject) -> Plan:
        """One step, which only asks."""
        count = facts["count"] if isinstance(facts["count"], int) else 0
        rounds = count // AT_ONCE_MAX + 1
        step = Step(
            verb="check",
            summary=f"hold {args.workload} {facts['version']} against {_counted(count)}",
            params={"workload": args.workload, **facts},
            targets=_targets(args.workload, f"check-{facts['version']}"),
            risk="low",
            changes=False,
            operations=("golden.check",) if args.release is None else ("golden.check", "release.step"),
            repeatable=True,
            discloses="content",
            timeout_seconds=60.0 + rounds * TIMEOUT_SECONDS,
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """All of them; one that differs is a failure of this step. Raises Stale when they were changed meanwhile."""
        workload = str(step.params["workload"])
        samples = self.kept(workload)
        if digest_of({name: sample.digest for name, sample in samples.items()}) != step.params["samples"]:
            msg = f"the golden samples of {workload} were changed since this was planned"
            raise Stale(msg, code="golden.changed", fix="ask again")
        context.hold()
        results = replay(
            samples.values(),
            str(step.params["address"]),
            self.declared(workload).comparison,
            today=self.ports.clock.now().date(),
            monotonic=self.ports.clock.monotonic,
        )
        for result in results:
            context.write_output(f"{result.words}\n")
        bad = [result for result in results if not result.passes]
        told: JsonObject = {"samples": len(results), "differing": [self._told(result) for result in bad[:TOLD_MAX]]}
        if bad:
            words = self.ports.redactor.redact(bad[0].words)
            summary = f"{len(bad)} of {_counted(len(results))} not answered as accepted: {words}"
            return StepResult(ok=False, summary=summary[:1000], data=told)
        return StepResult(ok=True, summary=f"{_counted(len(results))} answered as accepted", data=told)

    def _told(self, result: GoldenResult) -> JsonObject:
        """Which sample, in which field; all of the values stand in the output of the Run."""
        fields = sorted({each.field or each.path for each in result.differences if each.grade == "block"})
        words = self.ports.redactor.redact(result.words)[:WORDS_CHARACTERS]
        return {"name": result.name, "outcome": result.outcome, "fields": [*fields[:3]], "words": words}


class GoldenRemove(_OfGolden):
    """It is right no longer."""

    name: ClassVar[str] = "golden.remove"
    summary: ClassVar[str] = "Keep a golden sample of a service no longer, so that no version has to answer it."
    example: ClassVar[JsonObject] = {"workload": "web", "name": "price-of-7"}
    Args: ClassVar[type[Frozen]] = RemoveArgs

    def read_facts(self, args: RemoveArgs) -> JsonObject:
        """What it is. Raises NotFound."""
        found = self.kept(args.workload).get(args.name)
        if found is None:
            msg = f"{args.workload} has no golden sample {args.name}"
            raise NotFound(msg, code="golden.unknown", fix=f"interlock release golden list {args.workload}")
        request = found.request
        return {"digest": found.digest, "by": found.accepted_by, "path": request.target if request else None}

    def plan(self, args: RemoveArgs, facts: JsonObject) -> Plan:
        """One step; a release that it stopped would pass then, so that it weighs more than accepting one."""
        step = Step(
            verb="remove",
            summary=f"no longer hold versions of {args.workload} against {args.name}, accepted by {facts['by']}",
            params={**args.model_dump(mode="json"), "digest": facts["digest"]},
            targets=_targets(args.workload, args.name),
            risk="medium",
            operations=("golden.remove",),
            repeatable=True,
            precondition={"digest": facts["digest"]},
            irreversible="accept it anew",
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Remove the very one that was looked at. Raises Stale, Permanent."""
        workload, name = str(step.params["workload"]), str(step.params["name"])
        found = self.kept(workload).get(name)
        if found is None:
            return StepResult(ok=True, summary=f"{workload} has no golden sample {name}")
        if found.digest != step.params["digest"]:
            msg = f"the golden sample {name} of {workload} was accepted anew since this was planned"
            raise Stale(msg, code="golden.changed", fix="ask again")
        context.hold()
        try:
            unpin(self.folder, workload, name)
        except OSError as error:
            msg = f"the sample cannot be removed: {error.strerror or error}"
            raise Permanent(msg, code="golden.disk", fix="check the permissions of the state folder") from error
        return StepResult(ok=True, summary=f"{workload}: {name} is kept no longer")


def _targets(workload: str, what: str) -> tuple[Target, ...]:
    """Of its own, so that nothing about the workload waits for it."""
    return (Target(kind="golden", id=f"{workload}@{what}", names=(workload, f"workload:{workload}")),)


def _counted(count: int) -> str:
    return "one golden sample" if count == 1 else f"{count} golden samples"
