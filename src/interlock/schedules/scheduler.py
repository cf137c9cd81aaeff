"""Asks for what is due: each instant once, by one process, and nothing that could not be kept goes without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice, takewhile

import structlog

from interlock.core.errors import Conflict, Denied, InterlockError, Permanent, Transient
from interlock.core.event import Event
from interlock.core.project import Project
from interlock.core.run import Run
from interlock.engine.store import RunStore
from interlock.engine.submit import Door
from interlock.lib.clock import Clock, rfc3339
from interlock.schedules.model import (
    TROUBLED,
    InstantState,
    Standing,
    Waiting,
    as_of_now,
    asked,
    due_at,
    instants,
    labels_of,
    next_instant,
    owner_of,
    timing_digest,
)
from interlock.schedules.store import Change, Ended, ScheduleStore
from interlock.schedules.verdict import Verdict, decide

log = structlog.get_logger()

LOOK_SECONDS = 1.0
AT_ONCE_MAX = 4
BATCH_MAX = 1000
BATCHES_MAX = 20
ATTEMPTS_MAX = 10
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0
CLOCK_BACK = timedelta(seconds=60)
TROUBLE_SHOWN = timedelta(days=7)
TROUBLES_MAX = 20
_OF_RUN: dict[str, InstantState] = {"succeeded": "succeeded", "denied": "denied"}
_TRY_AGAIN = frozenset({"run.too_many_open", "run.too_many_waiting"})


class Scheduler:
    """Works on every schedule that is due; any number of processes may do so on one database."""

    def __init__(
        self, store: ScheduleStore, runs: RunStore, door: Door, project: Callable[[], Project], clock: Clock
    ) -> None:
        self._store = store
        self._runs = runs
        self._door = door
        self._project = project
        self._clock = clock
        self.troubles: tuple[InterlockError, ...] = ()
        """What needs somebody, as of the last look."""

    async def tick(self) -> None:
        """Work on what is due now, and on what becomes due meanwhile. Raises Transient without a database."""
        attended: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                standings = await self._look()
                busy = [task for task in attended.values() if not task.done()]
                free = AT_ONCE_MAX - len(busy)
                fresh = [each.name for each in standings if each.name not in attended and self._is_due(each)]
                for name in fresh[:free]:
                    attended[name] = group.create_task(self._attend(name), name=f"schedule.{name}")
                    busy.append(attended[name])
                if not busy:
                    return
                await asyncio.wait(busy, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self) -> list[Standing]:
        """All schedules, the tables brought to what interlock.yaml declares; and what of them needs somebody."""
        now, project = self._clock.now(), self._project()
        standings = {each.name: each for each in await self._store.standings(now)}
        taken: list[InterlockError] = []
        for name, schedule in project.schedules.items():
            known = standings.get(name)
            if known is not None and known.one_off and known.declared and not _is_over(known):
                msg = f"schedule {name}: a one-off of this name stands until {rfc3339(known.cursor_at)}"
                taken.append(
                    Conflict(msg, code="schedule.name", fix=f"rename one, or: interlock schedules show {name}")
                )
            elif known is None or known.one_off or not known.declared or known.schedule != schedule:
                await self._store.declare(name, schedule, timing_digest(schedule), now)
        for name, known in standings.items():
            if known.declared and not known.one_off and name not in project.schedules:
                await self._store.forget(name, now, "interlock.yaml no longer declares it")
        found = [*taken, *filter(None, (_trouble(each, now) for each in standings.values()))]
        self.troubles = tuple(found[:TROUBLES_MAX])
        return list(standings.values())

    def _is_due(self, standing: Standing) -> bool:
        now = self._clock.now()
        if standing.owed or not standing.declared:
            return standing.owed
        if standing.paused(now):
            return False
        following = next_instant(standing.schedule, standing.cursor_at)
        clock_back = standing.cursor_at > now + CLOCK_BACK
        return standing.paused_by is not None or clock_back or (following is not None and following <= now)

    async def _attend(self, name: str) -> None:
        """One turn of one schedule; what goes wrong with it is said and does not keep the others from theirs."""
        try:
            async with self._store.hold(name) as held:
                if held:
                    await self._work(name)
        except Transient as error:
            log.warning("schedule.put_off", schedule=name, reason=error.message)
        except Exception:
            log.exception("schedule.bug", schedule=name)

    async def _work(self, name: str) -> None:
        standing = await self._read(name)
        await self._close(standing)
        if standing.declared:
            standing = await self._advance(standing)
        await self._dispatch(standing)

    async def _read(self, name: str) -> Standing:
        (standing,) = await self._store.standings(self._clock.now(), name)
        return standing

    async def _close(self, standing: Standing) -> None:
        """What became of the Runs that were asked for."""
        ended, _ = await self._store.submitted(standing.name)
        if ended:
            await self._store.change(standing.name, [self._ending(standing, each) for each in ended])
        if ended and standing.one_off and ended[-1].state == "succeeded":
            await self._store.forget(standing.name, self._clock.now(), "it is done")

    def _ending(self, standing: Standing, each: Ended) -> Change:
        state = _OF_RUN.get(each.state, "failed")
        reason = None if state == "succeeded" else f"Run {each.run} is {each.state}: {each.reason or 'no reason given'}"
        code = None if state == "succeeded" else each.code or f"run.{each.state}"
        event = None
        if state != "succeeded":
            event = _event(standing, f"schedule.{state}", each.instant, run=each.run, reason=reason, code=code)
        return Change(each.instant, state, self._clock.now(), reason, code, each.run, event)

    async def _advance(self, standing: Standing) -> Standing:
        """Record the instants that came since the last look, in batches, unless a pause is in force."""
        now = self._clock.now()
        if standing.cursor_at > now + CLOCK_BACK:
            reason = f"the clock stands at {rfc3339(now)}, behind {rfc3339(standing.cursor_at)}; it counts from there"
            event = _event(standing, "schedule.clock_moved_back", now, reason=reason)
            await self._store.advance(standing, now, (), events=(event,))
            standing = await self._read(standing.name)
        if standing.paused(now):
            return standing
        if standing.paused_by is not None:
            event = _event(standing, "schedule.resumed", now, reason="the pause was set to end")
            await self._store.advance(standing, standing.cursor_at, (), resumed=True, events=(event,))
            standing = await self._read(standing.name)
        for _ in range(BATCHES_MAX):
            passed = takewhile(lambda moment: moment <= now, instants(standing.schedule, standing.cursor_at))
            found = list(islice(passed, BATCH_MAX))
            if not found:
                break
            await self._record(standing, found, now)
            standing = await self._read(standing.name)
        return standing

    async def _record(self, standing: Standing, found: list[datetime], now: datetime) -> None:
        """Move the cursor over these instants: those of a pause, or those that came."""
        name, schedule = standing.name, standing.schedule
        actor = standing.actor or owner_of(self._project(), name, schedule.service)
        paused = [each for each in found if standing.skip_until is not None and each <= standing.skip_until]
        lost: Change | None = None
        if paused:
            gone, keep = paused, []
            lost = self._lost(standing, gone, "skipped", "paused", f"{_span(gone)} fell into a pause")
        else:
            grace = timedelta(seconds=schedule.grace_seconds)
            late = [each for each in found if now - due_at(name, schedule, each) > grace]
            kept = {"skip": 0, "once": 1, "all": schedule.backlog_max}[schedule.catch_up]
            gone = late[: max(0, len(late) - kept)]
            keep = sorted(set(found) - set(gone))
            reason = f"{_span(gone)} passed while nobody could ask (catch_up: {schedule.catch_up})" if gone else ""
            if gone:
                lost = self._lost(standing, gone, "missed", "missed", reason)
        coming = [asked(standing, actor, each) for each in keep]
        to = paused[-1] if paused else found[-1]
        row = (lost, len(gone), asked(standing, actor, gone[-1])) if lost is not None else None
        await self._store.advance(standing, to, coming, row)

    def _lost(self, standing: Standing, gone: list[datetime], state: InstantState, word: str, reason: str) -> Change:
        """Instants that nobody asks for any more, as one row: the newest's."""
        code = f"schedule.{word}"
        event = _event(
            standing,
            f"schedule.{state}",
            gone[-1],
            first=rfc3339(gone[0]),
            count=len(gone),
            reason=reason,
            code=code,
        )
        return Change(gone[-1], state, self._clock.now(), reason, code, None, event)

    async def _dispatch(self, standing: Standing) -> None:
        """Ask for what waits and may be asked for."""
        name, now = standing.name, self._clock.now()
        waiting = [each for each in await self._store.waiting(name) if not await self._is_asked_for(name, each)]
        if standing.paused(now) or not standing.declared:
            return
        skip_until = standing.skip_until
        in_pause = [each for each in waiting if skip_until is not None and each.due_at <= skip_until]
        if in_pause:
            words = "it fell into a pause"
            await self._store.change(name, [self._over(standing, each, "skipped", words) for each in in_pause])
        _, open_count = await self._store.submitted(name)
        rest = [each for each in waiting if each not in in_pause]
        for verdict in decide(rest, standing.schedule, now, busy=open_count > 0):
            await self._carry_out(standing, verdict)

    async def _is_asked_for(self, name: str, each: Waiting) -> bool:
        """Whether a process that died had asked for it, and could not write that down any more."""
        found = await self._runs.by_key(each.actor.id, each.ask.key or "") if each.attempts else None
        if found is None:
            return False
        await self._store.change(name, [Change(each.instant, "submitted", self._clock.now(), run=found[0].number)])
        return True

    async def _carry_out(self, standing: Standing, verdict: Verdict) -> None:
        each, name = verdict.waiting, standing.name
        if verdict.word == "submit":
            await self._submit(standing, each)
        elif verdict.word == "queue" and each.state != "queued":
            await self._store.change(name, [Change(each.instant, "queued", self._clock.now(), verdict.reason)])
        elif verdict.word in {"missed", "overlapped"}:
            tried = f"; tried {each.attempts} times: {each.tried}" if each.attempts else ""
            reason = f"{verdict.reason}{tried}"
            await self._store.change(name, [self._over(standing, each, verdict.word, reason)])

    def _over(self, standing: Standing, each: Waiting, word: str, reason: str) -> Change:
        code = "schedule.paused" if word == "skipped" else f"schedule.{word}"
        state: InstantState = "missed" if word == "missed" else "skipped"
        event = _event(standing, f"schedule.{word}", each.instant, reason=reason, code=code)
        return Change(each.instant, state, self._clock.now(), reason, code, None, event)

    async def _submit(self, standing: Standing, each: Waiting) -> None:
        """Ask once more. The key makes it one Run, whatever was asked before and not written down."""
        name = standing.name
        await self._store.begin_attempt(name, each.instant)
        try:
            run = await self._ask(each)
        except InterlockError as error:
            await self._not_asked(standing, each, error)
        except Exception as error:
            log.exception("schedule.bug", schedule=name)
            bug = Permanent(f"{type(error).__name__}: {error}", code="bug", fix="see the log of serve")
            await self._not_asked(standing, each, bug)
        else:
            log.info(
                "schedule.asked",
                schedule=name,
                instant=rfc3339(each.instant),
                run_id=run.number,
                status=run.state.value,
            )
            change = Change(each.instant, "submitted", self._clock.now(), run=run.number)
            await self._store.change(name, [change])

    async def _ask(self, each: Waiting) -> Run:
        via = each.actor.via
        if via is not None and not await self._store.is_token_good(via, self._clock.now()):
            msg = f"the token {via}, with which this was ordered, is revoked or has expired"
            raise Denied(msg, code="schedule.token", fix="order it again")
        run = await self._door.submit(as_of_now(self._project(), each.actor), each.ask)
        if not isinstance(run, Run):
            msg = "a confirmed ask came back as a proposal"
            raise Permanent(msg, code="bug", fix="see the log of serve")
        return run

    async def _not_asked(self, standing: Standing, each: Waiting, error: InterlockError) -> None:
        """Try again where that may help, a bounded number of times; otherwise this instant has failed."""
        now, attempts = self._clock.now(), each.attempts + 1
        again = isinstance(error, Transient) or error.code in _TRY_AGAIN
        if again and attempts < ATTEMPTS_MAX:
            pause = min(RETRY_SECONDS * 2 ** (attempts - 1), RETRY_SECONDS_MAX)
            await self._store.put_off(standing.name, each.instant, now + timedelta(seconds=pause), error.message)
            return
        state: InstantState = "denied" if isinstance(error, Denied) else "failed"
        number = error.details.get("run")
        run = number if isinstance(number, int) else None
        event = _event(standing, f"schedule.{state}", each.instant, run=run, reason=error.message, code=error.code)
        change = Change(each.instant, state, now, error.message, error.code, None, event)
        await self._store.change(standing.name, [change])


def _is_over(standing: Standing) -> bool:
    """Whether a one-off's moment has passed, and what came of it is known."""
    at = standing.schedule.at
    return at is not None and at <= standing.cursor_at and not standing.owed and standing.last is not None


def _event(standing: Standing, kind: str, instant: datetime, **data: str | int | None) -> Event:
    service = standing.schedule.service or f"schedule/{standing.name}"
    owner = standing.actor.id if standing.actor is not None else f"service:{service}"
    labels = labels_of(standing.name, standing.schedule, owner)
    body = {"schedule": standing.name, "instant": rfc3339(instant), **data}
    return Event(kind=kind, labels=labels, data={key: value for key, value in body.items() if value is not None})


def _span(found: list[datetime]) -> str:
    if len(found) == 1:
        return f"the instant {rfc3339(found[0])}"
    return f"{len(found)} instants from {rfc3339(found[0])} to {rfc3339(found[-1])}"


def _trouble(standing: Standing, now: datetime) -> InterlockError | None:
    """What needs somebody: its last instant came to nothing, and that is not long ago."""
    last = standing.last
    if last is None or last.state not in TROUBLED or not standing.declared or last.code == "schedule.paused":
        return None
    if now - last.closed_at > TROUBLE_SHOWN:
        return None
    msg = f"schedule {standing.name}: {last.reason or last.state}"
    return Permanent(msg, code=last.code or f"schedule.{last.state}", fix=f"interlock schedules show {standing.name}")
