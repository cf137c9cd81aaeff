"""Keeps judging the rollouts that somebody asks about: reads, judges, writes down what it knows, ends what is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from interlock.core.errors import InterlockError, Invalid, NotFound, Transient
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.rollout_judge import RolloutJudge
from interlock.core.web import WEB
from interlock.judges.growth import Growth
from interlock.judges.reading import Names, Place, Reader
from interlock.judges.store import Kept, Session, SessionStore
from interlock.judges.verdict import CountsJudge
from interlock.lib.clock import Clock

log = structlog.get_logger()

AT_ONCE_MAX = 4
"""So many rollouts are read at the same time."""
WAIT_SECONDS_MAX = 60.0
"""So long at most until what could not be read is tried again."""


@dataclass
class _Live:
    """What this process knows of an open session besides its row."""

    declared: RolloutJudge
    judge: CountsJudge
    place: Place
    due_at: float = 0.0
    failures: int = 0


class Sessions:
    """The open sessions.

    Args:
        store: Their rows.
        project: What is declared at this moment.
        outside: Outside systems.
        clock: The time.
    """

    def __init__(self, store: SessionStore, project: Callable[[], Project], outside: Outside, clock: Clock) -> None:
        self.store = store
        self._project = project
        self._outside = outside
        self._clock = clock
        self._live: dict[int, _Live] = {}

    def known(self) -> tuple[str, ...]:
        """Which judges are declared."""
        return tuple(self._project().judges)

    def declared(self, name: str) -> RolloutJudge:
        """Raises NotFound."""
        found = self._project().judges.get(name)
        if found is None:
            msg = f"there is no judge {name!r}"
            raise NotFound(msg, code="judge.unknown", fix="declare it under `judges`, in interlock.yaml")
        return found

    async def ask(self, name: str, session: str, stable: str | None, by: str) -> Session:
        """Somebody asks about a rollout: from now on it is judged, until nobody asks any more.

        `by` is who asks. Raises NotFound, Invalid, Conflict (too many), Denied (another stable version, and somebody
        else's).
        """
        declared = self.declared(name)
        if declared.needs_stable and stable is None:
            msg = f"the judge {name} must know what the stable version is called: its `where` holds {{stable}}"
            raise Invalid(msg, code="judge.stable", fix="ask with ?session=NEW&stable=OLD")
        known = stable if declared.needs_stable else None
        return await self.store.ask(name, session, known, self._clock.now(), by=by)

    async def work(self) -> None:
        """Look at all open sessions: end those that are over, read those that are due."""
        now, moment = self._clock.now(), self._clock.monotonic()
        due = []
        found = await self.store.open()
        self._live = {each.number: self._live[each.number] for each in found if each.number in self._live}
        for each in found:
            over = self._over(each, now)
            if over is not None:
                await self.store.end(each.number, over, now)
                self._live.pop(each.number, None)
            elif each.number not in self._live or self._live[each.number].due_at <= moment:
                due.append(each)
        places = asyncio.Semaphore(AT_ONCE_MAX)
        await asyncio.gather(*(self._look(each, places) for each in due))

    def _over(self, session: Session, now: datetime) -> str | None:
        """Why a session is over, if it is."""
        declared = self._project().judges.get(session.judge)
        if declared is None:
            return "its judge is declared no longer"
        if now - session.asked_at > timedelta(seconds=declared.idle_seconds):
            return "nobody asked about it any more"
        if now - session.begun_at > timedelta(seconds=declared.lifetime_seconds):
            return "it came to the end of its lifetime"
        return None

    async def _look(self, session: Session, places: asyncio.Semaphore) -> None:
        """One reading of one session; what cannot be read now is no verdict, and is tried again."""
        async with places:
            live = await self._known(session)
            declared, trouble, growth = live.declared, None, None
            try:
                growth, live.place = await asyncio.to_thread(self._read, session, live)
                live.failures = 0
                wait_seconds = declared.every_seconds
            except InterlockError as error:
                live.failures += 1
                trouble = error.message
                told = error.retry_after_seconds if isinstance(error, Transient) else 0.0
                waited = declared.every_seconds * 2.0 ** min(live.failures - 1, 10)
                wait_seconds = min(max(told, waited), WAIT_SECONDS_MAX)
                if live.failures == 1:
                    log.warning("judge.unread", judge=session.judge, session=session.session, reason=trouble)
            live.due_at = self._clock.monotonic() + wait_seconds
            await self._judge(session, live, growth, trouble)

    def _read(self, session: Session, live: _Live) -> tuple[Growth | None, Place]:
        """Runs in a thread."""
        web, declared = self._outside[WEB], self._project().http_destinations
        reader = Reader(live.declared, declared, web, self._clock)
        return reader.read(Names(session.session, session.stable), live.place)

    async def _judge(self, session: Session, live: _Live, growth: Growth | None, trouble: str | None) -> None:
        judgement = live.judge.tick(self._clock.now().timestamp(), growth)
        kept = Kept(live.judge.state(), live.place.state())
        try:
            await self.store.keep(session.number, kept, judgement.model_dump(mode="json"), trouble)
        except InterlockError as error:
            # What was read and is not written down is read again: what is known goes back to what is written.
            self._live.pop(session.number, None)
            log.warning("judge.unkept", judge=session.judge, session=session.session, reason=error.message)

    async def _known(self, session: Session) -> _Live:
        """From memory, or as it was written down; other settings than before begin anew."""
        declared = self.declared(session.judge)
        live = self._live.get(session.number)
        if live is not None and live.declared == declared:
            return live
        kept = await self.store.kept(session.number)
        try:
            place = Place.restored(kept.place) if kept.place else Place()
        except Invalid:
            place = Place()
        live = _Live(declared, CountsJudge(declared, kept.state), place)
        self._live[session.number] = live
        return live
