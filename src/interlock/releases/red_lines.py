"""Hard failures, seen at once and without statistics: errors in a row, and probes that fail in a row; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from interlock.core.traffic import Sample

SERVER_ERROR = 500


def is_error(sample: Sample) -> bool:
    """Whether a version failed to answer. That a client left is no fault of the version."""
    return not sample.client_left and (sample.status == 0 or sample.status >= SERVER_ERROR)


@dataclass(frozen=True)
class Crossed:
    """A red line that was crossed, and when the first failure of the row was seen (seconds since 1970)."""

    words: str
    first_seconds: float
    count: int


class Burst:
    """Answers in a row that are errors, with none between them that is not.

    Where the stable version fails in a row as well, something else is broken: going back would help nobody, so nothing
    is said until one of the two answers well.
    """

    def __init__(self, stable: str | None, candidate: str, errors: int) -> None:
        self._stable = stable
        self._candidate = candidate
        self._errors = errors
        self._row = 0
        self._first_seconds = 0.0
        self._stable_row = 0

    def feed(self, samples: Iterable[Sample]) -> Crossed | None:
        """Take note of attempts, oldest first."""
        for sample in samples:
            if sample.client_left:
                continue
            failed = is_error(sample)
            if sample.arm == self._stable:
                self._stable_row = self._stable_row + 1 if failed else 0
            elif sample.arm == self._candidate:
                if failed and self._row == 0:
                    self._first_seconds = sample.at_seconds
                self._row = self._row + 1 if failed else 0
            if self._row >= self._errors > self._stable_row:
                words = f"{self._row} answers of {self._candidate} in a row were errors"
                return Crossed(words, self._first_seconds, self._row)
        return None


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
        words = f"{self._row} health checks of {self._candidate} in a row failed: {failure}"
        return Crossed(words, self._first_seconds, self._row)
