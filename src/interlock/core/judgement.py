"""What counts as worse: the margins, error probabilities and measures by which a candidate is judged, as declared, and
what a judge says."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from interlock.core.model import Frozen

Verdict = Literal["go", "no_go", "not_yet"]
MeasureGrade = Literal["block", "warn"]
Probability = Annotated[float, Field(gt=0, lt=0.5)]
Quantile = Annotated[float, Field(gt=0, lt=1)]
MeasureName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Selector = Annotated[str, Field(max_length=500, pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^\n]*\})?$")]
"""A metric and what its labels must be: `http_requests_total{code=~"5..", method!="HEAD"}`."""
Query = Annotated[str, Field(min_length=1, max_length=4000)]
"""PromQL with {version} in it; its value is a counter: `sum(jobs_failed_total{version="{version}"})`."""
Url = Annotated[str, Field(pattern=r"^https?://[^\s]{1,1000}$")]

RESERVED_NAMES = ("errors", "refusals", "latency", "alone")
"""What is measured at the proxy; a declared measure takes no such name."""


class ExpositionMeasure(Frozen):
    """Counters or a histogram that each version tells at an address of its own, as Prometheus text or OpenMetrics.

    Give `bad` and `total` for a share of failures, or `histogram` for a time (classic buckets, `le`).
    """

    source: Literal["exposition"] = "exposition"
    """Tells the sources apart."""
    name: MeasureName
    """What people read."""
    path: str = Field(default="/metrics", pattern=r"^/[ -~]{0,500}$")
    """Where each version tells it, on its own port."""
    bad: Selector | None = None
    """The counter of what went wrong."""
    total: Selector | None = None
    """The counter of all."""
    histogram: Selector | None = None
    """The histogram of a time in seconds: its name without _bucket."""
    quantile: Quantile = 0.95
    """Where the times of a histogram are compared."""
    grade: MeasureGrade = "block"
    """Whether a version that is worse here is sent back, or people are only told."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.histogram is None) == (self.bad is None) or (self.bad is None) != (self.total is None):
            msg = "give `bad` and `total`, or `histogram`"
            raise ValueError(msg)
        return self


class PromqlMeasure(Frozen):
    """Two counters that a Prometheus knows of both versions: what went wrong, and all."""

    source: Literal["promql"]
    """Tells the sources apart."""
    name: MeasureName
    """What people read."""
    url: Url
    """Of the Prometheus, without /api/v1."""
    bad: Query
    """Asks for the counter of what went wrong."""
    total: Query
    """Asks for the counter of all."""
    grade: MeasureGrade = "block"
    """Whether a version that is worse here is sent back, or people are only told."""


class ThresholdMeasure(Frozen):
    """Values that must stay inside what a file says; asked for again after each interval.

    The endpoint answers JSON or Prometheus text. The file is YAML: `p95_seconds: {max: 0.5}`. A value that is beyond
    its threshold `breaches` times in a row sends the candidate back; a value that is missing says so and decides
    nothing.
    """

    source: Literal["threshold"]
    """Tells the sources apart."""
    name: MeasureName
    """What people read."""
    url: Url
    """Where the values are told; {port} is the candidate's."""
    file: str = Field(min_length=1, max_length=4096)
    """The thresholds."""
    interval_seconds: float = Field(default=10.0, ge=0.5, le=3600)
    """How often they are held against the values."""
    breaches: int = Field(default=2, ge=1, le=100)
    """How often in a row a value must be beyond its threshold."""


Measure = Annotated[ExpositionMeasure | PromqlMeasure | ThresholdMeasure, Field(discriminator="source")]


class JudgeSettings(Frozen):
    """When a candidate is worse, and when it is proven to be no worse than allowed.

    `false_alarm` bounds the probability that a version which is no worse is ever sent back, over the whole release and
    over all measures together, however often one looks. `false_go` bounds the probability that one which is worse than
    the margins is certified.
    """

    false_alarm: Probability = 0.01
    """Of sending a version back that is no worse."""
    false_go: Probability = 0.05
    """Of certifying a version that is worse than the margins allow."""
    error_ratio_allowed: float = Field(default=1.0, ge=1, le=100)
    """So many times the stable version's errors are no reason to send the candidate back."""
    error_ratio_max: float = Field(default=1.5, gt=1, le=100)
    """GO certifies that users meet fewer than so many times the stable version's errors."""
    error_share_harmless: float = Field(default=0.001, gt=0, lt=0.5)
    """Or that fewer than this part of the users meet one at a look: without it a service without errors could never be
    certified."""
    error_ratio_alone: float = Field(default=3.0, ge=1, le=100)
    """Once all users have the candidate there is no version left to compare with: then more than so many times the
    share that the stable version had at most sends it back."""
    refusals: Literal["block", "warn", "ignore"] = "warn"
    """What follows when more users of the candidate are refused (an answer from 400 to 499)."""
    latency_increase_max: float = Field(default=0.05, ge=0.005, le=10)
    """By how much slower the candidate may be, at each of `latency_quantiles`: 0.05 is 5 %."""
    latency_increase_harmless_seconds: float = Field(default=0.002, ge=0, le=10)
    """Or by so much: where answers take less than a millisecond, a fifth more of that is nothing anybody notices."""
    latency_quantiles: tuple[Quantile, ...] = Field(default=(0.5, 0.75, 0.9, 0.95, 0.99), min_length=1, max_length=10)
    """Where the latencies of the two are compared."""
    certified_quantiles: tuple[Quantile, ...] = Field(default=(0.5, 0.95), max_length=10)
    """Which of them GO waits for. The others are watched as well; 0.99 takes about three times as long as 0.95."""
    requests_together_max: int = Field(default=4, ge=1, le=1000)
    """Where users are not known, requests are counted, and so many of them are thought to fail together."""
    tick_seconds: float = Field(default=1.0, ge=0.1, le=60)
    """How often it looks; hard failures are seen at once."""
    measures: tuple[Measure, ...] = Field(default=(), max_length=20)
    """What is judged besides what the proxy sees."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.error_ratio_allowed >= self.error_ratio_max:
            msg = "`error_ratio_allowed` must be less than `error_ratio_max`: GO could not come before NO-GO"
            raise ValueError(msg)
        if not set(self.certified_quantiles) <= set(self.latency_quantiles):
            msg = "`certified_quantiles` must be among `latency_quantiles`"
            raise ValueError(msg)
        names = [measure.name for measure in self.measures]
        if len(set(names)) != len(names) or set(names) & set(RESERVED_NAMES):
            msg = f"each measure needs a name of its own, and none of {', '.join(RESERVED_NAMES)}"
            raise ValueError(msg)
        return self

    def allowed_seconds(self, stable_seconds: float) -> float:
        """How long the candidate may take where the stable version takes so long."""
        by_share = stable_seconds * (1 + self.latency_increase_max)
        return max(by_share, stable_seconds + self.latency_increase_harmless_seconds)


class MeasureJudgement(Frozen):
    """What one measure says so far.

    Evidence is an e-value: a bet against the claim that starts at 1 and, if the claim is true, ends above X with a
    probability of at most 1/X, whenever one looks.
    """

    name: str
    """errors, refusals, latency p95, or as declared."""
    verdict: Verdict
    grade: MeasureGrade
    warning: bool
    """It is worse, but by less than the margin, or by a measure of which people are only told."""
    stable_bad: float
    """How many users (or requests, divided by `requests_together_max`) met it."""
    stable_seen: float
    candidate_bad: float
    candidate_seen: float
    ratio: float | None
    """The candidate's share divided by the stable version's; None while it cannot be told."""
    ratio_low: float | None = None
    """With `ratio_high`, an interval that holds the ratio at all times with probability 1 - `false_alarm`."""
    ratio_high: float | None = None
    threshold_seconds: float | None = None
    """For latencies: where the stable version's quantile lies now."""
    evidence_against: float
    """That it is worse than allowed."""
    needed_against: float
    """From here on it is sent back (or, with grade warn, told)."""
    evidence_for: float
    """That it is no worse than the margin."""
    needed_for: float
    """From here on it is certified."""
    required_for_go: bool
    seconds_to_go: float | None
    """How long until it is certified, if both versions are equal and traffic stays as it is; None: cannot be told."""
    sentence: str
    """What was seen, for people."""


class Judgement(Frozen):
    """What the judge says after a tick. `no_go` stays; `go` is what holds now."""

    at_seconds: float
    verdict: Verdict
    summary: str
    """For people: the verdict and why."""
    measures: tuple[MeasureJudgement, ...]
    seconds_to_go: float | None
    """How long until GO, if both versions are equal and traffic stays as it is; None: cannot be told."""
    silent_seconds: float
    """For how long no request of either version was seen."""
    breaches: tuple[str, ...] = ()
    """Values that were beyond their thresholds, in words."""
    notes: tuple[str, ...] = ()
    """What limits the judgement: users unknown, clocks that jumped, values that were missing."""
