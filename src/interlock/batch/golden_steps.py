"""What the steps of golden samples do: run a version confined, then keep what it wrote or compare it."""

from __future__ import annotations

from interlock.batch import golden
from interlock.batch.comparing import Sides, compare
from interlock.batch.lookups import BatchLookups, texts
from interlock.batch.running import BatchRuns, disk
from interlock.comparison.golden import read_samples
from interlock.comparison.outputs_model import OutputComparison
from interlock.core.action import StepResult
from interlock.core.comparison import GoldenSample
from interlock.core.plan import Step
from interlock.core.ports import StepContext
from interlock.core.source_layout import LaidSource
from interlock.core.workload import BatchWorkload


def accept(action: BatchLookups, step: Step, context: StepContext) -> StepResult:
    """Run it confined, and keep both sides."""
    name, declared = str(step.params["workload"]), BatchWorkload.model_validate(step.params["declared"])
    arguments = texts(step.params["arguments"])
    with BatchRuns(action.ports, context, name, declared, arguments) as runs:
        laid = LaidSource.model_validate(step.params["laid"])
        runs.lay_out(laid)
        given, _ = runs.pinned_input()
        trial = runs.try_version(laid, "accepted", given)
        if not trial.ok:
            return StepResult(ok=False, summary=trial.words)
        context.hold()
        try:
            sample = golden.keep(
                action.golden_folder(name),
                name,
                str(step.params["name"]),
                given=given,
                output=trial.output,
                arguments=arguments,
                accepted_by=action.ports.records.run(context.run).actor.id,
                accepted_at=action.ports.clock.now(),
                reason=str(step.params["reason"]),
            )
        except OSError as error:
            raise disk(error) from error
    return StepResult(ok=True, summary=f"{name}: {sample.name} is accepted", data={"digest": sample.digest})


def check(action: BatchLookups, step: Step, context: StepContext) -> StepResult:
    """All samples, one after the other; one that differs is a failure of this step."""
    name, declared = str(step.params["workload"]), BatchWorkload.model_validate(step.params["declared"])
    laid = LaidSource.model_validate(step.params["laid"])
    differing: list[str] = []
    samples = read_samples(action.golden_folder(name), name)
    for sample in samples:
        found = _sample(action, sample, name, declared, laid, context)
        words = found.blocks[0] if found.blocks else "as accepted"
        context.write_output(f"{sample.name} (accepted by {sample.accepted_by}): {words}\n")
        if found.blocks:
            differing.append(f"{sample.name}: {words}")
    if differing:
        return StepResult(ok=False, summary=f"{len(differing)} of {len(samples)} differ: {differing[0]}"[:1000])
    return StepResult(ok=True, summary=f"all {len(samples)} are as accepted", data={"samples": len(samples)})


def _sample(
    action: BatchLookups,
    sample: GoldenSample,
    name: str,
    declared: BatchWorkload,
    laid: LaidSource,
    context: StepContext,
) -> OutputComparison:
    if sample.input is None or sample.output is None:
        return OutputComparison(blocks=("it is a sample of a service",))
    folder = action.golden_folder(name)
    with BatchRuns(action.ports, context, name, declared, sample.input.arguments) as runs:
        runs.lay_out(laid)
        golden.lay_out(folder, sample.input, runs.root / "sample")
        golden.lay_out(folder, sample.output, runs.root / "accepted")
        trial = runs.try_version(laid, "checked", golden.input_place(sample.input, runs.root / "sample"))
        if not trial.ok:
            return OutputComparison(blocks=(trial.words,))
        sides = Sides(runs.root / "accepted", trial.output, None)
        return compare(context, runs.root, sides, declared.comparison, action.ports.clock.now())
