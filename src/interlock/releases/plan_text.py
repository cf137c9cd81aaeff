"""Writes down a release that somebody is to approve: from what to what, in which steps, under which eyes; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from interlock.comparison.evidence import pairs_needed
from interlock.core.comparison import ComparisonRules
from interlock.core.workload import CanaryStep, ReleaseSettings, ReleaseStep, ServiceWorkload, ShadowStep

_COLUMN = 14
_IDENTITY_CHARACTERS = 19


def release_text(
    workload: ServiceWorkload,
    stable: str | None,
    candidate: str,
    identities: Mapping[str, str | None],
    changes: Iterable[tuple[str, str]] = (),
    configuration_diff: str = "",
) -> str:
    """What the approver reads. `changes`: what becomes of code and configuration, where there are both."""
    release = workload.release
    lines = [*_versions(stable, candidate, identities), *_fields(changes), ""]
    if configuration_diff:
        lines += ["What changes in the configuration", configuration_diff, ""]
    if stable is None:
        lines += ["Nothing runs yet: it is built, started and probed, and then all users get it.", ""]
    elif not release.steps:
        lines += ["No steps: it is built, started and probed, and then all users get it at once.", ""]
    else:
        rows: list[tuple[str, ...]] = [
            (str(number), *_step_row(step, workload.comparison), _longest(step))
            for number, step in enumerate(release.steps, start=1)
        ]
        rows.append(
            (str(len(rows) + 1), "all users", f"watched for {duration(release.watch_seconds)} with requests", "")
        )
        lines += [*_table(("step", "who gets it", "goes on when", ""), rows), ""]
    lines += [*_fields(_eyes(release)), "", "Go or no go", *_fields(criteria(workload)), ""]
    return "\n".join([*lines, *_fields(_ways_back(release, stable))])


def step_text(step: ReleaseStep, rules: ComparisonRules) -> str:
    """One step in one line."""
    return ", ".join(part for part in _step_row(step, rules) if part)


def pairs_wanted(step: ShadowStep, rules: ComparisonRules) -> int | None:
    """How many answers a shadow step compares at least: as many as the agreement takes, whatever `pairs` says.

    None for an agreement that no number of answers proves.
    """
    if rules.agreement_percent >= 100:  # noqa: PLR2004 - percent
        return None
    return max(step.pairs, pairs_needed(rules.agreement_percent, rules.confidence_percent))


def criteria(workload: ServiceWorkload) -> list[tuple[str, str]]:
    """What has to hold before users get it, and what is measured about the release itself."""
    judge, rules = workload.release.judge, workload.comparison
    shadow = any(isinstance(step, ShadowStep) for step in workload.release.steps)
    agreement = (
        f"at least {rules.agreement_percent:g} % of answers, at {rules.confidence_percent:g} % confidence"
        if shadow
        else "not compared: no shadow step"
    )
    quantiles = ", ".join(f"P{quantile * 100:g}" for quantile in judge.latency_quantiles)
    gates = workload.release.gates
    harmless = judge.latency_increase_harmless_seconds * 1000
    builds = "; ".join(" ".join(command) for command in workload.build)
    return [
        ("agreement", agreement),
        ("build, tests", f"each has to succeed: {builds}" if builds else "none declared under `build`"),
        ("gates", "; ".join(f"{gate.name}: {' '.join(gate.command)}" for gate in gates) or "none declared"),
        ("golden", "each sample that was accepted is answered so, before anybody has it"),
        ("health", f"{workload.health.path} answers {workload.health.successes} times in a row"),
        ("errors", f"fewer than {judge.error_ratio_max:g} times those of the version before"),
        ("latency", f"at most {judge.latency_increase_max * 100:.0f} %, or {harmless:g} ms, more at {quantiles}"),
        ("detection", "hard failures at once; how long it took stands in the report"),
    ]


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.2f} %"


def duration(seconds: float) -> str:
    """`90 s`, `5 min`, `2 h`."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _versions(stable: str | None, candidate: str, identities: Mapping[str, str | None]) -> list[str]:
    pairs = [("from", stable or "nothing"), ("to", candidate)]
    lines = _fields([(label, f"{name}  {_short(identities.get(name))}".rstrip()) for label, name in pairs])
    if (
        stable is not None
        and identities.get(stable) is not None
        and identities.get(stable) == identities.get(candidate)
    ):
        lines += _fields([("WARNING", f"{candidate} is the same as {stable}: users get nothing new")])
    return lines


def _short(identity: str | None) -> str:
    pairs = [part.partition(":") for part in (identity or "").split("+")]
    return " + ".join(f"{kind}:{value[:_IDENTITY_CHARACTERS]}" for kind, _, value in pairs if value)


def _step_row(step: ReleaseStep, rules: ComparisonRules) -> tuple[str, str]:
    if isinstance(step, ShadowStep):
        return f"nobody; {step.shadow_percent:g} % of safe requests are copied", _pairs(step, rules)
    goes_on = f"after {duration(step.hold_seconds)} with requests"
    if step.until == "go":
        goes_on = "the judge certifies it"
        if step.hold_seconds:
            goes_on += f", not before {duration(step.hold_seconds)}"
    return f"{step.weight_percent:g} % of users", goes_on


def _pairs(step: ShadowStep, rules: ComparisonRules) -> str:
    wanted = pairs_wanted(step, rules)
    if wanted is None:
        return f"never: no number of answers proves {rules.agreement_percent:g} %"
    more = f" (so many prove {rules.agreement_percent:g} %, `pairs` says {step.pairs})" if wanted > step.pairs else ""
    return f"{wanted} answers compared, and agreed{more}"


def _longest(step: ReleaseStep) -> str:
    bounded = isinstance(step, ShadowStep) or step.until == "go"
    return f"at most {duration(step.deadline_seconds)}" if bounded else ""


def _eyes(release: ReleaseSettings) -> list[tuple[str, str]]:
    judge = release.judge
    undecided = {"pause": "it waits for a person", "rollback": "it goes back", "promote": "it goes on all the same"}
    certifies = any(isinstance(step, CanaryStep) and step.until == "go" for step in release.steps)
    return [
        ("judge", f"errors and latency, both versions at the same time, every {duration(judge.tick_seconds)}"),
        ("", f"a good version is sent back with a probability of at most {_percent(judge.false_alarm)}"),
        *([("", f"a bad one is certified with at most {_percent(judge.false_go)}")] if certifies else []),
        ("red lines", f"{release.burst_errors} errors in a row, {release.red_line_failures} failed probes in a row"),
        ("no verdict", f"{undecided[release.undecided]} at a step's end"),
    ]


def _ways_back(release: ReleaseSettings, stable: str | None) -> list[tuple[str, str]]:
    if stable is None:
        return [
            ("way back", "none: there is no version before; what goes wrong freezes it where it is"),
            ("", "and a person may end it: interlock release abort"),
        ]
    if release.irreversible:
        return [
            ("way back", "NONE once users have it (`irreversible: true`): what goes wrong freezes it where it is"),
        ]
    warm = f"{stable} stays running for {release.keep_warm_hours:g} h"
    return [("way back", f"by itself, at once: all users get {stable} again"), ("", f"{warm}, ready to take over")]


def _fields(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{label:<{_COLUMN}}{text}" for label, text in pairs]


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]
