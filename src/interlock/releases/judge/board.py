"""All measures of a release on one board: which bets are made on each, and what they add up to.

On each measure there are up to four bets: that it is worse than allowed (a candidate is sent back), that it is worse at
all (people are told), that it is better than the margin (what GO needs), and that it is rarer than what is harmless
(which is as good). Measure k sends back when its evidence reaches 1/(w_k alpha) with weights w that sum up to 1, so
that all measures together do so wrongly with a probability of at most alpha, however they depend on each other
(Bonferroni for e-values: Vovk and Wang, E-values: calibration, combination and applications, 2021). GO needs every
required measure to reach 1/alpha on its own: a version is worse when it is worse in any of them, so no share is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from interlock.core.judgement import MeasureGrade
from interlock.core.model import JsonObject
from interlock.releases.judge.processes import BETTER, BETTER_STAKES, WORSE, WORSE_STAKES, EProcesses, Tick
from interlock.releases.judge.state import Floats, from_json, number, part, to_json

Flags = npt.NDArray[np.bool_]
Bet = Literal["worse_than_allowed", "worse", "better", "harmless"]

FIRST_AGAINST = 0.5
"""Which part of the stake against the candidate is bet from the beginning; the rest is for what goes wrong late."""
FIRST_FOR = 0.75
"""The same of the stake for it."""
BEGIN_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class Rule:
    """How one measure is judged.

    Args:
        name: For people.
        weight: Its part of the probability of a false alarm.
        grade: What follows when it is worse.
        ratio_allowed: So many times the stable version's share is no reason to send it back.
        ratio_max: GO proves less than so many times; for latencies 1, as the margin is in the counting.
        harmless: Or a share of less than that.
        required: Whether GO waits for it.
    """

    name: str
    weight: float
    grade: MeasureGrade = "block"
    ratio_allowed: float = 1.0
    ratio_max: float = 1.0
    harmless: float | None = None
    required: bool = True


class Counts(NamedTuple):
    """What one tick brought for K measures; arrays of the shape (..., K), all finite and not negative."""

    stable_bad: Floats
    stable_seen: Floats
    candidate_bad: Floats
    """Held against `stable_bad` by who asks whether it is worse at all."""
    candidate_bad_margin: Floats
    """By who asks whether it is worse than the margin; the same as `candidate_bad` where the margin is a ratio."""
    candidate_seen: Floats


class Evidence(NamedTuple):
    """Natural logarithms of the e-values that were reached, (..., K)."""

    worse_than_allowed: Floats
    worse: Floats
    good: Floats
    """No worse than the margin, or harmless."""


class Board:
    """The bets on K measures, settled tick by tick.

    Args:
        rules: One for each measure; the weights sum up to 1.
        false_alarm: Of sending back, over all measures and all time.
        false_go: Of certifying.
        shape: Of whatever runs beside each other: () for one release, (R,) for a simulation.
    """

    def __init__(
        self, rules: tuple[Rule, ...], *, false_alarm: float, false_go: float, shape: tuple[int, ...] = ()
    ) -> None:
        self.rules = rules
        weights = np.array([rule.weight for rule in rules])
        self.log_needed_against = -np.log(weights * false_alarm)
        self.log_needed_for = np.full(len(rules), -np.log(false_go))
        self.needed_against, self.needed_for = np.exp(self.log_needed_against), np.exp(self.log_needed_for)
        self.required = np.array([rule.required for rule in rules])
        self._blocking = np.array([rule.grade == "block" for rule in rules])
        self._bets = _bets(rules)
        self._measure = np.array([measure for measure, _, _ in self._bets])
        self._margin = np.array([bet in {"worse_than_allowed", "better"} for _, bet, _ in self._bets])
        self._alone = np.array([bet == "harmless" for _, bet, _ in self._bets])
        self._limit = np.array([limit for _, _, limit in self._bets])
        against = np.array([bet.startswith("worse") for _, bet, _ in self._bets])
        psi = np.where(against[:, None], WORSE, BETTER)
        stakes = np.where(against[:, None], WORSE_STAKES, BETTER_STAKES)
        self._processes = EProcesses(psi, stakes, np.where(against, FIRST_AGAINST, FIRST_FOR), shape)
        self._rows = {
            kind: np.array([row for row, (_, bet, _) in enumerate(self._bets) if bet == kind], dtype=np.int64)
            for kind in ("worse_than_allowed", "worse", "better", "harmless")
        }
        self._harmless_measures = self._measure[self._rows["harmless"]]
        halved = np.isin(self._measure, self._harmless_measures)  # two bets for it share one stake
        self._log_needed = self.log_needed_for[self._measure] + np.where(halved, np.log(2.0), 0.0)
        self._since_begin = BEGIN_EVERY_SECONDS
        self._seen_since_begin = True
        self.totals = Counts(*(np.zeros((*shape, len(rules))) for _ in Counts._fields))

    def tick(self, counts: Counts, elapsed_seconds: float) -> None:
        """Take one tick's counts; `elapsed_seconds` since the tick before."""
        self._since_begin += elapsed_seconds
        if self._since_begin >= BEGIN_EVERY_SECONDS and self._seen_since_begin:
            self._processes.begin()
            self._since_begin, self._seen_since_begin = 0.0, False
        self._processes.tick(self._as_bets(counts))
        self.totals = Counts(*(total + brought for total, brought in zip(self.totals, counts, strict=True)))
        self._seen_since_begin = self._seen_since_begin or bool(np.any(counts.candidate_seen > 0))

    def evidence(self) -> Evidence:
        """What the bets have come to."""
        log = self._processes.log_evidence()
        good = log[..., self._rows["better"]]
        if self._harmless_measures.size:
            both = np.logaddexp(good[..., self._harmless_measures], log[..., self._rows["harmless"]]) - np.log(2)
            good = good.copy()
            good[..., self._harmless_measures] = both
        return Evidence(log[..., self._rows["worse_than_allowed"]], log[..., self._rows["worse"]], good)

    def sent_back(self, evidence: Evidence) -> Flags:
        """Which measures are worse than allowed, (..., K); one of them sends the candidate back."""
        return cast("Flags", (evidence.worse_than_allowed >= self.log_needed_against) & self._blocking)

    def certified(self, evidence: Evidence) -> Flags:
        """Which measures are certified, (..., K); GO needs all that are required."""
        return evidence.good >= self.log_needed_for

    def seconds_needed(self, evidence: Evidence, expected: Counts) -> Floats:
        """For how many seconds as `expected` (counts of one second) each measure must go on until it is certified."""
        ticks = self._processes.ticks_needed(self._as_bets(expected), self._log_needed)
        found = ticks[..., self._rows["better"]].copy()
        if self._harmless_measures.size:
            alone = ticks[..., self._rows["harmless"]]
            found[..., self._harmless_measures] = np.minimum(found[..., self._harmless_measures], alone)
        return np.where(self.certified(evidence), 0.0, found)

    def state(self) -> JsonObject:
        """What `restore` takes; exact."""
        return {
            "processes": self._processes.state(),
            "since_begin": self._since_begin,
            "seen_since_begin": self._seen_since_begin,
            "totals": {name: to_json(total) for name, total in self.totals._asdict().items()},
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid when it is of other measures."""
        self._processes.restore(part(state, "processes"))
        self._since_begin = number(state, "since_begin")
        self._seen_since_begin = state.get("seen_since_begin") is True
        totals = part(state, "totals")
        self.totals = Counts(*(from_json(totals, name, total.shape) for name, total in self.totals._asdict().items()))

    def _as_bets(self, counts: Counts) -> Tick:
        measure = self._measure
        bad = np.where(self._margin, counts.candidate_bad_margin[..., measure], counts.candidate_bad[..., measure])
        seen = counts.candidate_seen[..., measure]
        allowed = self._limit * seen
        whole = allowed + counts.stable_seen[..., measure]
        share = np.divide(allowed, whole, out=np.zeros_like(whole), where=whole > 0)
        return Tick(
            bad=bad,
            trials=np.where(self._alone, seen, bad + counts.stable_bad[..., measure]),
            share=np.where(self._alone, self._limit, share),
        )


def _bets(rules: tuple[Rule, ...]) -> list[tuple[int, Bet, float]]:
    """Measure, kind and limit of each bet: a ratio, or for `harmless` a share."""
    found: list[tuple[int, Bet, float]] = []
    for measure, rule in enumerate(rules):
        found += [
            (measure, "worse_than_allowed", rule.ratio_allowed),
            (measure, "worse", 1.0),
            (measure, "better", rule.ratio_max),
        ]
        if rule.harmless is not None:
            found.append((measure, "harmless", rule.harmless))
    return found
