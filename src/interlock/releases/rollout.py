"""Takes each release on its way: looks at what is seen, decides, and brings about what follows, until it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from interlock.core.errors import Conflict, InterlockError, Permanent, Transient
from interlock.core.traffic import Mirror
from interlock.engine.cancellation import cancel_all
from interlock.engine.signals import set_within
from interlock.lib.clock import Clock
from interlock.releases.effects import PENDING, Effect, Effects, in_force
from interlock.releases.live import Live, LiveReleases
from interlock.releases.machine import advance, watched
from interlock.releases.model import MOVING, Release, Seen, wanted
from interlock.releases.store import ReleaseStore

log = structlog.get_logger()

LOOK_SECONDS = 0.5
LOOK_SOON_SECONDS = 0.1
TRY_AGAIN_SECONDS = 1.0
ASIDE_SECONDS = 3.0
"""How often it is looked whether somebody else changed the routing, or stopped the candidate."""
TOUCHED_SECONDS = 1.0
REPORTED_DAYS = 7
TROUBLES_MAX = 20


class Shadow(Protocol):
    """Whoever compares answers of the two versions while a release is in the shadow."""

    async def begin(self, release: Release) -> Mirror:
        """Be there to compare, and say where copies go. Doing it twice is doing it once. Raises Transient."""
        ...

    async def look(self, release: Release) -> Seen:
        """What was found so far: `shadow` and `shadow_words`."""
        ...

    async def end(self, release: Release) -> None:
        """Nobody needs it any more; nothing happens where there is none."""
        ...


Watch = Callable[[Release, Live], Coroutine[None, None, None]]
"""Follows what users meet, until it is cancelled."""
Report = Callable[[Release], Awaitable[None]]
"""Writes down what became of it."""


class Rollout:
    """Works on every release that is on its way."""

    def __init__(
        self,
        store: ReleaseStore,
        effects: Effects,
        live: LiveReleases,
        clock: Clock,
        *,
        watch: Watch,
        shadow: Shadow,
        report: Report,
    ) -> None:
        self._store = store
        self._effects = effects
        self._live = live
        self._clock = clock
        self._watch = watch
        self._shadow = shadow
        self._report = report
        self._aside_at: dict[int, float] = {}
        self._stands: dict[int, Release] = {}
        self._stuck: dict[int, InterlockError] = {}
        self._away: InterlockError | None = None

    @property
    def troubles(self) -> Iterable[InterlockError]:
        """What needs somebody: releases that are frozen or wait, and work on one that fails."""
        away = [self._away] if self._away is not None else []
        found = [*away, *self._stuck.values(), *self._unwatched(), *filter(None, map(_trouble, self._stands.values()))]
        return found[:TROUBLES_MAX]

    def _unwatched(self) -> Iterable[InterlockError]:
        """Releases that users may meet while nobody looks."""
        now = self._clock.monotonic()
        for release in self._stands.values():
            live = self._live.find(release.number)
            why = live.unwatched(now) if live is not None and release.state in MOVING else None
            if why is not None:
                msg = f"nobody watches release {release.number} of {release.name}: {why}"
                yield Permanent(msg, code="release.unwatched", fix=f"interlock release pause {release.name}")

    def stands(self, release: Release) -> Release:
        """A release as it was seen last."""
        return self._stands.get(release.number, release)

    async def work(self) -> None:
        """For ever: whoever moves a release is not kept waiting. A database that is away is asked again."""
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    for release in await self._store.active():
                        if release.number not in tasks:
                            tasks[release.number] = asyncio.create_task(self._attend(release), name=_name(release))
                    self._away = None
                except Transient as error:
                    self._away = error
                tasks = {number: task for number, task in tasks.items() if not task.done()}
                await self._live.any_moved(LOOK_SECONDS)
        finally:
            await cancel_all(set(tasks.values()))

    async def report_missing(self) -> None:
        """Reports of releases that ended while nobody could write them."""
        since = self._clock.now() - timedelta(days=REPORTED_DAYS)
        for release in await self._store.newest():
            if release.over and release.closed_at is not None and release.closed_at > since:
                await self._report(release)

    async def _attend(self, release: Release) -> None:
        """Drive it while somebody watches; what was seen last is kept before the report is written."""
        live = self._live.of(release.number)
        watcher = asyncio.create_task(self._watch(release, live), name=f"{_name(release)}.watch")
        try:
            over = await self._drive(release.number, live)
        finally:
            await cancel_all({watcher})
        await self._finish(over)

    async def _drive(self, number: int, live: Live) -> Release:
        """Look until it is over; whatever goes wrong in one look is tried again in the next."""
        while True:
            live.moved.clear()
            try:
                release = await self._store.get(number)
                self._stands[number] = release
                if release.over:
                    return release
                pause = await self.look(release, live)
                self._stuck.pop(number, None)
            except Conflict:
                pause = 0.0  # somebody moved it meanwhile
            except Transient as error:
                log.warning("release.put_off", release=number, reason=error.message)
                pause = TRY_AGAIN_SECONDS
            except InterlockError as error:
                log.warning("release.refused", release=number, error_code=error.code, reason=error.message)
                self._stuck[number] = error
                pause = TRY_AGAIN_SECONDS
            except Exception as error:
                log.exception("release.bug", release=number)
                msg = f"release {number} stopped on a bug: {type(error).__name__}: {error}"
                self._stuck[number] = Permanent(msg, code="bug", fix="see the log of serve")
                pause = TRY_AGAIN_SECONDS
            await set_within(live.moved, pause)

    async def look(self, release: Release, live: Live) -> float:
        """One look, and all that follows from it; returns after how many seconds the next one is due."""
        live.begin(release)
        effect = await self._brought_about(release, live)
        now = self._clock.now()
        release = await self._touched(release, live, now)
        shadow = await self._shadow.look(release) if release.state == "shadow" and effect.outcome == "done" else Seen()
        elsewhere, gone = await self._aside(release) if effect.outcome == "done" else (None, None)
        attended = live.attended(self._clock.monotonic())
        seen = _seen(release, live, effect, shadow, elsewhere, gone, attended=attended)
        following = advance(release, seen)
        moved = await self._store.move(release, following, self._clock.now())
        self._stands[release.number] = moved
        if moved != release:
            live.tell()
        if moved.epoch != release.epoch:
            if release.state == "shadow":
                await self._shadow.end(release)
            return 0.0
        return LOOK_SOON_SECONDS if effect is PENDING or effect.outcome != "done" else LOOK_SECONDS

    async def _brought_about(self, release: Release, live: Live) -> Effect:
        """What it wants of the world is there, or is on its way."""
        if release.settled == release.epoch:
            return Effect("done")
        mirror = await self._shadow.begin(release) if wanted(release).mirror is not None else None
        effect = await self._effects.bring_about(release, live, mirror)
        if effect.outcome == "done":
            await self._store.settle(release, self._clock.now())
            live.hear_anew()
        return effect

    async def _touched(self, release: Release, live: Live, now: datetime) -> Release:
        """How long this place was watched, written down about once a second."""
        elapsed, heard = (now - release.looked_at).total_seconds(), live.heard_seconds
        attended = live.attended(self._clock.monotonic())
        seconds = watched(release, elapsed, heard, attended=attended)
        if release.state not in MOVING or 0 <= elapsed < TOUCHED_SECONDS:
            return replace(release, watched_seconds=seconds)
        await self._store.looked(release, seconds, now)
        live.heard_seconds = max(0.0, live.heard_seconds - heard)
        return replace(release, watched_seconds=seconds, looked_at=now)

    async def _aside(self, release: Release) -> tuple[str | None, str | None]:
        """How the routing was changed past the release, and why the candidate is gone: looked at now and then."""
        want, now = wanted(release), self._clock.monotonic()
        if want.shares is None or want.back or now - self._aside_at.get(release.number, 0.0) < ASIDE_SECONDS:
            return None, None
        self._aside_at[release.number] = now
        gone = await self._effects.gone(release)
        routing = await self._effects.routing(release)
        if routing is None:
            return "the proxy knows nothing of it", gone
        if in_force(routing, want, routing.mirror):
            return None, gone
        return ", ".join(f"{arm.name} {arm.share / 100:g} %" for arm in routing.arms), gone

    async def _finish(self, release: Release) -> None:
        """What could not be written now is written by `report_missing`."""
        try:
            await self._shadow.end(release)
            await self._report(release)
        except InterlockError as error:
            log.warning("release.unfinished", release=release.number, reason=error.message)
        self._stands.pop(release.number, None)
        self._stuck.pop(release.number, None)
        self._aside_at.pop(release.number, None)
        self._live.forget(release.number)


def _name(release: Release) -> str:
    return f"release.{release.number}"


def _seen(
    release: Release,
    live: Live,
    effect: Effect,
    shadow: Seen,
    elsewhere: str | None,
    gone: str | None,
    *,
    attended: bool,
) -> Seen:
    """What is known now. GO counts only while somebody looks: what was good when he last did may be so no longer."""
    judgement = live.judgement
    verdict = judgement.verdict if judgement is not None and release.stable is not None else "not_yet"
    return Seen(
        settled=effect.outcome == "done",
        effect_failed=effect.words if effect.outcome == "failed" else None,
        effect_cause=effect.cause,
        waits_for=effect.words if effect.outcome == "waits" else None,
        verdict="not_yet" if verdict == "go" and not attended else verdict,
        words=live.words,
        evidence=live.evidence,
        red_line=live.red_line,
        shadow=shadow.shadow,
        shadow_words=shadow.shadow_words,
        quiet_seconds=live.quiet_seconds,
        requests=live.requests,
        elsewhere=elsewhere,
        gone=gone,
    )


def _trouble(release: Release) -> InterlockError | None:
    """What a person should know of a release that does not go on by itself."""
    if release.state == "frozen":
        msg = f"release {release.number} of {release.name} is frozen: {release.reason}"
        return Permanent(msg, code="release.frozen", fix=f"interlock release report {release.name}")
    if release.state == "paused":
        msg = f"release {release.number} of {release.name} is paused: {release.reason}"
        return Permanent(msg, code="release.paused", fix=f"interlock release resume {release.name}")
    if release.state == "going_back" and "stuck" in release.told:
        msg = f"release {release.number} of {release.name} cannot go back yet"
        return Transient(msg, code="release.stuck", fix=f"interlock release status {release.name}")
    return None
