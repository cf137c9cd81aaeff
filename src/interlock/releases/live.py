"""What is known of a release on its way besides its row: the judge's last words, red lines, silence; in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from interlock.core.judgement import Judgement
from interlock.core.model import JsonObject
from interlock.engine.signals import set_within
from interlock.releases.model import Release

UNWATCHED_SECONDS = 10.0
"""Of a watcher that says nothing for so long nobody knows that it still looks."""
PROVEN_SECONDS = 8.0
"""A watch that failed before is one again after so long without: what fails every few seconds sees nothing."""


@dataclass
class Live:
    """Written by who watches, read by who drives; both live in one loop.

    `epoch` is the one that `requests` were counted in. `heard_seconds`: how long the candidate answered since that was
    last written down, and `heard_at` (monotonic seconds) when it did so last. `attended_at` (monotonic seconds): when
    the watcher last had looked, judged and written it down; `watch_fault`: why it does not. `retry_at` (monotonic
    seconds): no effect is asked for anew before. `moved`: look at the row now. `changed` counts what is new for those
    who follow it, and `told` is set then.
    """

    epoch: int = -1
    judgement: Judgement | None = None
    red_line: str | None = None
    evidence: JsonObject = field(default_factory=dict)
    quiet_seconds: float = 0.0
    requests: int = 0
    heard_seconds: float = 0.0
    heard_at: float | None = None
    attended_at: float | None = None
    watch_fault: str | None = None
    retry_at: float = 0.0
    changed: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Something is new for whoever follows it."""
        self.changed += 1
        self.told.set()
        self.told = asyncio.Event()

    def begin(self, release: Release) -> None:
        """Count anew where the release has come to another place."""
        if release.epoch != self.epoch:
            self.epoch = release.epoch
            self.requests = 0
            self.retry_at = 0.0
            self.hear_anew()

    def hear(self, now: float, gap_seconds_max: float) -> None:
        """The candidate answered. The time since it did so before counts, up to that bound; silence that no answer ends
        never does."""
        if self.heard_at is not None:
            self.heard_seconds += min(max(0.0, now - self.heard_at), gap_seconds_max)
        self.heard_at = now

    def hear_anew(self) -> None:
        """What was heard until now does not count any more."""
        self.heard_seconds, self.heard_at = 0.0, None

    def attend(self, now: float, begun_at: float) -> None:
        """The watcher looked, judged and wrote it down, in a watch that goes on since `begun_at`."""
        if self.watch_fault is None or now - begun_at >= PROVEN_SECONDS:
            self.attended_at, self.watch_fault = now, None

    def leave(self, why: str) -> None:
        """The watch failed: from now on nobody looks."""
        self.attended_at, self.watch_fault = None, why

    def attended(self, now: float) -> bool:
        """Whether somebody watches."""
        return self.attended_at is not None and now - self.attended_at <= UNWATCHED_SECONDS

    def unwatched(self, now: float) -> str | None:
        """Why nobody watches; None while somebody does, and while the watch only begins."""
        if self.watch_fault is None and self.attended_at is not None and not self.attended(now):
            return f"the watcher said nothing for {now - self.attended_at:.0f} s"
        return self.watch_fault

    @property
    def words(self) -> str:
        """What the judge says, in one line."""
        return self.judgement.summary if self.judgement is not None else ""


class LiveReleases:
    """All that are on their way in this process."""

    def __init__(self) -> None:
        self._live: dict[int, Live] = {}
        self._anything = asyncio.Event()

    def of(self, number: int) -> Live:
        """What is known of one."""
        return self._live.setdefault(number, Live())

    def find(self, number: int) -> Live | None:
        """The same, without beginning to know one."""
        return self._live.get(number)

    def forget(self, number: int) -> None:
        """It is over."""
        self._live.pop(number, None)

    def moved(self, number: int) -> None:
        """Its row was changed: whoever sleeps looks now."""
        self.of(number).moved.set()
        self._anything.set()

    async def any_moved(self, seconds: float) -> None:
        """Wait until one was moved, or for so long."""
        if await set_within(self._anything, seconds):
            self._anything.clear()
