"""How a cutover and a rollback change which version invocations get, and what is kept and written on the way."""

from __future__ import annotations

from pathlib import Path

from interlock.batch.baseline import Baseline, baseline_text
from interlock.batch.lookups import COMPARISONS_LOOKED_AT, BatchLookups
from interlock.batch.publishing import restore
from interlock.batch.running import disk
from interlock.batch.summary import rollback_text
from interlock.comparison.golden import read_samples
from interlock.comparison.written import replace_file
from interlock.core.batch import BatchRouting, VersionPin
from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.ports import StepContext
from interlock.core.schedule import SCHEDULES
from interlock.core.traffic import WHOLE
from interlock.core.workload import BatchWorkload
from interlock.lib.canonical import digest_of

WHOLE_PERCENT = 100


def routing_after(
    name: str, percent: float, reason: str | None, before: BatchRouting | None, pin: VersionPin, facts: JsonObject
) -> JsonObject:
    """The routing, without what the moment of effect adds: who, when, by which Run."""
    whole = percent == WHOLE_PERCENT
    stable = pin if whole or before is None else before.stable
    going_on = before is not None and before.candidate is not None
    kept = dict(before.snapshot) if before is not None and going_on else None
    earlier = before.previous if before is not None else None
    previous = before.stable if before is not None and whole else earlier
    return {
        "workload": name,
        "stable": stable.model_dump(),
        "candidate": None if whole else pin.model_dump(),
        "previous": previous.model_dump() if previous is not None else None,
        "share": 0 if whole else round(percent * WHOLE / 100),
        # Kept while a candidate is on its way, so that who has it keeps it as the share rises.
        "salt": before.salt if before is not None and going_on else pin.identity.rpartition(":")[2][:12],
        "failures": 0,
        "failures_max": facts["failures_max"],
        "epoch": before.epoch + 1 if before is not None else 1,
        "snapshot": kept,
        "reason": reason,
    }


def snapshot(action: BatchLookups, workload: str) -> JsonObject:
    """Configuration, schedules that name it, and what was published last for each set of parameters."""
    project = action.ports.project()
    schedules: JsonObject = {
        name: _schedule(action, name)
        for name, each in sorted(project.schedules.items())
        if each.args.get("workload") == workload
    }
    outputs: JsonObject = {}
    for each in action.records.invocations(workload):
        if each.ok and each.output is not None:
            outputs.setdefault(each.key, {"output": each.output, "version": each.version, "run": each.run})
    declared = project.workloads[workload].model_dump(mode="json")
    return {"configuration": digest_of(declared), "declared": declared, "schedules": schedules, "outputs": outputs}


def _schedule(action: BatchLookups, name: str) -> str:
    try:
        found = action.ports.outside[SCHEDULES].find(name)
    except InterlockError as error:
        return f"not known: {error.message}"
    return "runs" if found is None or found.paused_by is None else f"paused by {found.paused_by}"


def write_baseline(action: BatchLookups, workload: str, candidate: str, kept: JsonObject, run: int) -> Path:
    """How it fared until now, before a version gets its first share. Raises Transient when the disk is full."""
    routing = action.records.routing(workload)
    declared = action.declared(workload)
    stable = routing.stable.identity if routing is not None else candidate
    text = baseline_text(
        Baseline(
            workload=workload,
            routing=routing,
            invocations=action.records.invocations(workload, COMPARISONS_LOOKED_AT),
            comparisons=action.records.comparisons(workload),
            criteria=action.criteria(workload, declared, stable, candidate),
            golden=[each.name for each in read_samples(action.golden_folder(workload), workload)],
            snapshot=kept,
        )
    )
    place = action.records.folder(workload) / f"cutover-{run}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(place / "baseline_report.md", text.encode())
    except OSError as error:
        raise disk(error) from error
    return place / "baseline_report.md"


def put_back(action: BatchLookups, before: BatchRouting, context: StepContext) -> list[str]:
    """What lay where the newest version wrote, by its place; what became of it in words. Raises Transient."""
    newest = before.candidate or before.stable
    folder = action.records.folder(before.workload)
    done: dict[str, str] = {}
    for each in action.records.invocations(before.workload):
        if each.identity == newest.identity and each.ok and each.output is not None and each.key not in done:
            was_there = restore(Path(each.output), folder / "before" / each.key, context)
            done[each.key] = f"{each.output}: {'what lay there before' if was_there else 'nothing lay there before'}"
    return list(done.values())


def write_report(
    action: BatchLookups, before: BatchRouting, reason: str, restored: list[str], context: StepContext
) -> Path:
    """What was seen, with which evidence, and what to do next. Raises Transient when the disk is full."""
    newest = before.candidate or before.stable
    stable = before.stable if before.candidate is not None else before.previous or before.stable
    declared = action.declared(before.workload)
    text = rollback_text(
        before,
        reason,
        run=context.run,
        asked_by=action.ports.records.run(context.run).actor.id,
        criteria=action.criteria(before.workload, declared, stable.identity, newest.identity),
        invocations=action.records.invocations(before.workload),
        since=_since(action, before, declared),
        restored=restored,
    )
    place = action.records.folder(before.workload) / f"rollback-{context.run}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(place / "rollback_report.md", text.encode())
    except OSError as error:
        raise disk(error) from error
    return place / "rollback_report.md"


def _since(action: BatchLookups, before: BatchRouting, declared: BatchWorkload) -> JsonObject:
    """What is not as the snapshot has it, which a rollback of versions does not mend."""
    was = before.snapshot
    changed: JsonObject = {}
    if was and was.get("configuration") != digest_of(declared.model_dump(mode="json")):
        changed["configuration"] = "interlock.yaml declares this workload otherwise by now"
    schedules = was.get("schedules")
    for name, state in schedules.items() if isinstance(schedules, dict) else ():
        if name not in action.ports.project().schedules:
            changed[f"schedule {name}"] = f"it is gone, and was there ({state})"
    return changed
