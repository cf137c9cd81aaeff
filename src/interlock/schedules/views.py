"""What can be read about schedules: where each stands, what became of its instants, and which come next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar
from zoneinfo import ZoneInfo

from pydantic import Field, JsonValue

from interlock.core.actor import Actor
from interlock.core.errors import NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.project import Project
from interlock.core.view import View
from interlock.engine.shapes import json_row
from interlock.lib.clock import Clock, rfc3339
from interlock.schedules.model import Standing, beginning, due_at, instants, next_instant, owner_of
from interlock.schedules.store import SHOWN_MAX, ScheduleStore

PREVIEW_MAX = 100


@dataclass(frozen=True)
class ScheduleDesk:
    """What these views read from."""

    store: ScheduleStore
    project: Callable[[], Project]
    clock: Clock


class SchedulesArgs(Frozen):
    """All of them, or one by its name with what became of its last instants."""

    name: str | None = Field(default=None, max_length=100)
    limit: int = Field(default=20, ge=1, le=SHOWN_MAX)


class PreviewArgs(Frozen):
    """One schedule, and how many of its next instants."""

    name: str = Field(max_length=100)
    count: int = Field(default=5, ge=1, le=PREVIEW_MAX)


class SchedulesView(View):
    """Where each stands."""

    name: ClassVar[str] = "schedules"
    summary: ClassVar[str] = "Schedules: when each asks next, what became of the last, what was missed, who paused it."
    discloses: ClassVar[Discloses] = "content"
    Args: ClassVar[type[Frozen]] = SchedulesArgs

    def __init__(self, desk: ScheduleDesk) -> None:
        self.desk = desk

    async def read(self, actor: Actor, args: SchedulesArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a name that is none."""
        desk, now = self.desk, self.desk.clock.now()
        found = await desk.store.standings(now, args.name)
        known, declared = {each.name for each in found}, desk.project().schedules
        wanted = declared if args.name is None else {args.name} & declared.keys()
        found += [beginning(name, declared[name], now) for name in wanted if name not in known]
        found.sort(key=lambda each: each.name)
        if args.name is not None and not found:
            msg = f"there is no schedule {args.name!r}"
            raise NotFound(msg, code="schedule.unknown", fix="interlock schedules list")
        answer: JsonObject = {"schedules": [self._shown(each) for each in found]}
        if args.name is not None:
            rows = await desk.store.history(args.name, args.limit)
            answer["instants"] = [json_row(row) for row in rows]
        return answer

    def _shown(self, standing: Standing) -> JsonObject:
        now, schedule = self.desk.clock.now(), standing.schedule
        owner = standing.actor or owner_of(self.desk.project(), standing.name, schedule.service)
        following = next_instant(schedule, max(standing.cursor_at, now)) if standing.declared else None
        paused: JsonValue = None
        if standing.paused(now):
            until = rfc3339(standing.paused_until) if standing.paused_until is not None else None
            paused = {"by": standing.paused_by, "reason": standing.paused_reason, "until": until}
        last: JsonValue = None
        if standing.last is not None:
            last = json_row({name: getattr(standing.last, name) for name in standing.last.__dataclass_fields__})
        return {
            "name": standing.name,
            "kind": "one-off" if standing.one_off else "declared",
            "declared": standing.declared,
            "action": schedule.action,
            "args": schedule.args,
            "cron": schedule.cron,
            "at": rfc3339(schedule.at) if schedule.at is not None else None,
            "timezone": schedule.timezone,
            "catch_up": schedule.catch_up,
            "overlap": schedule.overlap,
            "actor": owner.id,
            "next_at": rfc3339(following) if following is not None else None,
            "paused": paused,
            "missed": standing.missed,
            "last": last,
        }


class PreviewView(View):
    """What comes."""

    name: ClassVar[str] = "schedule_preview"
    summary: ClassVar[str] = "The next instants of a schedule, on its own wall clock, with their jitter."
    Args: ClassVar[type[Frozen]] = PreviewArgs

    def __init__(self, desk: ScheduleDesk) -> None:
        self.desk = desk

    async def read(self, actor: Actor, args: PreviewArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound."""
        now = self.desk.clock.now()
        declared = self.desk.project().schedules.get(args.name)
        found = [each.schedule for each in await self.desk.store.standings(now, args.name) if each.declared]
        schedule = declared or (found[0] if found else None)
        if schedule is None:
            msg = f"there is no schedule {args.name!r}"
            raise NotFound(msg, code="schedule.unknown", fix="interlock schedules list")
        zone = ZoneInfo(schedule.timezone)
        shown: list[JsonValue] = [
            {
                "instant": rfc3339(instant),
                "due_at": rfc3339(due_at(args.name, schedule, instant)),
                "local": instant.astimezone(zone).isoformat(),
            }
            for instant in islice(instants(schedule, now), args.count)
        ]
        return {"name": args.name, "timezone": schedule.timezone, "instants": shown}
