"""Rounds, ratios and verdicts: what every claim is measured with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Rounds = list[dict[str, float]]
"""One dictionary for each round: participant -> what was measured of it in that round."""


@dataclass(frozen=True)
class Result:
    """One line of the table: a claim and what was seen, or a figure that is only told.

    `value` is the median over rounds and `low` and `high` their extremes, so that noise is seen. `limit` is what is
    claimed; without one the line is information. `figures` are the medians of what the ratio was made from.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    limit: float | None = None
    sense: Literal["at most", "at least"] = "at most"
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest of the rounds."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest of the rounds."""
        return max(self.values)

    @property
    def holds(self) -> bool | None:
        """Whether the claim was seen to hold; None where nothing is claimed."""
        if self.limit is None:
            return None
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


def interleaved(turns: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Let all take a turn in each round, one after another, so that what else the machine does hits them alike.

    Who begins changes from round to round.
    """
    names = list(turns)
    measured: Rounds = []
    for number in range(rounds):
        shift = number % len(names)
        measured.append({name: turns[name]() for name in (*names[shift:], *names[:shift])})
    return measured


def ratio(
    name: str,
    rounds: Rounds,
    over: str,
    under: str,
    *,
    limit: float | None = None,
    at_least: float | None = None,
) -> Result:
    """`over` divided by `under` within each round; claimed is that it is at most `limit`, or `at_least`."""
    values = tuple(each[over] / each[under] for each in rounds)
    figures = {who: statistics.median(each[who] for each in rounds) for who in (over, under)}
    if at_least is not None:
        return Result(name, "x", values, at_least, "at least", figures)
    return Result(name, "x", values, limit, "at most", figures)


def figure(name: str, unit: str, values: Sequence[float]) -> Result:
    """A measured value of which nothing is claimed."""
    return Result(name, unit, tuple(values))
