"""Tells those who wait in this process that a Run moved; a hint only, the table is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Signals:
    """Wakes waiters by Run number. A waiter that missed a signal finds out at its next look at the table."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[asyncio.Event]] = defaultdict(set)

    def moved(self, number: int) -> None:
        """A Run changed its state or printed something."""
        for event in self._waiting.get(number, ()):
            event.set()

    async def wait(self, number: int, timeout_seconds: float) -> None:
        """Return when the Run moved, or when the time is over."""
        event = asyncio.Event()
        self._waiting[number].add(event)
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[number].discard(event)
            if not self._waiting[number]:
                del self._waiting[number]
