"""Counts what is written of Runs, where it is written."""

from __future__ import annotations

import json
from datetime import datetime

from interlock.core.evidence import Evidence
from interlock.core.meter import Meter, Unmetered
from interlock.core.run import Run, RunState
from interlock.engine.metrics import EVIDENCE, QUEUE_SECONDS, RUN_SECONDS, RUNS_CLOSED, RUNS_UNRESOLVED


class Tally:
    """Told of every change of a Run's row once it is made.

    Args:
        meter: Counts; None counts nothing.
        lease_seconds: How long a lease is from its claim.
    """

    def __init__(self, meter: Meter | None, lease_seconds: float) -> None:
        self._meter: Meter = meter if meter is not None else Unmetered()
        self._lease_seconds = lease_seconds

    def recorded(self, run: Run, rows: int) -> Run:
        """The Run, of which so many rows of evidence were written with its record."""
        self._stands(run, rows)
        if run.state is RunState.RUNNING:
            self.claimed(run)
        return run

    def claimed(self, run: Run) -> None:
        """A worker took it."""
        self._meter.observe(QUEUE_SECONDS, waited_seconds(run, self._lease_seconds))

    def left(self, run: Run, rows: int) -> Run:
        """The Run, as its worker left it."""
        self._stands(run, rows)
        return run

    def moved(self, run: Run, state: RunState, rows: tuple[Evidence, ...]) -> None:
        """Somebody changed a Run that nobody held, and has yet to commit: where that fails one is counted too many."""
        closed_at = json.loads(rows[-1].line)["at"] if rows and state.is_final else None
        moved = {"state": state, "closed_at": closed_at and datetime.fromisoformat(closed_at)}
        self._stands(run.model_copy(update=moved), len(rows))

    def appended(self, rows: int) -> None:
        """Rows of evidence."""
        self._meter.count(EVIDENCE, by=rows)

    def _stands(self, run: Run, rows: int) -> None:
        self.appended(rows)
        if run.closed_at is not None and run.state.is_final:
            self._meter.count(RUNS_CLOSED, run.action, run.state.value)
            self._meter.observe(RUN_SECONDS, (run.closed_at - run.created_at).total_seconds(), run.action)
        elif run.state is RunState.UNRESOLVED:
            self._meter.count(RUNS_UNRESOLVED, run.action)


def waited_seconds(run: Run, lease_seconds: float) -> float:
    """From being due to its claim, both by the database's clock."""
    if run.lease_until is None:
        return 0.0
    return max(0.0, (run.lease_until - run.due_at).total_seconds() - lease_seconds)
