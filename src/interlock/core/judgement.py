"""What counts as worse: the margins, error probabilities and measures by which a candidate is judged, as declared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from interlock.core.model import Frozen

Verdict = Literal["go", "no_go", "not_yet"]
Probability = Annotated[float, Field(gt=0, lt=0.5)]
Quantile = Annotated[float, Field(gt=0, lt=1)]


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
    error_ratio_max: float = Field(default=1.5, gt=1, le=100)
    """GO certifies that users meet fewer than so many times the stable version's errors."""
    latency_increase_max: float = Field(default=0.05, gt=0, le=10)
    """By how much slower the candidate may be, at each of `latency_quantiles`: 0.05 is 5 %."""
    latency_quantiles: tuple[Quantile, ...] = Field(default=(0.5, 0.75, 0.9, 0.95, 0.99), min_length=1, max_length=10)
    """Where the latencies of the two are compared."""
    tick_seconds: float = Field(default=1.0, ge=0.1, le=60)
    """How often it looks; hard failures are seen at once."""
