"""What a shadow step learns: the comparator's task, its summary, the verdict, and words and tables for people."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from interlock.comparison.tally import Agreement, FieldCount, TallyState
from interlock.comparison.written import replace_file
from interlock.core.comparison import ComparisonRules, Grade
from interlock.core.errors import Permanent
from interlock.core.judgement import Verdict
from interlock.core.keeper import KeptProcess
from interlock.core.model import Frozen, JsonObject
from interlock.core.traffic import Address, VersionName, WorkloadName
from interlock.lib.canonical import digest_of

TASK_NAME = "shadow.json"
SUMMARY_NAME = "shadow_summary.json"
DIFFERENCES_NAME = "shadow_differences.ndjson"
SUMMARY_BYTES_MAX = 16 * 1024 * 1024
SILENCE = timedelta(seconds=15)
"""A summary is written each second: one that is older is of a comparator that does not run."""
CANDIDATE_FAILURES_SHOWN = 3
SHOWN_FIELDS_MAX = 20

_GRAVITY: dict[Grade, int] = {"block": 0, "warn": 1, "ignore": 2}


class ComparatorTask(Frozen):
    """All that a comparator is told; it lies in the release's folder, 0600."""

    release: int
    workload: WorkloadName
    listen: Address
    """Where copies of requests come; loopback only."""
    stable: Address
    stable_version: VersionName
    candidate: Address
    candidate_version: VersionName
    rules: ComparisonRules = ComparisonRules()
    secrets: tuple[str, ...] = ()
    """A project's own patterns of secrets, blotted out beside the built-in ones."""
    timeout_seconds: float = Field(default=2.0, gt=0, le=60)
    """For an answer."""
    in_flight_max: int = Field(default=32, ge=1, le=256)
    """So many requests are compared at once: each is three requests to the versions."""
    waiting_max: int = Field(default=256, ge=1, le=10_000)
    """So many wait; more are shed."""
    body_bytes_max: int = Field(default=1024 * 1024, ge=1024, le=16 * 1024 * 1024)
    """Of an answer; what goes beyond is not read."""

    @property
    def digest(self) -> str:
        """What a summary is a summary of: counts of another task are not gone on from."""
        told = {"release", "workload", "stable_version", "candidate_version", "rules"}
        return digest_of(self.model_dump(mode="json", include=told))


class ShadowSummary(Frozen):
    """All that was compared until now, as the comparator writes it down each second."""

    task: str
    """The digest of the task."""
    release: int
    workload: str
    stable_version: str
    candidate_version: str
    pid: int
    started_at: datetime
    """When the first comparator of this task began; one that was killed is gone on from."""
    updated_at: datetime
    received: int = 0
    """Copies of requests that came."""
    shed: dict[str, int] = {}
    """Copies that were not compared, by why: queue (too many at once), late, unsafe (neither GET nor HEAD), malformed,
    stable_away and candidate_away (that version answers nobody, and is asked only now and then)."""
    stable_failures: dict[str, int] = {}
    """Why the stable version gave no first answer; nothing was compared then."""
    candidate_failures: dict[str, int] = {}
    """Why the candidate gave no answer; each counts as a difference of the status."""
    tally: TallyState = TallyState()
    expired_rules: tuple[str, ...] = ()
    unwritten: int = 0
    """Differences that could not be written down: the disk is full."""

    @property
    def pairs(self) -> int:
        """Requests whose answers were compared."""
        return self.tally.pairs

    @property
    def blocking(self) -> tuple[FieldCount, ...]:
        """Fields of which it is proven that the candidate differs, and that block; the gravest evidence first."""
        proven = [row for row in self.tally.fields if row.grade == "block" and row.is_proven]
        return tuple(sorted(proven, key=lambda row: -row.log_evidence_max))

    @property
    def open(self) -> tuple[FieldCount, ...]:
        """Fields that would block, in which the candidate differed without it being clear whether that is noise."""
        return tuple(row for row in self.tally.fields if row.grade == "block" and row.is_open(self.pairs))

    @property
    def noise_fields(self) -> tuple[str, ...]:
        """Fields in which the stable version differs from itself, and the candidate no more than that."""
        return tuple(dict.fromkeys(row.field for row in self.tally.fields if row.noise and not row.is_proven))


class ShadowVerdict(NamedTuple):
    """What the comparison says about the candidate, with a sentence for people and facts for programs."""

    verdict: Verdict
    words: str
    evidence: JsonObject


def write_task(folder: Path, task: ComparatorTask) -> Path:
    """Lay down what a comparator is to do, 0600, as a whole; the path is its argument. Raises OSError."""
    path = folder / TASK_NAME
    replace_file(path, task.model_dump_json(indent=1).encode())
    return path


def comparator_process(task: ComparatorTask, task_path: Path, python: str) -> KeptProcess:
    """What the keeper keeps running while there is a shadow step. `python`: the absolute path of the interpreter."""
    return KeptProcess(
        name=f"comparator-{task.workload}-{task.release}",
        argv=(python, "-P", "-m", "interlock.comparison", str(task_path)),
        folder=str(task_path.parent),
        stop_grace_seconds=task.timeout_seconds + 3.0,
    )


def read_summary(folder: Path) -> ShadowSummary | None:
    """The newest summary in a release's folder; None before the first. Raises Permanent when it cannot be read."""
    path = folder / SUMMARY_NAME
    try:
        with path.open("rb") as file:
            return ShadowSummary.model_validate_json(file.read(SUMMARY_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        msg = f"the summary of the comparison at {path} cannot be read: {str(error).splitlines()[0]}"
        raise Permanent(msg, code="shadow.summary", fix="move it away; the comparator begins a new one") from error


def shadow_verdict(
    summary: ShadowSummary | None, rules: ComparisonRules, pairs_wanted: int, now: datetime
) -> ShadowVerdict:
    """No-go as soon as a difference that blocks is proven; go when enough was compared and agreement is proven.

    Never go by silence: without enough pairs, with a comparator that does not run, or with a difference of which it is
    not clear what it is, the answer is "not yet", and the words say what is missing.
    """
    if summary is None:
        return ShadowVerdict("not_yet", "nothing was compared yet", {"pairs": 0})
    evidence = facts(summary, rules)
    if summary.blocking:
        return ShadowVerdict("no_go", _blame(summary), evidence)
    missing = _missing(summary, rules, pairs_wanted, now)
    if missing is not None:
        return ShadowVerdict("not_yet", missing, evidence)
    return ShadowVerdict("go", sentence(summary, rules), evidence)


def _missing(summary: ShadowSummary, rules: ComparisonRules, pairs_wanted: int, now: datetime) -> str | None:
    """What is still missing before it is a go; None when nothing is."""
    if now - summary.updated_at > SILENCE:
        return f"the comparator is silent since {summary.updated_at:%H:%M:%S} UTC, after {summary.pairs:,} comparisons"
    if summary.pairs < pairs_wanted:
        why = _why_few(summary)
        return f"{summary.pairs:,} of {pairs_wanted:,} answers are compared{why}"
    if summary.open:
        row = summary.open[0]
        unclear = "whether that is noise" if not row.budget_percent else f"whether it keeps to {row.budget_percent:g} %"
        return (
            f"{row.field} differs in {row.candidate_only:,} of {summary.pairs:,} answers of {summary.candidate_version}"
            f" ({row.reason}); it is not clear yet {unclear}"
        )
    for agreement in wanted_agreements(summary):
        bound = agreement.lower_bound_percent(rules.confidence_percent)
        what = agreement.field or "what blocks"
        if agreement.field is not None and agreement.is_noisy:
            return (
                f"{what}: {summary.stable_version} differs from itself in {agreement.counts.noise:,} of"
                f" {agreement.pairs:,} answers, so that nothing can be shown; give it a rule"
            )
        if bound < rules.agreement_percent:
            return (
                f"{what}: at least {_percent(bound)} of {agreement.pairs:,} answers agree"
                f" ({rules.confidence_percent:g} % confidence); {rules.agreement_percent:g} % are wanted"
            )
    return None


def _why_few(summary: ShadowSummary) -> str:
    failed = sum(summary.stable_failures.values())
    if failed > summary.pairs:
        return f"; {summary.stable_version} itself gave no answer {failed:,} times"
    shed = sum(summary.shed.values())
    return f"; {shed:,} copies were not compared ({_listed(summary.shed)})" if shed > summary.pairs else ""


def wanted_agreements(summary: ShadowSummary) -> tuple[Agreement, ...]:
    """What must agree: all that blocks and is not noise, and each key field."""
    return summary.tally.agreements or (Agreement(field=None),)


def sentence(summary: ShadowSummary, rules: ComparisonRules) -> str:
    """All of it in one sentence for people."""
    bounds = [each.lower_bound_percent(rules.confidence_percent) for each in wanted_agreements(summary)]
    what = "key fields and all that blocks" if rules.key_fields else "what blocks"
    noise = summary.noise_fields
    warned = sum(row.grade == "warn" and row.is_proven for row in summary.tally.fields)
    return (
        f"{summary.pairs:,} answers of {summary.candidate_version} compared with {summary.stable_version}'s:"
        f" {what} agree in at least {_percent(min(bounds))} ({rules.confidence_percent:g} % confidence)"
        f"{f', {warned} other {_differ(warned)} (warned)' if warned else ''}"
        f"{f', noise in {_names(noise)}' if noise else ''}"
    )


def _differ(fields: int) -> str:
    return "field differs" if fields == 1 else "fields differ"


def _blame(summary: ShadowSummary) -> str:
    row = summary.blocking[0]
    more = len(summary.blocking) - 1
    noise = f"in {row.noise:,} between two answers of" if row.noise else "never between two answers of"
    example = _example(row)
    return (
        f"{row.field} differs in {row.differing:,} of {summary.pairs:,} answers of {summary.candidate_version},"
        f" {noise} {summary.stable_version}: {row.reason}{f' ({example})' if example else ''}"
        f"{f'; and {more} more fields' if more else ''}"
    )


def _example(row: FieldCount) -> str:
    if row.example is None:
        return ""
    stable, candidate = (_short(value) for value in (row.example.stable, row.example.candidate))
    return {"removed": f"was {stable}", "missing_row": f"was {stable}", "added": f"is {candidate}"}.get(
        row.example.kind, f"{stable} became {candidate}"
    )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - what a line of a table holds


def _names(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:CANDIDATE_FAILURES_SHOWN])
    more = len(names) - CANDIDATE_FAILURES_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))


def _percent(value: float) -> str:
    """Rounded down: a bound never looks better than it is."""
    return f"{int(value * 100) / 100:.2f} %"


def facts(summary: ShadowSummary, rules: ComparisonRules) -> JsonObject:
    """The same for programs and for the record, bounded."""
    return {
        "pairs": summary.pairs,
        "received": summary.received,
        "shed": {**summary.shed},
        "stable_failures": {**summary.stable_failures},
        "candidate_failures": {**summary.candidate_failures},
        "confidence_percent": rules.confidence_percent,
        "agreement": [
            {
                "field": each.field,
                "pairs": each.pairs,
                "differing": each.candidate_only + each.both,
                "noise": each.counts.noise,
                "lower_bound_percent": round(each.lower_bound_percent(rules.confidence_percent), 4),
            }
            for each in summary.tally.agreements[: SHOWN_FIELDS_MAX + 1]
        ],
        "blocking": [row.field for row in summary.blocking[:SHOWN_FIELDS_MAX]],
        "open": [row.field for row in summary.open[:SHOWN_FIELDS_MAX]],
        "noise": [*summary.noise_fields[:SHOWN_FIELDS_MAX]],
        "expired_rules": [*summary.expired_rules[:SHOWN_FIELDS_MAX]],
    }


def top_fields(summary: ShadowSummary, count: int = SHOWN_FIELDS_MAX) -> tuple[FieldCount, ...]:
    """The fields that people want to see first: what blocks and is proven, then what blocks, then what warns."""
    return tuple(
        sorted(
            (row for row in summary.tally.fields if row.differing),
            key=lambda row: (not row.is_proven, _GRAVITY[row.grade], -row.candidate_only, row.field),
        )[:count]
    )


def differences_table(summary: ShadowSummary, count: int = SHOWN_FIELDS_MAX) -> str:
    """The top differences as a table in plain text, one field a line; empty when there are none."""
    rows = [("grade", "field", "differs", "noise", "is", "example")]
    for row in top_fields(summary, count):
        state = (
            "proven" if row.is_proven else "noise" if row.noise else "open" if row.is_open(summary.pairs) else "seen"
        )
        rows.append(
            (row.grade, row.field, f"{row.differing:,}/{summary.pairs:,}", f"{row.noise:,}", state, _example(row))
        )
    if len(rows) == 1:
        return ""
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in rows
    )
