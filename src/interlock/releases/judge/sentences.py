"""What the judge saw, in sentences for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from interlock.core.judgement import JudgeSettings, MeasureGrade, MeasureJudgement, Verdict

LONG_SECONDS = 3600.0
"""From here on a release that waits for GO is better made another way."""


class Figures(NamedTuple):
    """All of a `MeasureJudgement` but its sentence."""

    name: str
    verdict: Verdict
    grade: MeasureGrade
    warning: bool
    stable_bad: float
    stable_seen: float
    candidate_bad: float
    candidate_seen: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    threshold_seconds: float | None
    evidence_against: float
    needed_against: float
    evidence_for: float
    needed_for: float
    required_for_go: bool
    seconds_to_go: float | None


def measure_sentence(measure: Figures, stable: str, candidate: str, settings: JudgeSettings) -> str:
    """What was counted, how it compares, and how much that says."""
    parts = [_counted(measure, stable, candidate, settings)]
    if measure.ratio is not None:
        between = ""
        if measure.ratio_low is not None or measure.ratio_high is not None:
            low = 0.0 if measure.ratio_low is None else measure.ratio_low
            high = "any number" if measure.ratio_high is None else f"{measure.ratio_high:.2g}"
            between = f" (surely between {low:.2g} and {high})"
        parts.append(f"{measure.ratio:.2f} times as often{between}")
    if measure.evidence_for >= measure.needed_for and measure.verdict == "go":
        parts.append(f"certified to be inside the margin ({_bet(measure.evidence_for, measure.needed_for)})")
    else:
        parts.append(f"evidence that it is worse {_bet(measure.evidence_against, measure.needed_against)}")
    return "; ".join(parts)


def summary(
    verdict: Verdict,
    measures: Sequence[MeasureJudgement],
    *,
    candidate: str,
    seconds_to_go: float | None,
    reasons: Sequence[str],
    silent_seconds: float,
) -> str:
    """The verdict and why, in one or two sentences."""
    if verdict == "no_go":
        return f"NO-GO for {candidate}: {'. '.join(reasons)}"
    if verdict == "go":
        return f"GO for {candidate}: {'. '.join(each.sentence for each in measures if each.required_for_go)}"
    warned = [each.name for each in measures if each.warning]
    said = f"; worse in {', '.join(warned)}, though not by more than is allowed" if warned else ""
    if not any(each.candidate_seen + each.stable_seen for each in measures):
        return f"not yet: nobody came for {duration(silent_seconds)}, and silence decides nothing{said}"
    if seconds_to_go is None:
        waiting = [each.name for each in measures if each.required_for_go and each.seconds_to_go is None]
        return f"not yet{said}; at this traffic it cannot be told when GO is certain ({', '.join(waiting)})"
    slowest = max(
        (each for each in measures if each.required_for_go), key=lambda each: each.seconds_to_go or 0.0, default=None
    )
    name = "" if slowest is None else f", because of {slowest.name}"
    text = f"not yet{said}; at this traffic an equal version needs about {duration(seconds_to_go)} more for GO{name}"
    if seconds_to_go > LONG_SECONDS:
        text += (
            ". That is long: blue/green (`steps: []`), all users at once with the old version kept warm and red lines "
            "watched, may suit this workload better"
        )
    return text


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h, 9 days."""
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def _counted(measure: Figures, stable: str, candidate: str, settings: JudgeSettings) -> str:
    ours = _of(measure.candidate_bad, measure.candidate_seen)
    theirs = _of(measure.stable_bad, measure.stable_seen)
    if measure.threshold_seconds is None:
        return f"{measure.name}: {ours} of {candidate}, {theirs} of {stable}"
    edge, allowed = measure.threshold_seconds, settings.allowed_seconds(measure.threshold_seconds)
    return (
        f"{measure.name}: {ours} of {candidate} took longer than {_milliseconds(allowed)}, "
        f"{theirs} of {stable} longer than {_milliseconds(edge)}"
    )


def _milliseconds(seconds: float) -> str:
    """Of short ones a tenth counts."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004 - as people say


def _of(bad: float, seen: float) -> str:
    share = f" ({bad / seen * 100:.2f} %)" if seen else ""
    return f"{bad:,.0f} of {seen:,.0f}{share}"


def _bet(evidence: float, needed: float) -> str:
    return f"{_number(evidence)} to 1, {_number(needed)} needed"


def _number(value: float) -> str:
    if value >= 1e7:  # noqa: PLR2004 - ten million
        return f"10^{math.log10(value):.0f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004 - two digits are enough
