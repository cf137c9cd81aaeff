"""Looks for schedules that would fail when their time comes, for `interlock check`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from interlock.core.action import Action
from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.schedule import Schedule
from interlock.engine.catalog import Catalog
from interlock.engine.inspection import finding
from interlock.engine.planner import validate
from interlock.schedules.model import next_instant


def inspect_schedules(project: Project, catalog: Catalog, now: datetime) -> Iterable[JsonObject]:
    """Plans what each schedule asks for, as the world is now; nothing is recorded."""
    sound = 0
    for name, schedule in project.schedules.items():
        try:
            _plan(catalog.action(schedule.action), schedule)
        except InterlockError as error:
            message = f"schedules.{name}: what it asks for cannot be planned: {error.message}"
            yield finding("error", "schedules", message, error.fix)
            continue
        sound += 1
        if next_instant(schedule, now) is None:
            yield finding("warning", "schedules", f"schedules.{name}: nothing of it lies ahead", "remove it")
    if sound:
        yield finding("ok", "schedules", f"what {sound} schedules ask for can be planned")


def _plan(action: Action, schedule: Schedule) -> None:
    args = validate(action.Args, schedule.args, schedule.action)
    action.plan(args, action.read_facts(args))
