"""Which measures a release has, and how much of the probability of a false alarm each of them may use."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from interlock.core.judgement import ExpositionMeasure, JudgeSettings, MeasureGrade, PromqlMeasure
from interlock.releases.judge.board import Rule
from interlock.releases.judge.readings import CounterPair, HistogramPair

ERRORS_WEIGHT = 0.5
"""Errors have half of the probability of a false alarm; whatever else sends back shares the other half."""


class Declared(NamedTuple):
    """A measure that `measures:` declares, and where its readings are held against each other."""

    name: str
    source: CounterPair | HistogramPair


def declared_measures(settings: JudgeSettings) -> tuple[Declared, ...]:
    """All but thresholds, which are no bets."""
    found = []
    for measure in settings.measures:
        if isinstance(measure, ExpositionMeasure) and measure.histogram is not None:
            pair = HistogramPair(measure.quantile, settings.latency_increase_max)
            found.append(Declared(measure.name, pair))
        elif isinstance(measure, ExpositionMeasure | PromqlMeasure):
            found.append(Declared(measure.name, CounterPair()))
    return tuple(found)


def quantile_name(quantile: float) -> str:
    """What a latency is called at a quantile: latency p95, latency p99.9."""
    return f"latency p{100 * quantile:g}"


def rules(settings: JudgeSettings) -> tuple[Rule, ...]:
    """Errors, refusals, latencies, then what is declared; the order in which counts come to the board."""
    errors = Rule(
        "errors",
        weight=ERRORS_WEIGHT,
        ratio_allowed=settings.error_ratio_allowed,
        ratio_max=settings.error_ratio_max,
        harmless=settings.error_share_harmless,
    )
    others = [*_refusals(settings)]
    others += [
        Rule(quantile_name(quantile), weight=1.0, required=quantile in settings.certified_quantiles)
        for quantile in settings.latency_quantiles
    ]
    others += _declared(settings)
    blocking = sum(rule.grade == "block" for rule in others)
    return (errors, *(_weighed(rule, blocking, len(others) - blocking) for rule in others))


def _refusals(settings: JudgeSettings) -> tuple[Rule, ...]:
    if settings.refusals == "ignore":
        return ()
    blocks = settings.refusals == "block"
    return (_rate("refusals", settings, grade="block" if blocks else "warn"),)


def _declared(settings: JudgeSettings) -> list[Rule]:
    found = []
    for measure in settings.measures:
        if isinstance(measure, ExpositionMeasure) and measure.histogram is not None:
            found.append(Rule(measure.name, weight=1.0, grade=measure.grade, required=measure.grade == "block"))
        elif isinstance(measure, ExpositionMeasure | PromqlMeasure):
            found.append(_rate(measure.name, settings, grade=measure.grade))
    return found


def _rate(name: str, settings: JudgeSettings, *, grade: MeasureGrade) -> Rule:
    return Rule(
        name,
        weight=1.0,
        grade=grade,
        ratio_allowed=settings.error_ratio_allowed,
        ratio_max=settings.error_ratio_max,
        harmless=settings.error_share_harmless,
        required=grade == "block",
    )


def _weighed(rule: Rule, blocking: int, telling: int) -> Rule:
    """What only tells people never sends back, so it has a budget of its own."""
    weight = (1 - ERRORS_WEIGHT) / blocking if rule.grade == "block" else 1.0 / telling
    return replace(rule, weight=weight)
