"""Between which bounds the ratio of two shares lies, at all times together with one probability."""

from __future__ import annotations

import numpy as np

from interlock.core.model import JsonObject
from interlock.releases.judge.processes import BETTER, BETTER_STAKES, WORSE, WORSE_STAKES, EProcesses, Tick
from interlock.releases.judge.state import from_json, part, to_json

RATIOS = np.geomspace(1 / 32, 128, 49)
"""Each is asked about; neighbours are 19 % apart."""


class RatioInterval:
    """A confidence sequence: all ratios that no bet has refuted, looked at after every tick.

    Two bets are made against each ratio, that the true one is greater and that it is less, each refuting at 2/alpha.
    A bet refutes the true ratio with a probability of at most alpha/2, so the interval misses it, ever, with at most
    alpha. What is once refuted stays so.
    """

    def __init__(self, alpha: float) -> None:
        self._log_needed = np.log(2 / alpha)
        count = len(RATIOS)
        psi = np.concatenate([np.tile(WORSE, (count, 1)), np.tile(BETTER, (count, 1))])
        stakes = np.concatenate([np.tile(WORSE_STAKES, (count, 1)), np.tile(BETTER_STAKES, (count, 1))])
        self._ratios = np.concatenate([RATIOS, RATIOS])
        self._processes = EProcesses(psi, stakes, np.ones(2 * count))
        self._processes.begin()
        self._refuted = np.zeros(2 * count)
        self._bounds: tuple[float | None, float | None] = (None, None)

    def tick(self, *, stable_bad: float, stable_seen: float, candidate_bad: float, candidate_seen: float) -> None:
        """Take one tick's counts."""
        if stable_bad + candidate_bad == 0:
            return  # without an event every bet stands as it stood
        allowed = self._ratios * candidate_seen
        bets = np.ones_like(allowed)
        self._processes.tick(
            Tick(
                bad=candidate_bad * bets,
                trials=(candidate_bad + stable_bad) * bets,
                share=allowed / np.maximum(allowed + stable_seen, np.finfo(float).tiny),
            )
        )
        refuted = self._processes.log_evidence() >= self._log_needed
        if np.any(refuted > self._refuted):
            self._refuted = np.maximum(self._refuted, refuted)
            self._bounds = self._least_and_greatest()

    def bounds(self) -> tuple[float | None, float | None]:
        """The least and the greatest ratio that is not refuted; None where there is no bound."""
        return self._bounds

    def _least_and_greatest(self) -> tuple[float | None, float | None]:
        too_small, too_great = np.split(self._refuted > 0, 2)
        low = float(RATIOS[too_small].max()) if too_small.any() else None
        high = float(RATIOS[too_great].min()) if too_great.any() else None
        return low, high

    def state(self) -> JsonObject:
        """What `restore` takes; exact."""
        return {"processes": self._processes.state(), "refuted": to_json(self._refuted)}

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        self._processes.restore(part(state, "processes"))
        self._refuted = from_json(state, "refuted", self._refuted.shape, largest=1.0)
        self._bounds = self._least_and_greatest()
