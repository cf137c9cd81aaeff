"""Writes down what became of a release: what was seen, when, with which evidence, and what to do next; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from interlock.core.judgement import Verdict
from interlock.core.model import JsonObject
from interlock.core.workload import CanaryStep, ShadowStep
from interlock.lib.clock import rfc3339
from interlock.lib.markdown import plain_line
from interlock.releases.examined import GATES, GOLDEN, SAID
from interlock.releases.model import Release
from interlock.releases.plots import arm_of, seconds_of

BAD_ENDS = frozenset({"rolled_back", "failed", "frozen", "going_back", "aborted"})
DIFFERENCES_MAX = 100


class Criterion(NamedTuple):
    """One line of the Go/No-Go table."""

    name: str
    verdict: Verdict | None
    """None for what is told and not judged."""
    words: str


@dataclass(frozen=True)
class Totals:
    """What one version answered over a release. Latencies in seconds: medians of each second's own.

    `rescued`: how many of its errors no user met, because the version before answered instead.
    """

    name: str
    requests: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None
    rescued: int = 0


@dataclass(frozen=True)
class Material:
    """All that a report is made from. `lines` are those of the timeline, `at` a datetime in each."""

    release: Release
    lines: Sequence[Mapping[str, object]]
    ticks: Sequence[JsonObject]
    shadow_words: str = ""
    differences: str = ""
    plot_name: str | None = None


def report_name(release: Release) -> str:
    """How its file is called."""
    return "rollback_report.md" if release.state in BAD_ENDS else "release_report.md"


def report(material: Material) -> str:
    """As Markdown."""
    release = material.release
    stable = release.stable or "nothing"
    parts = [
        f"# {release.name}: {stable} → {release.candidate}, release {release.number}: {_outcome(release)}",
        "",
        *_head(material),
        "",
        "## What was seen",
        "",
        *_seen(material),
        *_gate_output(material),
        *_last_words(material),
        "",
        "## Go or no go",
        "",
        *_rows(("", "verdict", "what was found"), [_criterion(each) for each in criteria(material)]),
        "",
        "## Both versions",
        "",
        *_versions(material),
        *_baseline(material),
        *_differences(material),
        "",
        "## Timeline",
        "",
        *_timeline(material),
        "",
        *_snapshot(release),
        *_follow_up(release),
        "## Look further",
        "",
        *(f"    {command}" for command in _commands(release)),
        "",
    ]
    return "\n".join(parts)


def criteria(material: Material) -> list[Criterion]:
    """The Go/No-Go table: agreement, build, gates, golden samples, errors, latency, how long a failure went unseen."""
    release = material.release
    judged = _judged(release)
    p95 = _p95_change(material)
    detected = release.evidence.get("seen_after_seconds")
    found = [
        _agreement(material),
        Criterion("build, tests", "no_go" if release.cause == "effect" else "go", _built(release)),
        *_gates(material),
        _golden(material),
        Criterion("judge", judged[0], judged[1]),
        Criterion("P95", p95[0], p95[1]),
    ]
    if isinstance(detected, int | float):
        words = f"{detected * 1000:.0f} ms from the first bad answer of the row"
        found.append(Criterion("time to detect", None, words))
    back = _back_milliseconds(material)
    if back is not None:
        found.append(Criterion("time to go back", None, f"{back:.0f} ms from then until all users were sent back"))
    return found


def totals(ticks: Iterable[JsonObject], name: str) -> Totals:
    """Over all ticks; a latency is the median of the ticks' own."""
    requests = errors = rescued = 0
    seen: dict[str, list[float]] = {"p50": [], "p95": [], "p99": []}
    for tick in ticks:
        arm = arm_of(tick, name)
        requests += _int(arm.get("n"))
        errors += _int(arm.get("errors"))
        rescued += _int(arm.get("rescued"))
        for level, values in seen.items():
            value = arm.get(level)
            if isinstance(value, int | float):
                values.append(float(value))
    p50, p95, p99 = (_median(values) for values in seen.values())
    return Totals(name, requests, errors, p50, p95, p99, rescued)


def follow_up(release: Release) -> str | None:
    """What somebody should do after it, in one line; None after one that went well."""
    if release.state not in BAD_ENDS or release.state == "aborted":
        return None
    why = release.reason or "see the report"
    return f"find out why {release.candidate} of {release.name} was not good enough: {why}"


def _outcome(release: Release) -> str:
    return {"rolled_back": "ROLLED BACK", "frozen": "FROZEN", "failed": "FAILED", "aborted": "aborted"}.get(
        release.state, release.state.replace("_", " ")
    )


def _head(material: Material) -> list[str]:
    release = material.release
    ended = rfc3339(release.closed_at) if release.closed_at is not None else "not yet"
    rows = [
        ("asked for by", f"{release.started_by} (Run {release.run})"),
        ("began", rfc3339(release.created_at)),
        ("ended", ended),
        *((f"version {name}", str(identity)) for name, identity in release.identities.items()),
    ]
    if release.reason is not None:
        rows.insert(0, ("why", release.reason))
    return _rows(("", ""), rows)


def _seen(material: Material) -> list[str]:
    release = material.release
    lines = []
    words = release.evidence.get("words")
    if isinstance(words, str):
        lines += [f"**{plain_line(words)}**", ""]
    measures = release.evidence.get("measures")
    for measure in measures if isinstance(measures, list) else []:
        sentence = str(measure.get("sentence")) if isinstance(measure, dict) else ""
        if sentence and sentence not in str(words):
            lines.append(f"- {plain_line(sentence)}")
    if not lines:
        lines = [_steps_done(release)]
    if material.plot_name is not None and material.ticks:
        lines += ["", f"![errors, latency, evidence and shares over time]({material.plot_name})"]
    return lines


def _steps_done(release: Release) -> str:
    if release.state == "released":
        return f"Nothing spoke against {release.candidate} in {len(release.settings.steps)} steps."
    return plain_line(release.reason or "Nothing was seen.")


def _agreement(material: Material) -> Criterion:
    release = material.release
    if not any(isinstance(step, ShadowStep) for step in release.settings.steps):
        return Criterion("agreement", "not_yet", "not compared: no shadow step")
    passed = any(isinstance(step, ShadowStep) for step in release.settings.steps[: max(release.step, 0)])
    verdict: Verdict = "no_go" if release.cause == "shadow" else "go" if passed else "not_yet"
    return Criterion("agreement", verdict, material.shadow_words or "nothing was compared")


def _built(release: Release) -> str:
    builds = "; ".join(" ".join(command) for command in release.workload.build)
    if release.cause == "effect":
        return release.reason or "failed"
    return f"succeeded: {builds}" if builds else "none declared; it became healthy"


def _examined(material: Material, word: str) -> Mapping[str, object]:
    """What the newest line of the timeline with this word says; empty where there is none."""
    found = [line.get("data") for line in material.lines if line["word"] == word]
    return found[-1] if found and isinstance(found[-1], dict) else {}


def _gate_results(material: Material) -> list[dict[str, object]]:
    found = _examined(material, GATES).get("gates")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _gates(material: Material) -> list[Criterion]:
    """A line for each that is declared."""
    declared = material.release.settings.gates
    results = {str(each.get("name")): each for each in _gate_results(material)}
    found = []
    for gate in declared:
        result = results.get(gate.name)
        verdict: Verdict = "not_yet" if result is None else "go" if result.get("ok") is True else "no_go"
        words = "was not run" if result is None else str(result.get("words"))
        found.append(Criterion(f"gate {gate.name}", verdict, f"{words}: {' '.join(gate.command)}"))
    return found or [Criterion("gates", "not_yet", "none declared")]


def _golden(material: Material) -> Criterion:
    data = _examined(material, GOLDEN)
    texts = [str(line["text"]) for line in material.lines if line["word"] == GOLDEN]
    if not texts:
        return Criterion("golden samples", "not_yet", "none was asked for")
    return Criterion("golden samples", "go" if data.get("ok") is True else "no_go", texts[-1])


def _gate_output(material: Material) -> list[str]:
    """The end of what a gate said that failed."""
    lines: list[str] = []
    for each in _gate_results(material):
        tail = str(each.get("tail") or "").strip()
        if each.get("ok") is not True and tail:
            lines += ["", f"## What the gate {each.get('name')} said last", ""]
            lines += [f"    {line}" for line in tail.splitlines()]
    return lines


def _last_words(material: Material) -> list[str]:
    """The end of what the candidate, or its build, said where it failed."""
    found = _examined(material, SAID)
    said = found.get("said")
    if not isinstance(said, list) or not said:
        return []
    head = ["", f"## What {material.release.candidate} said last", ""]
    return [*head, *(f"    {line}" for line in said), "", f"More of it: `{found.get('more')}`"]


def _judged(release: Release) -> tuple[Verdict, str]:
    certified = any(isinstance(step, CanaryStep) and step.until == "go" for step in release.settings.steps)
    if release.cause in {"judge", "red_line"}:
        return "no_go", release.reason or ""
    if release.state == "released":
        words = "certified within the margins" if certified else "nothing against it; no step asked for certainty"
        return "go", words
    return "not_yet", "it did not come so far"


def _p95_change(material: Material) -> tuple[Verdict, str]:
    release = material.release
    if release.stable is None:
        return "not_yet", "there was no version before"
    both = [tick for tick in material.ticks if arm_of(tick, release.stable) and arm_of(tick, release.candidate)]
    before, after = totals(both, release.stable).p95, totals(both, release.candidate).p95
    if not before or after is None:
        return "not_yet", "not seen beside each other"
    change = after / before - 1
    allowed = release.settings.judge.allowed_seconds(before)
    times = f"{before * 1000:.1f} → {after * 1000:.1f} ms"
    words = f"{change:+.1%} ({times}), at most {allowed * 1000:.1f} ms; a point, no bound"
    return ("go" if after <= allowed else "no_go"), words


def _back_milliseconds(material: Material) -> float | None:
    seen = material.release.evidence.get("seen_seconds")
    back = [line["at"] for line in material.lines if line["word"] == "routed_back"]
    if not isinstance(seen, int | float) or not back or not isinstance(back[0], datetime):
        return None
    return max(0.0, (back[0].timestamp() - seen) * 1000)


def _versions(material: Material) -> list[str]:
    release = material.release
    names = [name for name in (release.stable, release.candidate) if name is not None]
    found = [totals(material.ticks, name) for name in names]
    if not any(each.requests for each in found):
        return ["No request was seen."]
    rows = [
        ("requests", *(f"{each.requests:,}" for each in found)),
        ("errors", *(f"{each.errors:,} ({_rate(each)})" for each in found)),
        *((level.upper(), *(_milliseconds(getattr(each, level)) for each in found)) for level in ("p50", "p95", "p99")),
    ]
    note = "Latencies are the medians of each second's own."
    return [*_rows(("", *names), rows), "", f"{_met(release, found)} {note}"]


def _met(release: Release, found: Sequence[Totals]) -> str:
    """What users met in the end; what the version before answered in place of the candidate is not its request."""
    rescued = sum(each.rescued for each in found)
    failed = sum(each.errors for each in found) - rescued
    words = f"Users met {max(0, failed):,} failed answers in {sum(each.requests for each in found):,} requests"
    if rescued:
        words += f"; {release.stable} answered {rescued:,} requests that {release.candidate} had failed"
    return f"{words}."


def _baseline(material: Material) -> list[str]:
    """What the version before was like by itself, until the first user had the candidate."""
    release = material.release
    first = [line["at"] for line in material.lines if line["word"] in {"canary", "watching"}]
    if release.stable is None or not first or not isinstance(first[0], datetime):
        return []
    until = first[0].timestamp()
    alone = [tick for tick in material.ticks if seconds_of(tick) <= until]
    found = totals(alone, release.stable)
    if not found.requests:
        return []
    seconds = max(1.0, until - min(seconds_of(tick) for tick in alone))
    words = (
        f"{found.requests:,} requests in {seconds:.0f} s ({found.requests / seconds:.1f} a second), "
        f"{found.errors:,} errors ({_rate(found)}), P50 {_milliseconds(found.p50)}, P95 {_milliseconds(found.p95)}, "
        f"P99 {_milliseconds(found.p99)}"
    )
    return ["", f"Baseline, {release.stable} before any user had {release.candidate}: {words}."]


def _differences(material: Material) -> list[str]:
    if not material.differences:
        return []
    shown = material.differences.splitlines()[:DIFFERENCES_MAX]
    return ["", "## Answers that differ", "", *(f"    {line}" for line in shown)]


def _timeline(material: Material) -> list[str]:
    rows = []
    for line in material.lines:
        at = line["at"]
        run = f"Run {line['run']}" if line.get("run") else ""
        moment = rfc3339(at)[11:23] if isinstance(at, datetime) else ""
        rows.append((moment, str(line["word"]).replace("_", " "), str(line["text"]), run))
    return _rows(("UTC", "", "", ""), rows)


def _snapshot(release: Release) -> list[str]:
    """What there was before, and what going back restores: the routing and the version; the rest is to compare with."""
    routing, versions = release.snapshot.get("routing"), release.snapshot.get("versions")
    arms = routing.get("arms") if isinstance(routing, dict) else None
    rows = [
        ("routing", ", ".join(f"{each['name']} {_int(each['share']) / 100:g} %" for each in _dicts(arms)) or "none"),
        ("versions", ", ".join(f"{each['version']} {each['stage']}" for each in _dicts(versions)) or "none"),
        ("configuration", str(release.snapshot.get("configuration", ""))),
    ]
    paused = release.snapshot.get("schedules_paused_by")
    if isinstance(paused, dict) and paused:
        rows.append(
            ("schedules", ", ".join(f"{name} {f'paused by {by}' if by else 'on'}" for name, by in paused.items()))
        )
    return ["## Before it", "", *_rows(("", ""), rows), ""] if release.snapshot else []


def _dicts(value: object) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _follow_up(release: Release) -> list[str]:
    task = follow_up(release)
    return ["## To do", "", f"- [ ] {plain_line(task)}", ""] if task is not None else []


def _commands(release: Release) -> list[str]:
    name, number = release.name, release.number
    commands = [
        f"interlock release status {name} --release {number}",
        f"interlock release compare {name} --release {number}",
        f"interlock show {release.run}",
    ]
    if release.state == "released" and release.stable is not None:
        commands.append(f"interlock rollback {name}")
    return commands


def _rows(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(plain_line(cell) for cell in row)} |" for row in rows)]


def _criterion(found: Criterion) -> tuple[str, str, str]:
    words = {"go": "GO", "no_go": "**NO-GO**", "not_yet": "open", None: "-"}
    return found.name, words[found.verdict], found.words


def _rate(found: Totals) -> str:
    return f"{found.errors / found.requests * 100:.2f} %" if found.requests else "-"


def _milliseconds(seconds: float | None) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds is not None else "-"


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
