"""A worker's hold on one Run: the lease as this process knows it, and the processes that live under it."""

from __future__ import annotations

import threading
from typing import Protocol

from interlock.core.errors import Transient
from interlock.core.run import Run
from interlock.lib.clock import Clock


class LeasedProcess(Protocol):
    """A process tree that dies when its lease is not renewed."""

    def renew(self, deadline: float) -> None:
        """Live until `deadline`, on the clock that counts through suspend."""
        ...

    def kill(self) -> None:
        """End now."""
        ...


class Hold:
    """Shared between the event loop, which renews it, and the thread that has the effect, which asks it.

    `deadline` is on the clock that counts through suspend, and is earlier than the lease in the table: it was read
    before the renewal was sent.
    """

    def __init__(self, run: Run, deadline: float, clock: Clock) -> None:
        self.run = run
        self._clock = clock
        self._deadline = deadline
        self._processes: set[LeasedProcess] = set()
        self._lock = threading.Lock()
        self.cancelled_by = run.cancelled_by
        self.turned_back = False
        self.ended = False

    @property
    def deadline(self) -> float:
        """Until when this process may act, in seconds of the monotonic clock."""
        return self._deadline

    @property
    def cancelled(self) -> bool:
        """Whether what is under way shall end; the way back is not stopped by what led to it."""
        return self.cancelled_by is not None and not self.turned_back

    def turn_back(self) -> None:
        """From now on steps are taken back, which nobody cancels."""
        self.turned_back = True

    def require(self) -> None:
        """Raises Transient (nothing was sent) when the lease is over or the hold was ended."""
        if self.ended or self._clock.monotonic() >= self._deadline:
            msg = "this worker no longer holds the Run, so it did nothing"
            raise Transient(msg, code="lease.lost", effect_sent=False)

    def renew(self, deadline: float) -> None:
        """Act longer; processes are told at once."""
        with self._lock:
            self._deadline = deadline
            processes = list(self._processes)
        for process in processes:
            process.renew(deadline)

    @property
    def processes(self) -> int:
        """How many processes live under it."""
        return len(self._processes)

    def adopt(self, process: LeasedProcess) -> None:
        """A process that lives and dies with this hold."""
        with self._lock:
            self._processes.add(process)
            over = self.ended or self.cancelled
        if over:
            process.kill()

    def drop(self, process: LeasedProcess) -> None:
        """The process has ended."""
        with self._lock:
            self._processes.discard(process)

    def cancel(self, by: str) -> None:
        """Somebody asked for an end: kill what runs; the execution sees the name."""
        self.cancelled_by = by
        if self.cancelled:
            self._kill()

    def end(self) -> None:
        """The hold is over, whatever the reason: nothing may act under it any more."""
        self.ended = True
        self._kill()

    def _kill(self) -> None:
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            process.kill()
