"""What pairs of answers prove about a candidate, however often one looks: e-processes and bounds that hold at any time.

All of it follows from Ville's inequality: a nonnegative supermartingale that begins at 1 ever reaches 1/alpha with
probability at most alpha (J. Ville, 1939; A. Ramdas et al., "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 38(4), 2023).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

ASKED_AGAIN: Final = 7
"""How often each side is asked again to see whether a difference repeats."""

_ZERO_WEIGHT: Final = 0.993
"""Of the wager that the candidate never differs: 459 equal pairs prove 99 % at 99 %, as with one planned look."""
_RATIOS: Final = (0.75, 0.5, 0.25, 0.1, 0.03)
"""The other wagers: that it differs so many times as often as the bound in question."""
_WAGERS: Final = (
    (0.0, math.log(_ZERO_WEIGHT)),
    *((ratio, math.log((1 - _ZERO_WEIGHT) / len(_RATIOS))) for ratio in _RATIOS),
)
_STAKES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Which part of the stake is wagered on a budget being exceeded, in equal shares."""
_BISECTIONS: Final = 50
_DEVIATIONS: Final = 8


class Counts(NamedTuple):
    """How often one thing differed, over triples of the stable version's answer, its second one, the candidate's."""

    pairs: int = 0
    candidate_only: int = 0
    """The candidate's differed from the first, the second did not."""
    noise_only: int = 0
    """The second differed from the first, the candidate's did not."""
    both: int = 0

    def plus(self, *, candidate: bool, noise: bool) -> Counts:
        """With one more triple."""
        return Counts(
            self.pairs + 1,
            self.candidate_only + (candidate and not noise),
            self.noise_only + (noise and not candidate),
            self.both + (candidate and noise),
        )

    @property
    def noise(self) -> int:
        """How often the stable version differed from itself."""
        return self.noise_only + self.both


def log_paired_evidence(discordant: int, candidate_only: int) -> float:
    """Natural logarithm of the evidence that the candidate differs more often than the stable version from itself.

    If it does not, each discordant triple is a toss of a coin that shows `candidate only` with probability at most 1/2,
    for the second answer and the candidate's are exchangeable. The uniform mixture of wagers on (1/2, 1) gives
        E = 2^n B(1+k, 1+n-k) (1 - I_1/2(1+k, 1+n-k)) / (1/2),  n = discordant, k = candidate_only,
    which with 1 - I_1/2(1+k, 1+n-k) = P(Bin(n+1, 1/2) <= k) is
        E = sum_{j=0..k} C(n+1, j) / ((n+1) C(n, k)).
    A mixture of martingales in the number of discordant triples, and 1 at n = 0.
    """
    n, k = discordant, candidate_only
    if n == 0:
        return 0.0
    largest = min(k, (n + 1) // 2)
    # Terms fall off like a Gaussian around the largest; beyond eight deviations they are below a double's precision.
    first = max(0, largest - _DEVIATIONS * math.isqrt(n + 1) - _DEVIATIONS)
    last = min(k, largest + _DEVIATIONS * math.isqrt(n + 1) + _DEVIATIONS)
    total, term = 1.0, 1.0
    for j in range(largest, first, -1):
        term *= j / (n + 2 - j)
        total += term
    term = 1.0
    for j in range(largest + 1, last + 1):
        term *= (n + 2 - j) / j
        total += term
    return _log_choose(n + 1, largest) + math.log(total) - math.log(n + 1) - _log_choose(n, k)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def log_repeated_evidence(*, repeated: bool) -> float:
    """Natural logarithm of the evidence from asking both sides one request `ASKED_AGAIN` times again.

    `repeated`: all fresh answers of the stable version agreed there, and each of the candidate's differed from them.
    If the 2 m fresh answers are exchangeable, at most 2 of the C(2m, m) ways to deal them out do that. Half of the
    stake is held back, so that one difference that did not repeat does not silence the field for ever.
    """
    return math.log(0.5 + (0.25 * math.comb(2 * ASKED_AGAIN, ASKED_AGAIN) if repeated else 0.0))


def log_threshold(rank: int, false_alarm: float) -> float:
    """What the evidence about the `rank`-th field to differ (from 1) must reach: 1 / (w alpha), w = 6 / (pi rank)^2.

    The weights sum to 1 over as many fields as there may be, so over all of them together the candidate is blamed with
    probability at most alpha (e-Bonferroni). A field has its rank from its first difference, which itself is not
    counted as evidence: so the evidence begins at 1 when the rank is known.
    """
    return math.log(math.pi**2 * rank**2 / 6 / false_alarm)


def agreement_lower_bound(counts: Counts, confidence: float) -> float:
    """In which share of the answers the candidate agrees, at least; beyond what the stable version differs from itself.

    With d = [candidate differs] - [the second stable answer differs] the share is 1 - E d. Against `E d >= q`, each
    triple multiplies a stake by 1 + l (q - d), l = (1 - r) / (1 - q) for a wager r in [0, 1): a supermartingale, whose
    factor is (1 - r q) / (1 - q) for d = 0 and r for d = 1. The wagers are mixed; the bound is 1 - q for the smallest q
    whose stake reached 1 / (1 - confidence). It holds at all times at once, so a release may stop at any look. (A
    Clopper-Pearson bound holds for one look that was planned; looking each second until it suits would certify
    versions that are bad.) Without a difference n triples prove 1 - log(1 / (1 - confidence)) / n, nearly.
    """
    wanted = -math.log1p(-confidence)
    low, high = (
        0.0,
        1.0,
    )
    if counts.pairs - counts.candidate_only <= 0:
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _log_stake(counts, middle) >= wanted:
            high = middle
        else:
            low = middle
    return 1.0 - high


def _log_stake(counts: Counts, share: float) -> float:
    equal = counts.pairs - counts.candidate_only - counts.noise_only
    logs = []
    for ratio, log_weight in _WAGERS:
        if ratio == 0.0 and counts.candidate_only:
            continue
        slope = (1 - ratio) / (1 - share)
        stake = log_weight + equal * math.log1p(slope * share)
        stake += counts.noise_only * math.log1p(slope * (1 + share))
        stake += counts.candidate_only * (math.log(ratio) if ratio else 0.0)
        logs.append(stake)
    return _log_sum(logs)


def log_budget_evidence(counts: Counts, budget: float) -> float:
    """Natural logarithm of the evidence that the candidate differs in more than this share of the answers.

    With d as in `agreement_lower_bound`: against `E d <= b` each triple multiplies a stake by 1 + l (d - b), for l
    below 1 / (1 + b); several l are mixed.
    """
    equal = counts.pairs - counts.candidate_only - counts.noise_only
    logs = []
    for part in _STAKES:
        slope = part / (1 + budget)
        stake = counts.candidate_only * math.log1p(slope * (1 - budget)) + equal * math.log1p(-slope * budget)
        logs.append(stake + counts.noise_only * math.log1p(-slope * (1 + budget)))
    return _log_sum(logs) - math.log(len(_STAKES))


def _log_sum(logs: list[float]) -> float:
    largest = max(logs)
    return largest + math.log(sum(math.exp(each - largest) for each in logs))


def pairs_needed(agreement_percent: float, confidence_percent: float) -> int:
    """So many triples without a difference prove this agreement: 459 for 99 % at 99 %."""
    low, high = 1, 1 << 40
    while low < high:
        middle = (low + high) // 2
        if agreement_lower_bound(Counts(middle), confidence_percent / 100) >= agreement_percent / 100:
            high = middle
        else:
            low = middle + 1
    return low
