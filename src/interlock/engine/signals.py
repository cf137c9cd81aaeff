"""Tells those who wait in this process that a Run moved; a hint only, the table is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """Wakes waiters by Run number. A waiter that missed a signal finds out at its next look at the table."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[asyncio.Event]] = defaultdict(set)

    def moved(self, number: int) -> None:
        """A Run changed its state or printed something."""
        for event in self._waiting.get(number, ()):
            event.set()

    @contextmanager
    def watch(self, number: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever the Run moves; who clears it and then looks misses nothing."""
        event = asyncio.Event()
        self._waiting[number].add(event)
        try:
            yield event
        finally:
            self._waiting[number].discard(event)
            if not self._waiting[number]:
                del self._waiting[number]

    async def wait(self, number: int, timeout_seconds: float) -> None:
        """Return when the Run moved, or when the time is over."""
        with self.watch(number) as moved:
            await set_within(moved, timeout_seconds)


async def set_within(event: asyncio.Event, timeout_seconds: float) -> bool:
    """Whether the event was set before the time was over."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await event.wait()
    except TimeoutError:
        return False
