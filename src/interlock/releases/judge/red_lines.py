"""Red lines: what sends a release back at once, without weighing evidence and outside its budget of false alarms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from interlock.core.traffic import Sample
from interlock.releases.judge.counting import is_error

CHANCE_MAX = 1e-9
"""A burst counts when the stable version's own errors would make one so rarely."""
BURST_MAX = 200
"""However often the stable version fails, so many errors in a row are enough."""
ONE_USER_FACTOR = 3
"""A burst of one user alone, who may be what is broken, must be so many times as long."""


@dataclass(frozen=True)
class Crossed:
    """A red line that was crossed, in words, and when the first failure was seen (seconds since 1970)."""

    words: str
    first_seconds: float
    count: int


class Burst:
    """The candidate's errors in a row, with no good answer of it in between.

    It takes `errors` of them from more than one user, three times as many from one, and more where the stable version
    fails often itself; attempts of one request are one. When the stable version is in a burst of its own, both share
    the trouble: going back would help nobody.
    """

    def __init__(self, stable: str | None, candidate: str, errors: int) -> None:
        self._stable = stable
        self._candidate = candidate
        self._errors = errors
        self._row = 0
        self._request = ""
        self._units: set[str] = set()
        self._first_seconds = 0.0
        self._stable_row = 0
        self._stable_errors = 0
        self._stable_seen = 0

    def feed(self, samples: Iterable[Sample]) -> Crossed | None:
        """Take note of attempts, oldest first."""
        for sample in samples:
            if sample.client_left:
                continue
            if sample.arm == self._candidate or (sample.fell_back and sample.arm == self._stable):
                self._take(sample)
            elif sample.arm == self._stable:
                self._stable_seen += 1
                self._stable_errors += is_error(sample)
                self._stable_row = self._stable_row + 1 if is_error(sample) else 0
            if self._row >= self._needed() and self._stable_row < self._errors:
                whose = {0: "users who are not known", 1: "one user"}.get(len(self._units), "several users")
                words = f"{self._row} requests in a row, of {whose}, were errors of {self._candidate}"
                return Crossed(words, self._first_seconds, self._row)
        return None

    def _take(self, sample: Sample) -> None:
        if not is_error(sample):
            self._row, self._request = 0, ""
            self._units.clear()
        elif not (sample.request and sample.request == self._request):
            if self._row == 0:
                self._first_seconds = sample.at_seconds
            self._row += 1
            self._request = sample.request
            if sample.unit and len(self._units) <= 1:
                self._units.add(sample.unit)

    def _needed(self) -> int:
        one_user = ONE_USER_FACTOR if len(self._units) == 1 else 1
        return one_user * burst_needed(self._errors, self._stable_errors, self._stable_seen)


def burst_needed(errors: int, stable_errors: int, stable_seen: int) -> int:
    """How many errors in a row the stable version's own rate would hardly ever make, and `errors` at least."""
    if not stable_errors:
        return errors
    share = min(stable_errors / stable_seen, 1 - 1e-9)
    by_chance = math.ceil(math.log(CHANCE_MAX) / math.log(share))
    return max(errors, min(by_chance, BURST_MAX))


class Probes:
    """Key checks of the candidate that fail in a row."""

    def __init__(self, candidate: str, failures: int) -> None:
        self._candidate = candidate
        self._failures = failures
        self._row = 0
        self._first_seconds = 0.0

    def feed(self, at_seconds: float, failure: str | None, *, stable_fails: bool) -> Crossed | None:
        """One check of both at the same time; `failure` says what was wrong with the candidate's answer."""
        if failure is None or stable_fails:
            self._row = 0
            return None
        if self._row == 0:
            self._first_seconds = at_seconds
        self._row += 1
        if self._row < self._failures:
            return None
        words = f"{self._row} key checks of {self._candidate} in a row failed: {failure}"
        return Crossed(words, self._first_seconds, self._row)


def after_reconciliation(at_seconds: float, difference: str | None) -> Crossed | None:
    """After totals were held against each other: one difference crosses the line."""
    return None if difference is None else Crossed(f"reconciliation failed: {difference}", at_seconds, 1)


def after_security_gate(at_seconds: float, refusal: str | None) -> Crossed | None:
    """After a security gate: one refusal crosses the line."""
    return None if refusal is None else Crossed(f"the security gate refused: {refusal}", at_seconds, 1)
