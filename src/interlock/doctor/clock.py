"""Judges the clock: against the monotonic one, against the database's, and whether time zones are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from interlock.doctor.model import Finding, doubtful, sound, wrong

SKEW_SECONDS_MAX = 30.0
SKEW_SECONDS_GOOD = 2.0
DRIFT_SECONDS_GOOD = 0.5
FUTURE_SECONDS_GOOD = 60.0

_SET = "timedatectl set-ntp true"
_WHY = "windows, schedules, approvals that expire and the times of the evidence go by this clock"


def judge_pace(wall_seconds: float, monotonic_seconds: float) -> Finding:
    """How far the clock went, and how far the one that cannot be set, over the same span."""
    jump = wall_seconds - monotonic_seconds
    if abs(jump) > DRIFT_SECONDS_GOOD:
        return doubtful("clock", f"the clock jumped by {jump:+.1f} s while it was looked at", _WHY, _SET)
    return sound("clock", "the clock goes evenly")


def judge_skew(database: datetime, before: datetime, after: datetime) -> Finding:
    """The database's time between two looks at our own; what the answer took is not counted against either."""
    middle = before + (after - before) / 2
    doubt = (after - before).total_seconds() / 2
    skew = (middle - database).total_seconds()
    text = f"this clock is {skew:+.2f} s from the database's"
    why = "leases and expiries are counted by the database's clock, windows and evidence by this one"
    if abs(skew) - doubt > SKEW_SECONDS_MAX:
        return wrong("clock", text, why, _SET)
    if abs(skew) - doubt > SKEW_SECONDS_GOOD:
        return doubtful("clock", text, why, _SET)
    return sound("clock", text)


def judge_future(now: datetime, written: Iterable[tuple[str, datetime]]) -> Iterator[Finding]:
    """What was written later than now: this clock was set back since."""
    for what, at in written:
        ahead = (at - now).total_seconds()
        if ahead > FUTURE_SECONDS_GOOD:
            yield doubtful(
                "clock", f"{what} was written {ahead:.0f} s in the future: the clock was set back", _WHY, _SET
            )


def judge_zones(names: Iterable[str]) -> Iterator[Finding]:
    """Whether the zones that windows and schedules name are known to this machine."""
    unknown = sorted({name for name in names if not _known(name)})
    for name in unknown:
        why = "a window or schedule in a zone that is not known counts at the wrong time, or never"
        yield wrong("clock", f"the time zone {name} is not known here", why, "apt-get install tzdata")
    if not unknown:
        yield sound("clock", "all time zones are known")


def modified_at(file: Path) -> tuple[str, datetime] | None:
    """When a file was written; None where there is none."""
    try:
        return str(file), datetime.fromtimestamp(file.stat().st_mtime, tz=ZoneInfo("UTC"))
    except FileNotFoundError:
        return None


def _known(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
