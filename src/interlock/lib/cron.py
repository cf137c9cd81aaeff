"""Cron expressions in a time zone: which instants they name, also where the clocks are turned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

FIELDS = 5
CHARACTERS_MAX = 200
_RANGE_OF_ONE = re.compile(r"(?:^|[\s,])0*(\w+)-0*\1/", re.IGNORECASE)
"""`5-5/10`: the library reads it as `5/10`, cron as `5`; nobody means either."""
_BEGIN = datetime(2000, 1, 1, tzinfo=UTC)


def zone_of(name: str) -> ZoneInfo:
    """The time zone. Raises ValueError when this machine knows none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"there is no timezone {name!r} on this machine; use a name such as Europe/Berlin, or UTC"
        raise ValueError(msg) from error


class Cron:
    """A five-field expression (minute hour day month weekday) as Debian's cron reads it, in one time zone.

    Where the clocks are turned, it depends on whether minute and hour are given or begin with `*`:

    - both given (`30 2 * * *`): the job belongs to the wall clock. A time that is left out in spring comes at the first
      moment after the gap; a time that comes twice in autumn counts the first time only.
    - otherwise (`*/15 * * * *`, `*/5 2 * * *`): the job belongs to the time that passes. What is left out does not
      come, what comes twice comes twice.

    Args:
        expression: Five fields. Names of months and weekdays, ranges, steps, lists, `L`, `LW` and `MON#2` are known.
        timezone: An IANA name.

    Raises:
        ValueError: It is no such expression, never comes true, or there is no such time zone.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self.expression = expression
        self.zone = zone_of(timezone)
        if len(expression) > CHARACTERS_MAX or len(expression.split()) != FIELDS:
            msg = f"{expression[:CHARACTERS_MAX]!r} is not five fields: minute hour day-of-month month day-of-week"
            raise ValueError(msg)
        if _RANGE_OF_ONE.search(expression):
            msg = f"{expression!r} has a range of one value with a step; write the value alone, or VALUE/STEP"
            raise ValueError(msg)
        try:
            first = next(CronSim(expression, _BEGIN), None)
        except (CronSimError, AssertionError) as error:
            msg = f"{expression!r} is no cron expression: {str(error) or 'it cannot be read'}"
            raise ValueError(msg) from error
        if first is None:
            msg = f"{expression!r} never comes true"
            raise ValueError(msg)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The instants after a moment (which is not among them), ascending, each once, in UTC."""
        last = moment.astimezone(UTC)
        for found in CronSim(self.expression, last.astimezone(self.zone)):
            instant = found.astimezone(UTC)
            # From within the hour that comes twice the library begins anew at its first pass, and two times that are
            # left out come at the same moment after the gap.
            if instant > last:
                last = instant
                yield instant

    def next_after(self, moment: datetime) -> datetime | None:
        """The first instant after a moment; None when none follows within fifty years."""
        return next(islice(self.after(moment), 1), None)


def exclusive(moment: datetime) -> datetime:
    """What to look after so that `moment` itself may be found."""
    return moment - timedelta(microseconds=1)
