"""Errors of a candidate that all users have: there is nobody left to compare with but the past."""

from __future__ import annotations

import math

import numpy as np

from interlock.core.model import JsonObject
from interlock.releases.judge.processes import WORSE, WORSE_STAKES, EProcesses, Tick
from interlock.releases.judge.state import number, part

SILENCE_SECONDS = 15.0
"""From when on the stable version counts as silent."""
ALONE_MIN = 100
"""And so many users of the candidate must have come since, so that thin traffic is no silence."""
REFERENCE_MIN = 200
"""So many users of the stable version must have been seen before it is a reference."""
HARMLESS_FACTOR = 10
"""Below so many times the share that is harmless nothing is held against the candidate."""


class Alone:
    """Bets that the candidate's users meet more errors than `ratio` times what the stable version's met.

    The reference is what the stable version's share can have been at most (three standard deviations of what was
    counted), so the claim is about a fixed number: an incident that would have hit the stable version as well is held
    against the candidate, which no comparison with the past can avoid. It bets only while the stable version is silent.

    Args:
        ratio: So many times as many are allowed.
        harmless: Which share of users meeting an error in a tick is harmless.
        alpha: The probability of sending back a version that stays below the reference.
    """

    def __init__(self, *, ratio: float, harmless: float, alpha: float) -> None:
        self._ratio = ratio
        self._harmless = harmless
        self.log_needed = -math.log(alpha)
        self._process = EProcesses(WORSE[None, :], WORSE_STAKES[None, :], np.ones(1))
        self._process.begin()
        self.limit: float | None = None
        """The greatest share that is allowed; None while nothing is known of the stable version."""
        self.bad = 0.0
        self.seen = 0.0
        self._since = 0.0
        """How many users of the candidate came since the last one of the stable version."""

    def tick(
        self,
        *,
        stable_bad: float,
        stable_seen: float,
        silent_seconds: float,
        candidate_bad: float,
        candidate_seen: float,
    ) -> None:
        """Take one tick's counts of the candidate; of the stable version all that was counted until then."""
        before = self._since
        self._since = before + candidate_seen if silent_seconds else 0.0
        if silent_seconds < SILENCE_SECONDS or min(before / ALONE_MIN, stable_seen / REFERENCE_MIN) < 1:
            return
        if not candidate_seen:
            return
        greatest = (stable_bad + 3 * math.sqrt(stable_bad + 1)) / stable_seen
        limit = min(max(self._ratio * greatest, HARMLESS_FACTOR * self._harmless), 0.5)
        self.limit = limit
        self.bad += candidate_bad
        self.seen += candidate_seen
        self._process.tick(
            Tick(bad=np.array([candidate_bad]), trials=np.array([candidate_seen]), share=np.array([limit]))
        )

    @property
    def log_evidence(self) -> float:
        """That the candidate is above the limit."""
        return float(self._process.log_evidence()[0])

    def state(self) -> JsonObject:
        """What `restore` takes; exact."""
        return {
            "process": self._process.state(),
            "limit": self.limit,
            "bad": self.bad,
            "seen": self.seen,
            "since": self._since,
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        self._process.restore(part(state, "process"))
        self.limit = None if state.get("limit") is None else number(state, "limit")
        self.bad, self.seen = number(state, "bad"), number(state, "seen")
        self._since = number(state, "since")
