"""`batch.*`: run a batch job, compare two versions of it, cut it over by share, go back, and keep golden samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from interlock.batch.comparing import day_folder, file_comparison, file_day, found_of
from interlock.batch.golden_steps import accept, check
from interlock.batch.invoking import Invocation, Invoking, output_place
from interlock.batch.lookups import COMPARISONS_LOOKED_AT, BatchLookups, moved, run_preview, shown, step_seconds, texts
from interlock.batch.model import (
    Criterion,
    Part,
    checked_arguments,
    chosen,
    key_of,
    overall,
    serving,
    targets_of,
    verdict_of,
)
from interlock.batch.running import BatchRuns, input_of
from interlock.batch.shadowing import material_of, shadow
from interlock.batch.summary import follow_up
from interlock.batch.turning import WHOLE_PERCENT, put_back, routing_after, snapshot, write_baseline, write_report
from interlock.comparison.golden import read_samples
from interlock.core.action import Action, StepResult
from interlock.core.batch import BatchRouting, VersionPin
from interlock.core.comparison import GoldenName
from interlock.core.errors import Conflict, Denied, Invalid, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.source_layout import LaidSource
from interlock.core.traffic import VersionName, WorkloadName
from interlock.core.workload import BatchWorkload

Arguments = Annotated[dict[str, Annotated[str, Field(max_length=200)]], Field(max_length=20)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
TRIALS = 3
BACK = ("batch.rollback", "release.rollback", "rollback")
"""By the last two, policies let everybody go back at once, in a freeze too."""


class RunArgs(Frozen):
    """A batch job, and a value for each of its `parameters`."""

    workload: WorkloadName
    arguments: Arguments = {}


class ShadowArgs(Frozen):
    """A batch job, the version that is tried, and a value for each of its `parameters`.

    Without `version` it is the one that has a share. `against` is the version it is held against; without it the one
    that is in force.
    """

    workload: WorkloadName
    version: VersionName | None = None
    against: VersionName | None = None
    arguments: Arguments = {}


class CutoverArgs(Frozen):
    """A batch job, and the percentage of its invocations that get the version; 100 makes it the one in force.

    Without `version` it is the one that has a share already. `unproven` goes on although no comparison says GO.
    """

    workload: WorkloadName
    version: VersionName | None = None
    percent: float = Field(gt=0, le=100)
    reason: Reason | None = None
    unproven: bool = False


class RollbackArgs(Frozen):
    """A batch job, and why. `restore_outputs` also puts back what lay where the newest version wrote."""

    workload: WorkloadName
    reason: Reason
    restore_outputs: bool = False


class AcceptArgs(Frozen):
    """A batch job, a name for the sample, a value for each parameter, and why its output is right.

    `version` is the one that is run; without it the one in force. Whoever asks is who accepts.
    """

    workload: WorkloadName
    name: GoldenName
    reason: Reason
    version: VersionName | None = None
    arguments: Arguments = {}


class CheckArgs(Frozen):
    """A batch job, and the version that must still write what was accepted; without it the one in force."""

    workload: WorkloadName
    version: VersionName | None = None


class _OfBatch(BatchLookups, Action):
    """What all of them are."""


class Run(_OfBatch):
    """One invocation."""

    name: ClassVar[str] = "batch.run"
    summary: ClassVar[str] = "Run a batch job with the version that this invocation gets, and publish what it wrote."
    example: ClassVar[JsonObject] = {"workload": "monthly-report", "arguments": {"target_month": "202602"}}
    Args: ClassVar[type[Frozen]] = RunArgs

    def read_facts(self, args: RunArgs) -> JsonObject:
        """Which version it gets, and what that is. Raises NotFound, Invalid, Conflict."""
        declared = self.declared(args.workload)
        arguments = checked_arguments(declared, args.arguments)
        routing = self.required(args.workload)
        part: Part = chosen(routing, key_of(arguments))
        pin = serving(routing, part)
        fallback = self._fallback(routing, part)
        given = input_of(declared, arguments, self.ports.project().folder) if declared.input is not None else None
        return {
            "declared": declared.model_dump(mode="json"),
            "arguments": dict(arguments),
            "part": part,
            "laid": self.pinned(args.workload, declared, pin).model_dump(mode="json"),
            "fallback": self.pinned(args.workload, declared, fallback).model_dump(mode="json") if fallback else None,
            "beside": part == "candidate",
            "epoch": routing.epoch,
            "input": str(given) if given is not None else None,
            "output": str(
                output_place(declared, arguments, self.ports.project().folder, self.records.folder(args.workload))
            ),
        }

    def _fallback(self, routing: BatchRouting, part: Part) -> VersionPin | None:
        """What does it when this version fails: the stable one, or the one before a version that took over."""
        if part == "candidate":
            return routing.stable
        newest = routing.candidate is None and not routing.crossed
        return routing.previous if newest else None

    def plan(self, args: RunArgs, facts: JsonObject) -> Plan:
        """One step."""
        laid = LaidSource.model_validate(facts["laid"])
        declared = BatchWorkload.model_validate(facts["declared"])
        targets = targets_of(args.workload, key_of(texts(facts["arguments"])))
        if declared.output is not None:
            targets += (Target(kind="file", id=str(facts["output"])),)
        trials = 4 if facts["beside"] else 2
        step = Step(
            verb="run",
            summary=f"run {args.workload} {laid.version} ({facts['part']}){shown(facts['arguments'])}",
            params={"workload": args.workload, **{name: facts[name] for name in _RUN_PARAMS}},
            targets=targets,
            risk="medium",
            operations=("batch.run",),
            discloses="content",
            precondition={"epoch": facts["epoch"]},
            irreversible="the output before is kept; what else the command did is not known",
            timeout_seconds=step_seconds(declared, trials),
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"identity": laid.identity, "part": facts["part"], "epoch": facts["epoch"]},
            preview=run_preview(args.workload, declared, laid, facts),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Run it, if the routing is the one of the plan. Raises Conflict, and what running raises."""
        invocation = Invocation.of(step)
        if self.required(invocation.name).epoch != invocation.epoch:
            raise moved(invocation.name)
        return Invoking(self.ports, context, invocation).perform()


_RUN_PARAMS = ("declared", "arguments", "part", "laid", "fallback", "beside", "epoch", "input", "output")


class Shadow(_OfBatch):
    """Two versions beside each other; users notice nothing."""

    name: ClassVar[str] = "batch.shadow"
    summary: ClassVar[str] = "Run two versions of a batch job on one input, confined, and compare what they wrote."
    example: ClassVar[JsonObject] = {
        "workload": "monthly-report",
        "version": "v2",
        "arguments": {"target_month": "202602"},
    }
    Args: ClassVar[type[Frozen]] = ShadowArgs

    def read_facts(self, args: ShadowArgs) -> JsonObject:
        """What both versions are. Raises NotFound, Invalid, Conflict."""
        declared = self.declared(args.workload)
        arguments = checked_arguments(declared, args.arguments)
        if declared.input is not None:
            input_of(declared, arguments, self.ports.project().folder)
        if args.against is not None:
            stable = self.laid(args.workload, declared, args.against)
        else:
            stable = self.pinned(args.workload, declared, self.required(args.workload).stable)
        candidate = self.laid(args.workload, declared, args.version or self._on_its_way(args.workload))
        return {
            "declared": declared.model_dump(mode="json"),
            "arguments": dict(arguments),
            "stable": stable.model_dump(mode="json"),
            "candidate": candidate.model_dump(mode="json"),
        }

    def _on_its_way(self, workload: str) -> str:
        """The version that has a share. Raises Invalid where none has."""
        found = self.records.routing(workload)
        if found is None or found.candidate is None:
            msg = f"no version of {workload} has a share yet, so say which one is to be tried"
            raise Invalid(msg, code="batch.which_version", fix=f"interlock release shadow {workload} VERSION")
        return found.candidate.version

    def plan(self, args: ShadowArgs, facts: JsonObject) -> Plan:
        """One step, which may be repeated: it touches nothing but folders of Interlock's own."""
        declared = BatchWorkload.model_validate(facts["declared"])
        stable, candidate = LaidSource.model_validate(facts["stable"]), LaidSource.model_validate(facts["candidate"])
        given = shown(facts["arguments"])
        step = Step(
            verb="shadow",
            summary=f"run {args.workload} {stable.version} twice and {candidate.version} once, and compare{given}",
            params={"workload": args.workload, **facts},
            targets=targets_of(args.workload, f"shadow-{key_of(texts(facts['arguments']))}"),
            risk="low",
            operations=("batch.shadow",),
            discloses="content",
            repeatable=True,
            irreversible="nothing but a comparison is left behind",
            timeout_seconds=step_seconds(declared, TRIALS),
        )
        lines = [
            f"stable     {stable.version} = {stable.identity}",
            f"candidate  {candidate.version} = {candidate.identity}",
            f"command    {' '.join(declared.command)}",
            "kept from  writing elsewhere, the network, local sockets of others: as far as this machine can",
        ]
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"stable": stable.identity, "candidate": candidate.identity, "rules": self.rules_name(declared)},
            preview="\n".join(lines),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Run, compare, file, write down. A difference is a finding, and no failure of this step."""
        name, declared = str(step.params["workload"]), BatchWorkload.model_validate(step.params["declared"])
        arguments = texts(step.params["arguments"])
        now = self.ports.clock.now()
        with BatchRuns(self.ports, context, name, declared, arguments) as runs:
            seen = shadow(
                runs,
                context,
                LaidSource.model_validate(step.params["stable"]),
                LaidSource.model_validate(step.params["candidate"]),
                declared.comparison,
                now,
                twice=True,
                gates=True,
            )
            place = day_folder(self.records.folder(name), now, context.run)
            file_comparison(place, material_of(name, context.run, arguments, declared, seen), runs.root)
        found = found_of(seen.found, declared.comparison, seen.trials, seen.input_sha256, place, seen.gates)
        data: JsonObject = {"workload": name, "arguments": dict(arguments), **found}  # type: ignore[dict-item]
        context.arrange("batch.compared", {"found": data})
        self._file_day(name, place.parent, f"{now:%Y-%m-%d}")
        verdict, words = verdict_of(seen.found, declared.comparison)
        context.write_output(f"{words}\nsee {place}/summary.md\n")
        brief: JsonObject = {"verdict": verdict, "fields": list(seen.found.fields[:20]), "folder": str(place)}
        return StepResult(ok=True, summary=f"{name}: {verdict.replace('_', ' ')}: {words}"[:1000], data=brief)

    def _file_day(self, name: str, place: Path, day: str) -> None:
        found = self.records.comparisons(name, COMPARISONS_LOOKED_AT)
        file_day(place, [each for each in found if f"{each.at:%Y-%m-%d}" == day], name)


class Cutover(_OfBatch):
    """A share of the invocations, or all of them."""

    name: ClassVar[str] = "batch.cutover"
    summary: ClassVar[str] = "Give a share of a batch job's invocations to a version; with 100 percent it is in force."
    example: ClassVar[JsonObject] = {"workload": "monthly-report", "version": "v2", "percent": 20.0}
    Args: ClassVar[type[Frozen]] = CutoverArgs

    def read_facts(self, args: CutoverArgs) -> JsonObject:
        """What is in force, what the version is, and what speaks for it. Raises NotFound, Conflict, Denied."""
        declared = self.declared(args.workload)
        before = self.records.routing(args.workload)
        version = args.version or (before.candidate.version if before is not None and before.candidate else None)
        if version is None:
            msg = f"no version of {args.workload} has a share yet"
            raise Invalid(
                msg, code="batch.which_version", fix=f"interlock release cutover {args.workload} VERSION --percent 20"
            )
        laid = self.laid(args.workload, declared, version)
        self._require_free(args, before, laid)
        table: tuple[Criterion, ...] = ()
        if before is not None:
            table = self.criteria(args.workload, declared, before.stable.identity, laid.identity)
            verdict = overall(table)
            if verdict != "go" and not args.unproven:
                words = next(each.words for each in table if each.verdict != "go")
                msg = f"nothing says GO for {args.workload} {version}: {words}"
                fix = f"interlock release shadow {args.workload} {version}; or say that it is meant: --unproven"
                raise Denied(msg, code="batch.unproven", fix=fix, details={"verdict": verdict})
        return {
            "before": before.model_dump(mode="json") if before is not None else None,
            "pin": {"version": laid.version, "identity": laid.identity},
            "criteria": [list(each) for each in table],
            "failures_max": declared.release.red_line_failures,
            "irreversible": declared.release.irreversible,
            "rules": self.rules_name(declared),
        }

    def _require_free(self, args: CutoverArgs, before: BatchRouting | None, laid: LaidSource) -> None:
        """Two candidates at once would be two truths. Raises Conflict, Invalid."""
        if before is None:
            if args.percent != WHOLE_PERCENT:
                msg = f"{args.workload} has no version yet, so its first one gets all invocations"
                raise Invalid(msg, code="batch.first", fix="--percent 100")
            return
        if before.stable.identity == laid.identity and before.candidate is None:
            msg = f"{args.workload} {laid.version} is in force already"
            raise Conflict(msg, code="batch.same", fix="interlock release status")
        if before.candidate is not None and before.candidate.identity != laid.identity:
            msg = f"{args.workload} {before.candidate.version} has {before.share / 100:g} % and is on its way"
            raise Conflict(msg, code="batch.active", fix=f"interlock release rollback {args.workload} --reason ...")

    def plan(self, args: CutoverArgs, facts: JsonObject) -> Plan:
        """One step, taken back by the routing before."""
        pin = VersionPin.model_validate(facts["pin"])
        before = BatchRouting.model_validate(facts["before"]) if facts["before"] is not None else None
        after = routing_after(args.workload, args.percent, args.reason, before, pin, facts)
        share = "all invocations" if args.percent == 100 else f"{args.percent:g} % of the invocations"  # noqa: PLR2004
        summary = f"give {share} of {args.workload} to {pin}"
        risk = "high" if args.unproven or facts["irreversible"] else "medium"
        step = Step(
            verb="route",
            summary=summary,
            params={
                "routing": after,
                "before": before.epoch if before is not None else None,
                "identity": pin.identity,
                "word": "cut_over",
            },
            targets=targets_of(args.workload),
            risk=risk,
            operations=("batch.cutover",),
            repeatable=True,
            precondition={"epoch": before.epoch if before is not None else None},
            irreversible=f"undo; the way back is: interlock release rollback {args.workload} --reason ...",
        )
        listed = facts["criteria"]
        rows = (
            [f"{row[0]:<16}{row[1]:<9}{row[2]}" for row in listed if isinstance(row, list)]
            if isinstance(listed, list)
            else []
        )
        was = before.stable if before is not None else None
        lines = [f"in force   {was or 'nothing'}", f"new        {pin}", *rows]
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=summary,
            steps=(step,),
            facts={name: facts[name] for name in ("before", "pin", "criteria", "rules")},
            preview="\n".join(lines),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Take the snapshot, then put the routing in force. Raises Conflict when it was changed meanwhile."""
        made = step.params["routing"]
        routing: JsonObject = dict(made) if isinstance(made, dict) else {}
        if routing.get("snapshot") is None:
            context.hold()
            kept = snapshot(self, str(routing["workload"]))
            write_baseline(self, str(routing["workload"]), str(step.params["identity"]), kept, context.run)
            routing["snapshot"] = kept
        data: JsonObject = {"share": routing["share"], "stable": routing["stable"], "candidate": routing["candidate"]}
        context.arrange(
            "batch.route",
            {"routing": routing, "before": step.params["before"], "word": step.params["word"], "data": data},
        )
        return StepResult(ok=True, summary=step.summary, data=data)

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """It is in force."""
        made = step.params["routing"]
        wanted = made if isinstance(made, dict) else {}
        found = self.records.routing(str(wanted["workload"]))
        ok = found is not None and found.epoch >= int(str(wanted["epoch"]))
        return StepResult(ok=ok, summary="it is in force" if ok else "it is not in force")


class Rollback(_OfBatch):
    """Back, at once."""

    name: ClassVar[str] = "batch.rollback"
    summary: ClassVar[str] = "Give all invocations of a batch job to the version before again, and report why."
    example: ClassVar[JsonObject] = {"workload": "monthly-report", "reason": "output_mismatch"}
    Args: ClassVar[type[Frozen]] = RollbackArgs

    def read_facts(self, args: RollbackArgs) -> JsonObject:
        """What there is to go back from, and to. Raises NotFound, Conflict."""
        routing = self.required(args.workload)
        if routing.candidate is None and routing.previous is None:
            msg = f"{args.workload} has no version to go back to"
            raise Conflict(msg, code="batch.no_way_back", fix="interlock release status")
        return {"before": routing.model_dump(mode="json")}

    def plan(self, args: RollbackArgs, facts: JsonObject) -> Plan:
        """One step, permitted to everybody at once."""
        before = BatchRouting.model_validate(facts["before"])
        stable = before.stable if before.candidate is not None else before.previous
        newest = before.candidate or before.stable
        after = before.model_copy(
            update={
                "stable": stable,
                "candidate": None,
                "previous": before.previous if before.candidate is not None else None,
                "share": 0,
                "failures": 0,
                "epoch": before.epoch + 1,
                "reason": args.reason,
                "snapshot": {},
            }
        )
        step = Step(
            verb="rollback",
            summary=f"give all invocations of {args.workload} to {stable} again, and none to {newest.version}",
            params={
                "routing": after.model_dump(mode="json"),
                "before": before.model_dump(mode="json"),
                "reason": args.reason,
                "restore_outputs": args.restore_outputs,
            },
            targets=targets_of(args.workload),
            risk="low",
            operations=BACK,
            repeatable=True,
            precondition={"epoch": before.epoch},
            irreversible=f"undo; to go on again: interlock release cutover {args.workload} VERSION",
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"stable": str(stable), "newest": str(newest), "epoch": before.epoch},
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """First the routing, which is what matters; then outputs and the report. Raises Conflict."""
        before = BatchRouting.model_validate(step.params["before"])
        reason = str(step.params["reason"])
        made = step.params["routing"]
        data: JsonObject = {"reason": reason, "follow_up": follow_up(before, reason), "failures": before.failures}
        context.arrange("batch.route", {"routing": made, "before": before.epoch, "word": "rolled_back", "data": data})
        restored = put_back(self, before, context) if step.params["restore_outputs"] is True else []
        report = write_report(self, before, reason, restored, context)
        summary = f"{step.summary}; see {report}"
        return StepResult(ok=True, summary=summary, data={"report": str(report), "restored": len(restored)})


class Accept(_OfBatch):
    """What a person knows to be right."""

    name: ClassVar[str] = "batch.accept"
    summary: ClassVar[str] = "Keep an input and the output that a version writes for it as a golden sample."
    example: ClassVar[JsonObject] = {
        "workload": "monthly-report",
        "name": "february",
        "reason": "checked against the ledger",
        "arguments": {"target_month": "202602"},
    }
    Args: ClassVar[type[Frozen]] = AcceptArgs

    def read_facts(self, args: AcceptArgs) -> JsonObject:
        """Which version writes it. Raises NotFound, Invalid, Conflict."""
        declared = self.declared(args.workload)
        arguments = checked_arguments(declared, args.arguments)
        laid = self.of_version(args.workload, declared, args.version)
        known = [
            each.digest
            for each in read_samples(self.golden_folder(args.workload), args.workload)
            if each.name == args.name
        ]
        return {
            "declared": declared.model_dump(mode="json"),
            "arguments": dict(arguments),
            "laid": laid.model_dump(mode="json"),
            "known": known[0] if known else None,
        }

    def plan(self, args: AcceptArgs, facts: JsonObject) -> Plan:
        """One step."""
        laid, declared = LaidSource.model_validate(facts["laid"]), BatchWorkload.model_validate(facts["declared"])
        given = shown(facts["arguments"])
        over = ", in place of the sample of that name" if facts["known"] is not None else ""
        step = Step(
            verb="accept",
            summary=f"accept what {args.workload} {laid.version} writes as {args.name}{given}{over}",
            params={"workload": args.workload, "name": args.name, "reason": args.reason, **facts},
            targets=targets_of(args.workload, f"golden-{args.name}"),
            risk="low",
            operations=("batch.accept",),
            discloses="content",
            repeatable=True,
            irreversible="a sample is replaced by accepting another one under its name",
            timeout_seconds=step_seconds(declared, 1),
        )
        facts_told = {"identity": laid.identity, "known": facts["known"]}
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts_told
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Run it confined, and keep both sides."""
        return accept(self, step, context)


class Check(_OfBatch):
    """Whether it is still right."""

    name: ClassVar[str] = "batch.check"
    summary: ClassVar[str] = "Run a version of a batch job on all golden samples and compare with what was accepted."
    example: ClassVar[JsonObject] = {"workload": "monthly-report", "version": "v2"}
    Args: ClassVar[type[Frozen]] = CheckArgs

    def read_facts(self, args: CheckArgs) -> JsonObject:
        """Which samples there are, and what the version is. Raises NotFound, Invalid, Conflict."""
        declared = self.declared(args.workload)
        laid = self.of_version(args.workload, declared, args.version)
        samples = read_samples(self.golden_folder(args.workload), args.workload)
        if not samples:
            msg = f"{args.workload} has no golden sample"
            raise NotFound(msg, code="golden.none", fix=f"interlock release golden accept {args.workload} ...")
        return {
            "declared": declared.model_dump(mode="json"),
            "laid": laid.model_dump(mode="json"),
            "samples": {each.name: each.digest for each in samples},
        }

    def plan(self, args: CheckArgs, facts: JsonObject) -> Plan:
        """One step."""
        laid, declared = LaidSource.model_validate(facts["laid"]), BatchWorkload.model_validate(facts["declared"])
        count = len(facts["samples"]) if isinstance(facts["samples"], dict) else 0
        step = Step(
            verb="check",
            summary=f"run {args.workload} {laid.version} on {count} golden samples and compare",
            params={"workload": args.workload, **facts},
            targets=targets_of(args.workload, "golden"),
            risk="low",
            operations=("batch.check",),
            discloses="content",
            repeatable=True,
            irreversible="nothing is left behind",
            timeout_seconds=step_seconds(declared, count),
        )
        told: JsonObject = {"identity": laid.identity, "samples": facts["samples"], "rules": self.rules_name(declared)}
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=told
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """All samples, one after the other; one that differs is a failure of this step."""
        return check(self, step, context)
