"""What is asked for at a time: a cron expression or one moment, and what happens when that could not be kept."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import OutsideKey
from interlock.lib.cron import Cron, zone_of

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["skip", "queue", "allow"]
BACKLOG_MAX = 100
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"


def _zone(name: str) -> str:
    zone_of(name)
    return name


Timezone = Annotated[str, AfterValidator(_zone)]
ScheduleName = Annotated[str, Field(pattern=NAME_PATTERN)]


class Schedule(Frozen):
    """An action that is asked for by the clock: at every instant of `cron`, or once, `at` a moment.

    Each instant is asked for once, through the door, as the service `as` (declared under `services`, whose roles
    count); without it as `service:schedule/NAME`, which has no role. What policy wants approved waits for a person.

    Args:
        action: The action's name.
        args: Its arguments.
        cron: Minute, hour, day of month, month, weekday. Where clocks are turned, a time that is left out comes right
            after the gap, and a time that comes twice counts once; with `*` in minute or hour, time that passes counts.
        at: One moment, with its offset: 2026-12-01T03:00:00+08:00.
        timezone: In which `cron` is read.
        start: No instant before it.
        end: No instant after it.
        jitter_seconds: Each instant is put off by up to so much, always by the same.
        grace_seconds: So late it may still be asked for; later it was missed.
        catch_up: What happens to missed instants: none is asked for, the last one, or all.
        overlap: What happens at an instant while an earlier one is not finished: it is left out, it waits, or both run.
        backlog_max: At most so many instants wait to be asked for.
        reason: Stands in each Run.
        timeout_seconds: Ends each Run after so long.
    """

    action: str = Field(min_length=1, max_length=100)
    args: JsonObject = {}
    cron: str | None = None
    at: AwareDatetime | None = None
    timezone: Timezone = "UTC"
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    jitter_seconds: int = Field(default=0, ge=0, le=3600)
    grace_seconds: int = Field(default=60, ge=1, le=24 * 3600)
    catch_up: CatchUp = "skip"
    overlap: Overlap = "skip"
    backlog_max: int = Field(default=10, ge=1, le=BACKLOG_MAX)
    service: str | None = Field(default=None, alias="as", min_length=1, max_length=64)
    reason: str | None = Field(default=None, max_length=500)
    timeout_seconds: float | None = Field(default=None, gt=0, le=24 * 3600)

    @model_validator(mode="after")
    def _one_timing(self) -> Self:
        if (self.cron is None) == (self.at is None):
            msg = "give either `cron` or `at`"
            raise ValueError(msg)
        if self.cron is not None:
            Cron(self.cron, self.timezone)
        if self.start is not None and self.end is not None and self.end < self.start:
            msg = "`end` lies before `start`"
            raise ValueError(msg)
        return self


class ScheduleState(Frozen):
    """What Actions may know of a schedule that stands in Interlock's own tables.

    `at` is the moment of a one-off; None for what interlock.yaml declares.
    """

    name: str
    one_off: bool
    at: datetime | None
    paused_by: str | None


class Schedules(Protocol):
    """The schedules of this installation, for an Action's own thread."""

    def find(self, name: str) -> ScheduleState | None:
        """A schedule that is declared, or a one-off that is not over; None where there is none."""
        ...


SCHEDULES: OutsideKey[Schedules] = OutsideKey("schedules")
