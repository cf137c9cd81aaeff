"""What the Actions of batch jobs have in common: what they look up, and how long their steps may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interlock.batch.model import Criterion, batch_of, criteria
from interlock.batch.running import BUILD_SECONDS, LAY_OUT_SECONDS
from interlock.core.action import Ports
from interlock.core.batch import BATCHES, BatchRecords, BatchRouting, VersionPin
from interlock.core.errors import Conflict, NotFound
from interlock.core.model import JsonObject
from interlock.core.plan import STEP_TIMEOUT_SECONDS_MAX
from interlock.core.source_layout import SOURCE_LAYOUTS, LaidSource
from interlock.core.workload import BatchWorkload
from interlock.lib.canonical import digest_of

COMPARE_SECONDS = 3600.0
COMPARISONS_LOOKED_AT = 200


class BatchLookups:
    """What all of them look up."""

    ports: Ports

    def declared(self, workload: str) -> BatchWorkload:
        """Raises NotFound, Invalid."""
        return batch_of(self.ports.project().workloads, workload)

    @property
    def records(self) -> BatchRecords:
        """What is recorded."""
        return self.ports.outside[BATCHES]

    def required(self, workload: str) -> BatchRouting:
        """Raises NotFound before the first version."""
        found = self.records.routing(workload)
        if found is None:
            self.declared(workload)
            msg = f"no version of {workload} is in force yet"
            raise NotFound(
                msg, code="batch.no_version", fix=f"interlock release cutover {workload} VERSION --percent 100"
            )
        return found

    def laid(self, workload: str, declared: BatchWorkload, version: str) -> LaidSource:
        """What a version is now. Raises NotFound, Invalid."""
        layouts = self.ports.outside[SOURCE_LAYOUTS]
        base = self.ports.project().folder
        return layouts.identify(workload, version, declared.source, base)

    def pinned(self, workload: str, declared: BatchWorkload, pin: VersionPin) -> LaidSource:
        """A version that must still be what it was. Raises Conflict, NotFound, Invalid."""
        laid = self.laid(workload, declared, pin.version)
        if laid.identity != pin.identity:
            msg = f"{workload} {pin.version} is {laid.identity[:19]} by now, and was pinned as {pin.identity[:19]}"
            fix = "put its files back as they were, or give what is there now a name of its own and release that"
            raise Conflict(msg, code="batch.other_files", fix=fix)
        return laid

    def golden_folder(self, workload: str) -> Path:
        """Where golden samples of it lie."""
        return self.records.folder(workload) / "golden"

    def criteria(self, workload: str, declared: BatchWorkload, stable: str, candidate: str) -> tuple[Criterion, ...]:
        """The Go/No-Go table of two identities."""
        seen = [
            each
            for each in self.records.comparisons(workload, COMPARISONS_LOOKED_AT)
            if (each.stable.identity, each.candidate.identity) == (stable, candidate)
        ]
        slower = declared.release.judge.latency_increase_max
        return criteria(seen, declared.comparison, slower_max=slower, golden=(), gates=declared.release.gates)

    def rules_name(self, declared: BatchWorkload) -> str:
        """The declaration, in short: other rules are another plan."""
        return digest_of(declared.model_dump(mode="json"))[:16]

    def of_version(self, name: str, declared: BatchWorkload, version: str | None) -> LaidSource:
        """A named version, or the one in force. Raises NotFound, Invalid, Conflict."""
        if version is not None:
            return self.laid(name, declared, version)
        return self.pinned(name, declared, self.required(name).stable)


def step_seconds(declared: BatchWorkload, runs: int) -> float:
    """The most that a step may take."""
    build = 2 * (LAY_OUT_SECONDS + BUILD_SECONDS * len(declared.build))
    build += sum(gate.timeout_seconds for gate in declared.release.gates)
    return min(STEP_TIMEOUT_SECONDS_MAX, build + runs * declared.timeout_seconds + 2 * COMPARE_SECONDS)


def shown(arguments: Any) -> str:
    """For a summary: `, target_month=202602`."""
    found = " ".join(f"{name}={value}" for name, value in texts(arguments).items())
    return f", {found}" if found else ""


def texts(arguments: Any) -> dict[str, str]:
    """Values of parameters as a plan holds them."""
    return {str(name): str(value) for name, value in arguments.items()} if isinstance(arguments, dict) else {}


def moved(name: str) -> Conflict:
    """Somebody else changed the routing."""
    msg = f"which version {name} gets was changed since this was planned"
    return Conflict(msg, code="batch.moved", fix="ask again, and read the new plan")


def run_preview(name: str, declared: BatchWorkload, laid: LaidSource, facts: JsonObject) -> str:
    """What an approver reads of an invocation."""
    lines = [
        f"what     {name} {laid.version} = {laid.identity}",
        f"command  {' '.join(declared.command)}",
        f"input    {facts['input'] or 'none'}",
        f"output   {facts['output']}",
    ]
    if facts["fallback"] is not None:
        fallback = LaidSource.model_validate(facts["fallback"])
        first = "compared with it first, and " if facts["beside"] else ""
        lines.append(f"else     {first}{fallback.version} does it instead when it fails")
    return "\n".join(lines)
