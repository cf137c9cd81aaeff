"""Windows over midnight, at the edges of daylight saving, and for any hour: what is doubtful counts as closed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.project import Weekday, Window
from interlock.engine.policy.windows import WEEKDAYS, Calendar, next_change_time, spans, state_at

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca")
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


def _window(
    start: str,
    end: str,
    *,
    days: tuple[str, ...] = WEEKDAYS,
    zone: str = "UTC",
    changes: Literal["allow", "block"] = "block",
    name: str = "w",
) -> Window:
    return Window.model_validate(
        {"name": name, "days": days, "from": start, "to": end, "timezone": zone, "changes": changes}
    )


@st.composite
def _windows(draw: st.DrawFn) -> Window:
    clock = st.times().map(lambda time: f"{time:%H:%M}")
    return _window(
        draw(clock),
        draw(clock),
        days=tuple(draw(st.sets(st.sampled_from(WEEKDAYS), min_size=1))),
        zone=draw(st.sampled_from(ZONES)),
        changes=draw(st.sampled_from(("allow", "block"))),
        name=draw(st.sampled_from("abc")),
    )


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "blocked"),
    [
        ("2026-03-06T17:59:59", False),
        ("2026-03-06T18:00:00", True),
        ("2026-03-07T05:59:59", True),
        ("2026-03-07T06:00:00", False),
        ("2026-03-07T18:00:00", False),
    ],
)
def test_a_window_over_midnight_ends_on_the_next_morning(moment: str, *, blocked: bool) -> None:
    friday = _window("18:00", "06:00", days=("fri",))
    assert bool(state_at([friday], _utc(moment)).blocking) is blocked


def test_a_window_from_and_to_the_same_hour_lasts_a_day() -> None:
    monday = _window("00:00", "00:00", days=("mon",))
    ((start, end),) = spans(monday, date(2026, 3, 2), 1)
    assert end - start == timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "day", "start", "end", "first", "last"),
    [
        # 2026-03-29, Berlin: 02:00 becomes 03:00. A time in between may mean an hour earlier or later.
        ("block", date(2026, 3, 29), "02:30", "04:00", "2026-03-29T00:30", "2026-03-29T02:00"),
        ("allow", date(2026, 3, 29), "02:30", "04:00", "2026-03-29T01:30", "2026-03-29T02:00"),
        # 2026-10-25, Berlin: 03:00 becomes 02:00 again, so that 02:30 comes twice.
        ("block", date(2026, 10, 25), "02:30", "04:00", "2026-10-25T00:30", "2026-10-25T03:00"),
        ("allow", date(2026, 10, 25), "02:30", "04:00", "2026-10-25T01:30", "2026-10-25T03:00"),
        ("block", date(2026, 10, 25), "01:00", "02:30", "2026-10-24T23:00", "2026-10-25T01:30"),
        ("allow", date(2026, 10, 25), "01:00", "02:30", "2026-10-24T23:00", "2026-10-25T00:30"),
    ],
)
def test_where_clocks_change_the_reading_with_fewer_changes_counts(
    changes: Literal["allow", "block"], day: date, start: str, end: str, first: str, last: str
) -> None:
    window = _window(start, end, zone="Europe/Berlin", changes=changes)
    assert spans(window, day, 1) == [(_utc(first), _utc(last))]


def test_an_allowing_window_that_the_clock_skips_does_not_open() -> None:
    assert spans(_window("02:10", "02:50", zone="Europe/Berlin", changes="allow"), date(2026, 3, 29), 1) == []


@given(windows=st.lists(_windows(), max_size=4), now=MOMENTS, offset=st.integers(0, 999))
def test_nothing_changes_between_since_and_until(windows: list[Window], now: datetime, offset: int) -> None:
    state = state_at(windows, now)
    assert state.since <= now < state.until
    other = state_at(windows, state.since + (state.until - state.since) * (offset / 1000))
    assert (other.blocking, other.outside) == (state.blocking, state.outside)


@given(windows=st.lists(_windows(), max_size=4), moments=st.lists(MOMENTS, max_size=6))
def test_a_calendar_remembers_nothing_wrong(windows: list[Window], moments: list[datetime]) -> None:
    calendar = Calendar(windows)
    for moment in (each + timedelta(minutes=step) for each in moments for step in (0, 59, -59)):
        known, fresh = calendar.at(moment), state_at(windows, moment)
        assert (known.blocking, known.outside) == (fresh.blocking, fresh.outside)


@given(windows=st.lists(_windows(), max_size=3), now=MOMENTS)
def test_the_next_time_for_changes_is_open_and_nothing_before_it_is(windows: list[Window], now: datetime) -> None:
    found = next_change_time(windows, now)
    if found is None:
        assert not state_at(windows, now).open
        return
    assert state_at(windows, found).open
    between = [now + (found - now) * (index / 7) for index in range(7)]
    assert not any(state_at(windows, moment).open for moment in between if moment < found)


@given(window=_windows(), now=MOMENTS)
def test_away_from_clock_changes_a_window_is_what_the_wall_clock_says(window: Window, now: datetime) -> None:
    """A model that only looks at the wall clock; it holds wherever the offset is the same for two days around."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - the model's own

    local = now.astimezone(ZoneInfo(window.timezone))
    if any((local + timedelta(days=day)).utcoffset() != local.utcoffset() for day in (-2, -1, 1, 2)):
        return
    today = cast("Weekday", WEEKDAYS[local.weekday()])
    yesterday = cast("Weekday", WEEKDAYS[local.weekday() - 1])
    clock = f"{local:%H:%M}"
    if window.start < window.end:
        is_open = today in window.days and window.start <= clock < window.end
    else:
        is_open = (today in window.days and clock >= window.start) or (yesterday in window.days and clock < window.end)
    state = state_at([window], now)
    assert (bool(state.blocking) if window.changes == "block" else not state.outside) is is_open
