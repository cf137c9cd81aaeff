"""Whether changes are allowed at a moment, by the weekly windows of a project; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from interlock.core.project import Window

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON_DAYS = 14
"""How far ahead boundaries are looked for: every weekly window opens at least once in it, whatever the clocks do."""

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class WindowState:
    """How the windows stand during [since, until).

    `blocking` are the names of the `changes: block` windows that are open; `outside` is True when `changes: allow`
    windows are declared and none is open.
    """

    blocking: tuple[str, ...]
    outside: bool
    since: datetime
    until: datetime

    @property
    def open(self) -> bool:
        """Whether the windows stand in the way of no change."""
        return not self.blocking and not self.outside


def spans(window: Window, first: date, days: int) -> list[tuple[datetime, datetime]]:
    """The UTC spans [start, end) of a window whose starting day lies in `days` local days from `first`.

    `to` at or before `from` ends on the next day. Where a clock change makes a local time ambiguous or skips it, the
    reading is taken that allows fewer changes: a blocking window is as long as it can be, an allowing one as short.
    """
    zone = ZoneInfo(window.timezone)
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    widen = window.changes == "block"
    found = []
    for day in (first + timedelta(days=index) for index in range(days)):
        if WEEKDAYS[day.weekday()] not in window.days:
            continue
        starts = _readings(datetime.combine(day, start), zone)
        ends = _readings(datetime.combine(day if start < end else day + _DAY, end), zone)
        span = (min(starts), max(ends)) if widen else (max(starts), min(ends))
        if span[0] < span[1]:
            found.append(span)
    return found


def state_at(windows: Sequence[Window], now: datetime) -> WindowState:
    """How the windows stand at `now` (timezone-aware), and until when nothing about that changes."""
    return _state(_around(windows, now), now.astimezone(UTC))


def next_change_time(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The first moment from `now` on at which windows let changes happen; None when there is none in `HORIZON_DAYS`."""
    now = now.astimezone(UTC)
    around = _around(windows, now)
    limit = now + timedelta(days=HORIZON_DAYS)
    boundaries = {moment for _, found in around for span in found for moment in span if now < moment <= limit}
    return next((moment for moment in (now, *sorted(boundaries)) if _state(around, moment).open), None)


class Calendar:
    """The windows of one project. Remembers the last answer for as long as it holds, since most asks come close
    together and clock arithmetic would cost as much as the decision itself."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = tuple(windows)
        self._last: WindowState | None = None

    def at(self, now: datetime) -> WindowState:
        """`state_at` for these windows."""
        last = self._last
        if last is None or not last.since <= now < last.until:
            last = state_at(self.windows, now)
            self._last = last
        return last


def _around(windows: Sequence[Window], now: datetime) -> list[tuple[Window, list[tuple[datetime, datetime]]]]:
    """Every window with all its spans that touch the time from a day before `now` until a day after the horizon.

    Zones are up to 14 hours off UTC and a span lasts up to a day (and an hour): hence three days more at each end.
    """
    first = (now.astimezone(UTC) - 3 * _DAY).date()
    return [(window, spans(window, first, HORIZON_DAYS + 6)) for window in windows]


def _state(around: list[tuple[Window, list[tuple[datetime, datetime]]]], now: datetime) -> WindowState:
    blocking: set[str] = set()
    allow_declared = allowed = False
    since, until = now - _DAY, now + _DAY
    for window, found in around:
        is_open = any(start <= now < end for start, end in found)
        if window.changes == "allow":
            allow_declared = True
            allowed = allowed or is_open
        elif is_open:
            blocking.add(window.name)
        for boundary in (moment for span in found for moment in span):
            if boundary <= now:
                since = max(since, boundary)
            else:
                until = min(until, boundary)
    return WindowState(
        blocking=tuple(sorted(blocking)), outside=allow_declared and not allowed, since=since, until=until
    )


def _readings(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """The instants a local time may stand for: two where the clock is set back, and two guesses where it skips (PEP
    495: with and without the shift)."""
    return [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
