"""What can be read about batch jobs: which version is in force, what comparisons found, how invocations ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from interlock.batch.baseline import Baseline, baseline_text
from interlock.batch.lookups import COMPARISONS_LOOKED_AT
from interlock.batch.model import Criterion, batch_of, criteria, overall
from interlock.batch.store import BatchStore
from interlock.comparison.golden import read_samples
from interlock.core.actor import Actor
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting, VersionPin
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.project import Project
from interlock.core.view import View
from interlock.core.workload import BatchWorkload
from interlock.lib.canonical import digest_of
from interlock.lib.clock import rfc3339

SHOWN = 20


class BatchesArgs(Frozen):
    """All batch jobs in short, or one `workload` with its newest comparisons and invocations."""

    workload: str | None = Field(default=None, max_length=100, pattern=r"^[^\x00]*$")


class BatchesView(View):
    """Batch jobs and their versions."""

    name: ClassVar[str] = "batches"
    summary: ClassVar[str] = "Batch jobs: which version is in force, which has a share, what comparisons and runs said."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = BatchesArgs

    def __init__(self, store: BatchStore, project: Callable[[], Project], folder: Path) -> None:
        self._store = store
        self._project = project
        self._folder = folder

    async def read(self, actor: Actor, args: BatchesArgs) -> JsonObject:  # noqa: ARG002
        """From the tables, for what interlock.yaml declares."""
        declared = {name: each for name, each in self._project().workloads.items() if isinstance(each, BatchWorkload)}
        names = sorted(declared) if args.workload is None else [args.workload] if args.workload in declared else []
        whole = args.workload is not None
        return {"batches": [await self._one(name, declared[name], whole=whole) for name in names]}

    async def _one(self, name: str, declared: BatchWorkload, *, whole: bool) -> JsonObject:
        routing = await self._store.routing(name)
        seen = await self._store.comparisons(name, COMPARISONS_LOOKED_AT)
        shown: JsonObject = {"workload": name, "routing": _routing(routing)}
        newest = _newest(routing, seen)
        if routing is not None and newest is not None:
            table = _criteria(routing, seen, declared)
            shown["candidate"] = str(newest)
            shown["verdict"] = overall(table)
            shown["criteria"] = [{"name": one.name, "verdict": one.verdict, "words": one.words} for one in table]
        if whole:
            invocations = await self._store.invocations(name, SHOWN)
            shown["comparisons"] = [_comparison(each) for each in seen[:SHOWN]]
            shown["invocations"] = [_invocation(each) for each in invocations]
            shown["folder"] = str(self._folder / name)
            shown["golden"] = [
                {"name": each.name, "accepted_by": each.accepted_by, "accepted_at": rfc3339(each.accepted_at)}
                for each in await asyncio.to_thread(read_samples, self._folder / name / "golden", name)
            ]
        return shown


def _routing(routing: BatchRouting | None) -> JsonObject | None:
    if routing is None:
        return None
    return {
        "stable": str(routing.stable),
        "candidate": str(routing.candidate) if routing.candidate is not None else None,
        "previous": str(routing.previous) if routing.previous is not None else None,
        "percent": routing.share / 100,
        "failures": routing.failures,
        "failures_max": routing.failures_max,
        "crossed": routing.crossed,
        "reason": routing.reason,
        "changed_by": routing.changed_by,
        "run": routing.run,
        "changed_at": rfc3339(routing.changed_at),
    }


def _comparison(each: BatchComparison) -> JsonObject:
    return {
        "run": each.run,
        "stable": str(each.stable),
        "candidate": str(each.candidate),
        "arguments": dict(each.arguments),
        "verdict": each.verdict,
        "pairs": each.pairs,
        "disagreeing": each.disagreeing,
        "blocks": list(each.blocks),
        "warns": list(each.warns),
        "fields": list(each.fields),
        "folder": each.folder,
        "at": rfc3339(each.at),
    }


def _invocation(each: BatchInvocation) -> JsonObject:
    return {
        "run": each.run,
        "version": each.version,
        "part": each.part,
        "arguments": dict(each.arguments),
        "ok": each.ok,
        "fell_back": each.fell_back,
        "seconds": each.seconds,
        "words": each.words,
        "output": each.output,
        "at": rfc3339(each.at),
    }


class BatchReportArgs(Frozen):
    """One batch job."""

    workload: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")


class BatchReportView(View):
    """How a batch job fares."""

    name: ClassVar[str] = "batch_report"
    summary: ClassVar[str] = "How a batch job fares by version: invocations, comparisons, golden samples; as Markdown."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = BatchReportArgs

    def __init__(self, store: BatchStore, project: Callable[[], Project], folder: Path) -> None:
        self._store = store
        self._project = project
        self._folder = folder

    async def read(self, actor: Actor, args: BatchReportArgs) -> JsonObject:  # noqa: ARG002
        """From the tables. Raises NotFound, Invalid."""
        name = args.workload
        declared = batch_of(self._project().workloads, name)
        routing = await self._store.routing(name)
        comparisons = await self._store.comparisons(name, COMPARISONS_LOOKED_AT)
        samples = await asyncio.to_thread(read_samples, self._folder / name / "golden", name)
        text = baseline_text(
            Baseline(
                workload=name,
                routing=routing,
                invocations=await self._store.invocations(name, COMPARISONS_LOOKED_AT),
                comparisons=comparisons,
                criteria=_criteria(routing, comparisons, declared),
                golden=[each.name for each in samples],
                snapshot={"configuration": digest_of(declared.model_dump(mode="json"))},
            )
        )
        return {"workload": name, "text": text}


def _criteria(
    routing: BatchRouting | None, comparisons: Sequence[BatchComparison], declared: BatchWorkload
) -> tuple[Criterion, ...]:
    """Of the version that is on its way, or was compared last, against the one in force."""
    newest = _newest(routing, comparisons)
    if routing is None or newest is None:
        return ()
    pair = [
        each
        for each in comparisons
        if (each.stable.identity, each.candidate.identity) == (routing.stable.identity, newest.identity)
    ]
    slower = declared.release.judge.latency_increase_max
    return criteria(pair, declared.comparison, slower_max=slower, golden=(), gates=declared.release.gates)


def _newest(routing: BatchRouting | None, comparisons: Sequence[BatchComparison]) -> VersionPin | None:
    if routing is not None and routing.candidate is not None:
        return routing.candidate
    return comparisons[0].candidate if comparisons else None
