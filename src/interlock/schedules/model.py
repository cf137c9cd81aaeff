"""A schedule with where it stands, the instants that wait, and what it asks for at one of them; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.errors import Denied
from interlock.core.project import Agent, Person, Project, Service
from interlock.core.schedule import Schedule
from interlock.lib.canonical import digest_of
from interlock.lib.clock import rfc3339
from interlock.lib.cron import Cron, exclusive

InstantState = Literal["due", "queued", "submitted", "succeeded", "failed", "denied", "missed", "skipped", "cancelled"]
"""`due`: known, not yet asked for. `queued`: waits for an earlier one to end. `submitted`: there is a Run. `failed`:
the Run did not succeed, or there could be none. `missed`: too late. `skipped`: paused, or an earlier one was not
finished."""
UNOWNED = "schedule/"
"""How the name of a service begins that is declared nowhere: a schedule that asks as nobody."""

OPEN: tuple[InstantState, ...] = ("due", "queued", "submitted")
TROUBLED: tuple[InstantState, ...] = ("failed", "denied", "missed", "skipped")


@dataclass(frozen=True)
class Standing:
    """A schedule as its row has it.

    All instants up to `cursor_at` were dealt with. Those up to `skip_until` fell into a pause. `actor` is who asked for
    a one-off. `owed`: something of it has to be looked at now.
    """

    name: str
    one_off: bool
    schedule: Schedule
    timing_digest: str
    declared: bool
    cursor_at: datetime
    skip_until: datetime | None
    paused_by: str | None
    paused_reason: str | None
    paused_until: datetime | None
    missed: int
    actor: Actor | None
    owed: bool
    last: Last | None

    def paused(self, now: datetime) -> bool:
        """Whether a pause is in force."""
        return self.paused_by is not None and (self.paused_until is None or now < self.paused_until)


@dataclass(frozen=True)
class Last:
    """What became of the newest instant that is over. `count`: missed ones are recorded together."""

    instant: datetime
    state: InstantState
    run: int | None
    reason: str | None
    code: str | None
    count: int
    closed_at: datetime


@dataclass(frozen=True)
class Waiting:
    """An instant that was not asked for yet. `retry_at`: it was tried, and is tried again then; `tried`: why."""

    instant: datetime
    due_at: datetime
    state: InstantState
    actor: Actor
    ask: Ask
    attempts: int = 0
    retry_at: datetime | None = None
    tried: str | None = None

    @property
    def ready_at(self) -> datetime:
        """When it may be asked for."""
        return max(self.due_at, self.retry_at or self.due_at)


def beginning(name: str, schedule: Schedule, now: datetime) -> Standing:
    """A declared schedule as it stands before anything was recorded of it."""
    return Standing(
        name=name,
        one_off=False,
        schedule=schedule,
        timing_digest=timing_digest(schedule),
        declared=True,
        cursor_at=now,
        skip_until=None,
        paused_by=None,
        paused_reason=None,
        paused_until=None,
        missed=0,
        actor=None,
        owed=False,
        last=None,
    )


def timing_digest(schedule: Schedule) -> str:
    """What says which instants there are; another one, and counting begins anew."""
    return digest_of(schedule.model_dump(mode="json", include={"cron", "at", "timezone", "start", "end"}))


def instants(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """The instants after a moment, ascending, in UTC, within `start` and `end`."""
    if schedule.at is not None:
        moments = iter((schedule.at.astimezone(UTC),))
    else:
        begin = after if schedule.start is None else max(after, exclusive(schedule.start))
        moments = _cron(schedule.cron or "", schedule.timezone).after(begin)
    for moment in moments:
        if schedule.end is not None and moment > schedule.end:
            return
        if moment > after:
            yield moment


@lru_cache(maxsize=2048)
def _cron(expression: str, timezone: str) -> Cron:
    return Cron(expression, timezone)


@lru_cache(maxsize=4096)
def _next(schedule_text: str, after: datetime) -> datetime | None:
    return next(instants(Schedule.model_validate_json(schedule_text), after), None)


def next_instant(schedule: Schedule, after: datetime) -> datetime | None:
    """The first instant after a moment, remembered: a timer asks for it every second."""
    timing = schedule.model_dump_json(by_alias=True, include={"action", "cron", "at", "timezone", "start", "end"})
    return _next(timing, after)


def due_at(name: str, schedule: Schedule, instant: datetime) -> datetime:
    """The instant with its jitter, which is the same whoever works it out."""
    drawn = hashlib.sha256(f"{name}\0{rfc3339(instant)}".encode()).digest()
    return instant + timedelta(seconds=int.from_bytes(drawn[:8], "big") % (schedule.jitter_seconds + 1))


def owner_of(project: Project, name: str, service: str | None) -> Actor:
    """The service that a declared schedule asks as, with the roles that interlock.yaml gives it now."""
    declared = project.services.get(service or "")
    return Actor(
        kind="service",
        name=service or f"{UNOWNED}{name}",
        roles=declared.roles if declared is not None else (),
    )


def as_of_now(project: Project, asker: Actor) -> Actor:
    """Who asked for a one-off, with the roles that he has now: their codes bind as well as they allow, so that whoever
    lost a role must not be left without any. A schedule without a service is nobody that could be declared.

    Raises: Denied when interlock.yaml no longer declares him, or whom he works for.
    """
    owner = (asker.on_behalf_of or "").removeprefix("person:")
    kinds: dict[str, Mapping[str, Person | Agent | Service]] = {
        "person": project.people,
        "agent": project.agents,
        "service": project.services,
    }
    declared = kinds.get(asker.kind, {})
    found = declared.get(asker.name)
    named = bool(declared) or asker.kind == "service"
    if found is None and named and not asker.name.startswith(UNOWNED):
        gone = asker.id
    elif owner and project.people and owner not in project.people:
        gone = f"person:{owner}"
    else:
        return asker.model_copy(update={"roles": found.roles}) if found is not None else asker
    msg = f"interlock.yaml does not declare {gone} any more"
    raise Denied(msg, code="actor.undeclared", fix="let somebody who is declared order it")


def ask_of(name: str, schedule: Schedule, instant: datetime) -> Ask:
    """What is asked for at an instant; its key makes it one Run however often it is sent."""
    return Ask(
        action=schedule.action,
        args=schedule.args,
        key=key_of(name, instant),
        reason=schedule.reason or f"schedule {name}",
        timeout_seconds=schedule.timeout_seconds,
        confirmed=True,
    )


def key_of(name: str, instant: datetime) -> str:
    """`schedule:nightly-report:2026-11-20T18:15:00.000000Z`."""
    return f"schedule:{name}:{rfc3339(instant)}"


def asked(standing: Standing, actor: Actor, instant: datetime) -> Waiting:
    """An instant that has just come."""
    return Waiting(
        instant=instant,
        due_at=due_at(standing.name, standing.schedule, instant),
        state="due",
        actor=actor,
        ask=ask_of(standing.name, standing.schedule, instant),
    )


def labels_of(name: str, schedule: Schedule, owner: str) -> dict[str, str]:
    """What routing matches a schedule's events on."""
    return {"schedule": name, "action": schedule.action, "actor": owner}
