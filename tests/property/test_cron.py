"""Cron instants against an oracle that looks at every minute, above all where the clocks are turned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interlock.lib.cron import Cron, exclusive

# Turned by an hour, by half an hour, at midnight, not at all; east, west, and over the date line.
ZONES = (
    "UTC",
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Pacific/Auckland",
    "Asia/Kathmandu",
)
MINUTE = timedelta(minutes=1)
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
# Around the days on which one of them is turned, and some others.
BEGINNINGS = (
    datetime(2026, 3, 28, 18, tzinfo=UTC),
    datetime(2026, 10, 24, 18, tzinfo=UTC),
    datetime(2026, 3, 7, 18, tzinfo=UTC),
    datetime(2026, 10, 31, 18, tzinfo=UTC),
    datetime(2018, 11, 3, 12, tzinfo=UTC),
    datetime(2018, 2, 17, 12, tzinfo=UTC),
    datetime(2026, 4, 4, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 6, tzinfo=UTC),
    datetime(2026, 4, 23, 12, tzinfo=UTC),
    datetime(2024, 2, 28, 3, tzinfo=UTC),
    datetime(2026, 12, 31, 3, tzinfo=UTC),
)


def values(field: str, low: int, high: int) -> set[int]:
    """What one field allows, read anew."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = int(first)
            end = int(last) if last else (high if step else begin)
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def matches(expression: str, wall: datetime) -> bool:
    """Whether a wall-clock minute is named: day and weekday are both asked for only where one begins with *."""
    fields = expression.split()
    minute, hour, day, month, weekday = (values(field, *bounds) for field, bounds in zip(fields, BOUNDS, strict=True))
    on_day, on_weekday = wall.day in day, bool({wall.isoweekday(), wall.isoweekday() % 7} & weekday)
    both = fields[2].startswith("*") or fields[4].startswith("*")
    fits = (on_day and on_weekday) if both else (on_day or on_weekday)
    return wall.minute in minute and wall.hour in hour and wall.month in month and fits


def oracle(expression: str, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """Every instant in (after, until], minute by minute."""
    fields = expression.split()
    fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
    found: set[datetime] = set()
    if not fixed:
        moment = after.replace(second=0, microsecond=0)
        while moment <= until:
            local = moment.astimezone(zone)
            if local.second == 0 and matches(expression, local):
                found.add(moment)
            moment += MINUTE
    else:
        wall = after.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - timedelta(hours=3)
        while wall <= until.astimezone(zone).replace(tzinfo=None) + timedelta(hours=3):
            if matches(expression, wall):
                found.add(_real(wall, zone))
            wall += MINUTE
    return sorted(moment for moment in found if after < moment <= until)


def _real(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a wall-clock time is: its first pass, or the first moment after the gap in which it would lie."""
    while True:
        moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += MINUTE


def field(low: int, high: int, *, starred: bool = True) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    wide = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    stepped = st.tuples(wide.map(lambda pair: f"{min(pair)}-{max(pair)}"), st.integers(1, high)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    plain = st.one_of(number.map(str), span, stepped, st.lists(number, min_size=2, max_size=4).map(_listed))
    every = st.one_of(st.just("*"), st.integers(2, 30).map(lambda step: f"*/{step}"))
    return st.one_of(plain, every) if starred else plain


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


TIMES = st.one_of(
    st.tuples(field(0, 59), field(0, 23)),
    # The hours in which clocks are turned.
    st.tuples(field(0, 59, starred=False), st.sampled_from(["0", "1", "2", "3", "0-3", "1,2", "2-3"])),
)
DAYS = st.one_of(
    st.just(("*", "*", "*")),
    st.tuples(field(1, 28), st.just("*"), field(0, 7)),
)


@settings(max_examples=60, deadline=None)
@given(
    times=TIMES,
    days=DAYS,
    zone=st.sampled_from(ZONES),
    begin=st.sampled_from(BEGINNINGS),
    offset=st.integers(0, 20 * 3600),
)
@example(("30", "2"), ("*", "*", "*"), "Europe/Berlin", BEGINNINGS[0], 0)
@example(("30", "2"), ("*", "*", "*"), "Europe/Berlin", BEGINNINGS[1], 6 * 3600 + 1800)
@example(("0,30", "2"), ("*", "*", "*"), "America/New_York", BEGINNINGS[2], 0)
@example(("15", "2"), ("*", "*", "*"), "Asia/Shanghai", BEGINNINGS[0], 0)
@example(("0", "0"), ("*", "*", "*"), "America/Sao_Paulo", BEGINNINGS[4], 0)
@example(("*/10", "1"), ("*", "*", "*"), "Australia/Lord_Howe", BEGINNINGS[6], 0)
def test_the_instants_are_those_that_a_look_at_every_minute_finds(
    times: tuple[str, str], days: tuple[str, str, str], zone: str, begin: datetime, offset: int
) -> None:
    expression = " ".join((*times, *days))
    after = begin + timedelta(seconds=offset)
    until = after + timedelta(hours=40)
    found = list(takewhile(lambda instant: instant <= until, Cron(expression, zone).after(after)))
    assert found == oracle(expression, ZoneInfo(zone), after, until), (expression, zone, after)


@settings(max_examples=40, deadline=None)
@given(times=TIMES, zone=st.sampled_from(ZONES), begin=st.sampled_from(BEGINNINGS), cut=st.integers(0, 40 * 3600))
def test_going_on_from_any_moment_finds_the_same(times: tuple[str, str], zone: str, begin: datetime, cut: int) -> None:
    """Whoever stops and goes on later neither loses nor doubles an instant."""
    cron, until, middle = Cron(f"{times[0]} {times[1]} * * *", zone), begin + timedelta(hours=40), begin
    middle += timedelta(seconds=cut)

    def between(first: datetime, last: datetime) -> list[datetime]:
        return list(takewhile(lambda instant: instant <= last, cron.after(first)))

    assert between(begin, middle) + between(middle, until) == between(begin, until)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["2026-10-25T00:30Z", "2026-10-25T01:00Z"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T23:00Z", ["2026-03-30T00:00Z", "2026-03-30T00:30Z"]),
        ("15 2 * * *", "Asia/Shanghai", "2026-11-20T00:00Z", ["2026-11-20T18:15Z", "2026-11-21T18:15Z"]),
        ("0 9 * * MON#1", "UTC", "2026-11-20T00:00Z", ["2026-12-07T09:00Z", "2027-01-04T09:00Z"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
    ],
)
def test_known_instants(expression: str, zone: str, after: str, expected: list[str]) -> None:
    found = Cron(expression, zone).after(datetime.fromisoformat(after))
    assert [next(found) for _ in expected] == [datetime.fromisoformat(text) for text in expected]


def test_an_instant_is_found_from_right_before_it() -> None:
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    cron = Cron("0 12 * * *", "UTC")
    assert cron.next_after(exclusive(noon)) == noon
    assert cron.next_after(noon) == noon + timedelta(days=1)


WRONG = """
* * * *
* * * * * *
60 * * * *
* 24 * * *
* * 0 * *
* * 31 2 *
0 0 31 4 *
*/0 * * * *
@daily
a b c d e
1-0 * * * *
L/2 * * * *
٣ * * * *
1,, * * * *
5-5/10 * * * *
* 1,07-7/2 * * *"""


@pytest.mark.parametrize("expression", [*WRONG.splitlines(), "* " * 300])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not five fields|range of one|no cron expression|never comes true"):
        Cron(expression, "UTC")


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "\0", "UTC\n"])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="no timezone"):
        Cron("* * * * *", zone)
