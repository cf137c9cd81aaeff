"""What can be read about batch jobs: which version is in force, what comparisons found, how invocations ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from interlock.batch.lookups import COMPARISONS_LOOKED_AT
from interlock.batch.model import criteria, overall
from interlock.batch.store import BatchStore
from interlock.comparison.golden import read_samples
from interlock.core.actor import Actor
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.project import Project
from interlock.core.view import View
from interlock.core.workload import BatchWorkload
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
        candidate = routing.candidate if routing is not None and routing.candidate is not None else None
        newest = candidate or (seen[0].candidate if seen else None)
        if routing is not None and newest is not None:
            pair = [
                each
                for each in seen
                if (each.stable.identity, each.candidate.identity) == (routing.stable.identity, newest.identity)
            ]
            slower = declared.release.judge.latency_increase_max
            table = criteria(pair, declared.comparison, slower_max=slower, golden=())
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
