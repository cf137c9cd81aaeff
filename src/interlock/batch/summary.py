"""What people read about comparisons and rollbacks of a batch job, as Markdown; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from interlock.batch.model import Criterion, agreement_words, verdict_of
from interlock.comparison.outputs_model import FileComparison, OutputComparison
from interlock.comparison.table_model import TableComparison
from interlock.core.batch import BatchComparison, BatchInvocation, BatchRouting, VersionPin
from interlock.core.comparison import ComparisonRules
from interlock.core.judgement import Verdict
from interlock.core.model import Frozen, JsonObject
from interlock.lib.clock import rfc3339
from interlock.lib.markdown import plain_line

WORDS: dict[Verdict, str] = {"go": "GO", "no_go": "NO-GO", "not_yet": "NOT YET"}
ROWS_MAX = 100
CELL_CHARACTERS_MAX = 120


@dataclass(frozen=True)
class Material:
    """All that a comparison's summary is made from."""

    workload: str
    run: int
    arguments: Mapping[str, str]
    stable: VersionPin
    candidate: VersionPin
    stable_seconds: float
    candidate_seconds: float
    kept_from: Mapping[str, str]
    input_sha256: str
    rules: ComparisonRules
    found: OutputComparison
    notes: Sequence[str] = field(default_factory=tuple)


class DaySummary(Frozen):
    """All comparisons of one day."""

    workload: str
    day: str
    comparisons: tuple[BatchComparison, ...]


def summary_text(material: Material) -> str:
    """One comparison."""
    found = material.found
    verdict, words = verdict_of(found, material.rules)
    again = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in material.arguments.items())
    lines = [
        f"# {material.workload}: {material.stable.version} and {material.candidate.version}: {WORDS[verdict]}",
        "",
        words,
        "",
        *table_lines(
            ("", ""),
            [
                ("Run", str(material.run)),
                ("parameters", again or "none"),
                ("input", f"sha256 {material.input_sha256[:16]}"),
                ("stable", f"{material.stable}, {material.stable_seconds:.2f} s"),
                ("candidate", f"{material.candidate}, {material.candidate_seconds:.2f} s"),
                ("agreement", agreement_words(found.pairs, found.disagreeing, found.agreement_bound)),
                *((f"trial: {name.replace('_', ' ')}", words) for name, words in material.kept_from.items()),
            ],
        ),
        "",
    ]
    lines += _listed("Stops the release", found.blocks) + _listed("To be looked at", [*material.notes, *found.warns])
    for file in found.files:
        lines += _file(file)
    if found.proposed_rules is not None:
        lines += ["## Rules that would excuse what the stable version differs from itself", ""]
        lines += ["```yaml", found.proposed_rules.rstrip(), "```", ""]
    lines += ["## See it again", ""]
    lines += [f"    interlock release shadow {material.workload} {material.candidate.version} {again}".rstrip(), ""]
    return "\n".join(lines)


def _file(file: FileComparison) -> list[str]:
    if file.identical and not file.blocks and not file.warns:
        return []
    lines = [f"## {file.path}", ""]
    if file.table is not None:
        lines += _compared_table(file.table)
    if file.differences:
        rows = [
            (each.grade, each.kind, each.path, _shown(each.stable), _shown(each.candidate))
            for each in file.differences[:ROWS_MAX]
        ]
        lines += [*table_lines(("grade", "what", "where", "stable", "candidate"), rows), ""]
    if file.diff:
        lines += ["```diff", file.diff.replace("```", "'''"), "```", ""]
    return lines


def _compared_table(table: TableComparison) -> list[str]:
    rows = table.rows
    keys = ", ".join(table.keys) or "no key"
    pairs = f"{rows.identical:,} identical, {rows.excused:,} excused by rules, {rows.changed:,} changed"
    alone = f"{rows.missing:,} missing, {rows.added:,} new; by {keys}."
    lines = [f"{rows.stable:,} rows and {rows.candidate:,}: {pairs}, {alone}", ""]
    for words, keys_of in (("missing", table.missing_examples), ("new", table.added_examples)):
        if keys_of:
            lines += [f"{words}, for example: {plain_line(', '.join('/'.join(map(str, key)) for key in keys_of))}", ""]
    if table.totals:
        totals = [
            (each.column, each.stable or "", each.candidate or "", "" if each.equal else "differs")
            for each in table.totals
        ]
        lines += [*table_lines(("control total", "stable", "candidate", ""), totals), ""]
    differing = [column for column in table.columns if column.beyond]
    if differing:
        found = [
            (
                column.name,
                column.grade if column.counts else "within budget",
                f"{column.beyond:,} of {rows.paired:,}",
                "; ".join(
                    f"{'/'.join(str(part) for part in one.key)}: {_shown(one.stable)} → {_shown(one.candidate)}"
                    for one in column.examples[:3]
                ),
            )
            for column in differing[:ROWS_MAX]
        ]
        lines += [*table_lines(("column", "grade", "rows", "for example"), found), ""]
    return lines


def day_text(summary: DaySummary) -> str:
    """One day."""
    rows = [
        (
            f"run-{each.run}",
            " ".join(f"{name}={value}" for name, value in each.arguments.items()),
            f"{each.stable.version} → {each.candidate.version}",
            WORDS[each.verdict],
            f"{each.pairs - each.disagreeing:,}/{each.pairs:,}",
            ", ".join(each.fields[:5]),
        )
        for each in sorted(summary.comparisons, key=lambda one: one.run)
    ]
    head = ("", "parameters", "versions", "verdict", "agree", "differs")
    return "\n".join([f"# {summary.workload}, {summary.day}", "", *table_lines(head, rows), ""])


def rollback_text(
    routing: BatchRouting,
    reason: str,
    *,
    run: int,
    asked_by: str,
    criteria: Iterable[Criterion],
    invocations: Sequence[BatchInvocation],
    since: JsonObject,
    restored: Sequence[str],
) -> str:
    """What was seen, when, with which evidence, and what to do next."""
    newest = routing.candidate or routing.stable
    back = routing.stable if routing.candidate is not None else routing.previous
    seen = [
        (
            rfc3339(each.at)[:19] + "Z",
            f"Run {each.run}",
            each.version,
            "ok" if each.ok and not each.fell_back else "FAILED",
            each.words,
        )
        for each in invocations[:ROWS_MAX]
    ]
    lines = [
        f"# {routing.workload}: {newest.version} was rolled back to {back.version if back else 'nothing'}",
        "",
        f"**{plain_line(reason)}**",
        "",
        *table_lines(
            ("", ""),
            [
                ("asked for by", f"{asked_by} (Run {run})"),
                ("share at that time", f"{routing.share / 100:g} %" if routing.candidate else "100 %"),
                ("key failures in a row", f"{routing.failures} of {routing.failures_max}"),
                ("rolled back", str(newest)),
                ("in force now", str(back) if back else "nothing"),
            ],
        ),
        "",
        "## Go or no go",
        "",
        *table_lines(
            ("", "verdict", "what was found"), [(each.name, WORDS[each.verdict], each.words) for each in criteria]
        ),
        "",
        "## Invocations",
        "",
        *table_lines(("UTC", "", "version", "", "how it ended"), seen),
        "",
        *_listed("What changed since the snapshot", [f"{name}: {words}" for name, words in since.items()]),
        *_listed("Outputs that were put back", restored),
        "## To do",
        "",
        f"- [ ] {plain_line(follow_up(routing, reason))}",
        "",
    ]
    return "\n".join(lines)


def follow_up(routing: BatchRouting, reason: str) -> str:
    """The task that a rollback leaves."""
    newest = routing.candidate or routing.stable
    return f"find out why {newest.version} of {routing.workload} was not good enough: {reason}"[:500]


def _listed(title: str, sentences: Iterable[str]) -> list[str]:
    found = [f"- {plain_line(sentence)}" for sentence in sentences]
    return [f"## {title}", "", *found, ""] if found else []


def table_lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table; what a version wrote stays in its cell."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(plain_line(cell) for cell in row)} |" for row in rows]


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[:CELL_CHARACTERS_MAX]}…"
