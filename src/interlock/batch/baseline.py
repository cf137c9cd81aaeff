"""How a batch job fared before a new version got its first share, as Markdown: what later is held against; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interlock.batch.model import Criterion
from interlock.batch.summary import WORDS, table_lines
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting
from interlock.core.model import JsonObject
from interlock.lib.clock import rfc3339

LISTED = 20
LATE = 0.95


@dataclass(frozen=True)
class Baseline:
    """All that the report is made from; newest first where there are many."""

    workload: str
    routing: BatchRouting | None
    invocations: Sequence[BatchInvocation]
    comparisons: Sequence[BatchComparison]
    criteria: Sequence[Criterion]
    golden: Sequence[str]
    snapshot: JsonObject


def baseline_text(baseline: Baseline) -> str:
    """The report."""
    routing = baseline.routing
    rows = [
        ("in force", str(routing.stable) if routing is not None else "no version yet"),
        (
            "on its way",
            f"{routing.candidate}, {routing.share / 100:g} %" if routing and routing.candidate else "nothing",
        ),
        ("golden samples", ", ".join(baseline.golden) or "none"),
        ("configuration", str(baseline.snapshot.get("configuration", ""))[:16]),
    ]
    schedules = baseline.snapshot.get("schedules")
    rows += (
        [(f"schedule {name}", str(state)) for name, state in schedules.items()] if isinstance(schedules, dict) else []
    )
    lines = [f"# {baseline.workload}: baseline", "", *table_lines(("", ""), rows), ""]
    versions = sorted({each.version for each in baseline.invocations})
    if versions:
        head = ("version", "invocations", "went well", "median", "P95")
        lines += [
            "## Invocations by version",
            "",
            *table_lines(head, [_version(baseline, each) for each in versions]),
            "",
        ]
    if baseline.criteria:
        found = [(each.name, WORDS[each.verdict], each.words) for each in baseline.criteria]
        lines += ["## Go or no go", "", *table_lines(("", "verdict", "what was found"), found), ""]
    if baseline.comparisons:
        found = [
            (
                f"{each.at:%Y-%m-%d} run-{each.run}",
                f"{each.stable.version} → {each.candidate.version}",
                WORDS[each.verdict],
            )
            for each in baseline.comparisons[:LISTED]
        ]
        lines += ["## Comparisons", "", *table_lines(("", "versions", "verdict"), found), ""]
    if baseline.invocations:
        newest = [
            (rfc3339(each.at)[:19] + "Z", f"Run {each.run}", each.version, each.words)
            for each in baseline.invocations[:LISTED]
        ]
        lines += ["## Newest invocations", "", *table_lines(("UTC", "", "version", "how it ended"), newest), ""]
    return "\n".join(lines)


def _version(baseline: Baseline, version: str) -> tuple[str, ...]:
    found = [each for each in baseline.invocations if each.version == version]
    good = sum(each.ok and not each.fell_back for each in found)
    seconds = sorted(each.seconds for each in found)
    median, late = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, int(len(seconds) * LATE))]
    return version, str(len(found)), f"{good / len(found):.1%}", f"{median:.2f} s", f"{late:.2f} s"
