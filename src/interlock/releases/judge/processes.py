"""E-processes: evidence against a claim about two rates that may be looked at after every tick.

Write x for what went wrong with the candidate in a tick and m for what went wrong with either version, n_c and n_s for
what was seen, r for the greatest ratio of the two rates that the claim allows, and

    share = r n_c / (r n_c + n_s),    g(psi) = psi^x / (1 + share (psi - 1))^m.

If the units of a tick are independent, fail with probabilities p_i, and the candidate's mean is at most r times the
stable version's, then with D = 1 + share (psi - 1) and ln(1 + u) <= u

    ln E g = sum_c ln(1 + p_i (psi/D - 1)) + sum_s ln(1 + p_i (1/D - 1))
          <= (psi - 1)/D * ((1 - share) sum_c p_i - share sum_s p_i) <= 0          for psi > 1

(and for psi < 1 when the ratio is at least r), whatever the level of the rates, the traffic, and how users are shared:
these may change from tick to tick, so that ramps, incidents that both versions share, and the time of day do not fool
it. The same holds for any values between 0 and 1 in place of failures, because (psi/D)^u <= 1 + u (psi/D - 1). So a
product of g is a nonnegative supermartingale that starts at 1, and so is a mixture over psi and over the time at which
the product begins; Ville's inequality bounds the probability that it ever reaches 1/alpha by alpha.

With share a constant q and m the number seen of the candidate it is the bet on a single rate against q.

Sources: Lindon and Malek, Anytime-valid inference for multinomial count data (NeurIPS 2022), for conditioning on the
total; ter Schure, Perez-Ortiz, Ly, Gruenwald, The anytime-valid logrank test (NEJSDS 2024), for users at risk; Shafer,
Shen, Vereshchagin, Vovk, Test martingales (2011), for mixtures over the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from interlock.core.model import JsonObject
from interlock.releases.judge.state import Floats, from_json, to_json, whole

LOG_WEALTH_MAX = 600.0
"""Where a bet stops growing: e^600 is certain enough, and a sum of a few hundred of them is a float."""
WORSE = np.array([1.15, 1.3, 1.6, 2.0, 3.0, 5.0, 10.0, 25.0, 80.0])
"""The ratios that are bet on against the claim that the candidate is no worse: from 1.15 times to 80 times."""
WORSE_STAKES = np.array([0.05, 0.08, 0.12, 0.15, 0.2, 0.16, 0.12, 0.08, 0.04])
"""Which part of the stake is bet on each of them: most on what releases go wrong by."""
BETTER = 1 / np.array([1.05, 1.1, 1.18, 1.3, 1.5, 2.0, 3.0, 6.0, 50.0])
"""The ratios that are bet on against the claim that the candidate is worse than the margin."""
BETTER_STAKES = np.full(len(BETTER), 1 / len(BETTER))
START_HALF = 30
"""After so many further beginnings half of what was kept back for them is spent; at 60 s each, half an hour."""


@dataclass(frozen=True)
class Tick:
    """What one tick puts into K processes; every array has the shape (..., K)."""

    bad: Floats
    """x: what went wrong with the candidate."""
    trials: Floats
    """m: over what the bet is made."""
    share: Floats
    """Which part of the trials the claim allows to be the candidate's, in [0, 1]."""


class EProcesses:
    """K e-processes side by side, each a mixture over J ratios and over the ticks at which it began.

    Args:
        psi: The ratios that are bet on, (K, J), all > 0.
        stakes: Which part of the stake is bet on each of them, (K, J); they sum up to 1.
        first: Which part of the stake is bet from the first tick on, (K,), in (0, 1]. The rest is spread over further
            beginnings, so that what goes wrong late is found as fast as what goes wrong at once.
        shape: Of whatever runs beside each other with the same settings: () for one release, (R,) for a simulation.
    """

    def __init__(self, psi: Floats, stakes: Floats, first: Floats, shape: tuple[int, ...] = ()) -> None:
        self._log_psi = np.log(psi)
        self._gain = psi - 1.0
        self._first = first
        self._log_kept = np.zeros(len(first))
        self._begun = 0
        self._log_wealth = np.full((*shape, *psi.shape), -np.inf)
        self._log_stakes = np.log(stakes)

    def begin(self) -> None:
        """Begin once more with a part of what was kept back: before the tick, and knowing only ticks before it."""
        k = self._begun
        if k == 0:
            stake, kept = self._first, 1.0 - self._first
        else:
            rest = 1.0 - self._first
            kept = rest * START_HALF / (START_HALF + k)
            stake = rest * START_HALF / ((START_HALF + k - 1) * (START_HALF + k))
        with np.errstate(divide="ignore"):  # nothing kept back is a logarithm of minus infinity, and means it
            self._log_kept = np.log(kept)
            np.logaddexp(self._log_wealth, np.log(stake)[:, None], out=self._log_wealth)
        self._begun += 1

    def tick(self, tick: Tick) -> None:
        """Settle the bets on what one tick brought."""
        gain = tick.bad[..., None] * self._log_psi
        gain -= tick.trials[..., None] * np.log1p(tick.share[..., None] * self._gain)
        self._log_wealth += gain
        np.minimum(self._log_wealth, LOG_WEALTH_MAX, out=self._log_wealth)

    def log_evidence(self) -> Floats:
        """The natural logarithm of each process, (..., K); finite from above and never NaN."""
        top = np.maximum(self._log_wealth.max(axis=-1), self._log_kept)
        top = np.maximum(top, -LOG_WEALTH_MAX)  # only a point of reference, so that nothing is subtracted from -inf
        bets = np.exp(self._log_wealth + self._log_stakes - top[..., None]).sum(axis=-1)
        with np.errstate(divide="ignore"):
            return cast("Floats", np.log(bets + np.exp(self._log_kept - top)) + top)

    def ticks_needed(self, expected: Tick, log_needed: Floats) -> Floats:
        """In how many ticks as the `expected` one each process is at `log_needed`, (..., K); infinite if never.

        By the best of its bets alone, so it is a little too long.
        """
        growth = expected.bad[..., None] * self._log_psi
        growth -= expected.trials[..., None] * np.log1p(expected.share[..., None] * self._gain)
        missing = np.maximum(log_needed[..., None] - self._log_stakes - self._log_wealth, 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # more ticks than a number says are never
            needed = np.where(growth > 0, missing / growth, np.inf)
        return cast("Floats", needed.min(axis=-1))

    def state(self) -> JsonObject:
        """What `restore` takes; exact."""
        return {"begun": self._begun, "kept": to_json(self._log_kept), "wealth": to_json(self._log_wealth)}

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid when it is of other processes."""
        self._log_wealth = from_json(state, "wealth", self._log_wealth.shape, largest=LOG_WEALTH_MAX)
        self._log_kept = from_json(state, "kept", self._log_kept.shape, largest=0.0)
        self._begun = whole(state, "begun")
