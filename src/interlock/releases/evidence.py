"""What is kept of a judgement that sent a release back: the measures that say most, in numbers and words; pure."""

from __future__ import annotations

import math

from interlock.core.judgement import Judgement, MeasureJudgement
from interlock.core.model import JsonObject
from interlock.releases.model import Cause

MEASURES_MAX = 5
LOG10_MAX = 300.0


def evidence_of(
    cause: Cause, words: str, at_seconds: float, first_bad_seconds: float | None, judgement: Judgement | None
) -> JsonObject:
    """What was seen, when (seconds since 1970), and by how much."""
    found: JsonObject = {"cause": cause, "words": words[:1000], "seen_seconds": round(at_seconds, 6)}
    if first_bad_seconds is not None and cause == "red_line":
        found["first_bad_seconds"] = round(first_bad_seconds, 6)
        found["seen_after_seconds"] = round(max(0.0, at_seconds - first_bad_seconds), 6)
    if judgement is not None:
        found["measures"] = [_measure(each) for each in _weightiest(judgement)]
    return found


def log10_evidence(judgement: Judgement) -> float:
    """The most that any measure has against the candidate, as the logarithm of how far it is to being sent back:
    0 is the threshold."""
    ratios = [each.evidence_against / each.needed_against for each in judgement.measures if each.needed_against > 0]
    highest = max(ratios, default=0.0)
    return max(-LOG10_MAX, min(LOG10_MAX, math.log10(highest))) if highest > 0 else -LOG10_MAX


def _weightiest(judgement: Judgement) -> list[MeasureJudgement]:
    def weight(measure: MeasureJudgement) -> tuple[bool, float]:
        return measure.verdict == "no_go", measure.evidence_against / max(measure.needed_against, 1e-300)

    telling = [each for each in judgement.measures if each.verdict == "no_go" or each.evidence_against > 1]
    return sorted(telling, key=weight, reverse=True)[:MEASURES_MAX]


def _measure(measure: MeasureJudgement) -> JsonObject:
    return {
        "name": measure.name,
        "verdict": measure.verdict,
        "stable": f"{measure.stable_bad:g} of {measure.stable_seen:g}",
        "candidate": f"{measure.candidate_bad:g} of {measure.candidate_seen:g}",
        "evidence_against": _finite(measure.evidence_against),
        "needed_against": _finite(measure.needed_against),
        "sentence": measure.sentence,
    }


def _finite(value: float) -> float:
    return float(f"{min(value, 1e300):.4g}")
