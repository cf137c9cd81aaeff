"""Follows what users meet while they may have the candidate, and sends it back within a blink when it is bad."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from interlock.core.errors import InterlockError, Transient
from interlock.core.health_probe import HealthProbe
from interlock.core.judgement import Judgement
from interlock.core.metric_source import MetricSource
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState
from interlock.core.traffic import Routing, Sample, TrafficLog
from interlock.engine.submit import Door
from interlock.lib.clock import Clock
from interlock.releases.asks import RETURNING, back_ask
from interlock.releases.effects import Effects
from interlock.releases.evidence import evidence_of, log10_evidence
from interlock.releases.judge.judge import Judge
from interlock.releases.judge.red_lines import Burst, Crossed, Probes
from interlock.releases.live import Live
from interlock.releases.measuring import Measuring
from interlock.releases.model import Cause, Release, gap_seconds_max, percent_of
from interlock.releases.store import Judged, ReleaseStore
from interlock.releases.tally import Tally, by_chance_of

log = structlog.get_logger()

TURN_SECONDS = 0.01
READ_BYTES_MAX = 64 * 1024
"""Of the log in one turn: a few milliseconds of work, so that the door does not wait."""
WAITING_MAX = 100_000
"""Samples between two ticks; what comes beyond them is counted for the plots and not judged."""
SAVE_SECONDS = 3.0
ROW_SECONDS = 1.0
TINY_SECONDS = 1e-6
"""As exact as the proxy's clock is written."""
BACK_WAIT_SECONDS = 5.0
BACK_RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class WatchParts:
    """What every watcher stands on. `stands` is a release as its driver saw it last."""

    store: ReleaseStore
    effects: Effects
    door: Door
    clock: Clock
    probe: HealthProbe
    metrics: MetricSource
    stands: Callable[[Release], Release]


class Watcher:
    """Both versions of one release, until it is cancelled."""

    def __init__(self, release: Release, live: Live, parts: WatchParts) -> None:
        self._release = release
        self._live = live
        self._parts = parts
        self._store, self._effects, self._clock = parts.store, parts.effects, parts.clock
        self._probe = parts.probe
        self._judge: Judge | None = None
        self._measuring: Measuring | None = None
        settings = release.settings
        self._burst = Burst(release.stable, release.candidate, settings.burst_errors)
        self._probes = Probes(release.candidate, settings.red_line_failures)
        self._crossed: Crossed | None = None
        self._arms = tuple(name for name in (release.stable, release.candidate) if name is not None)
        self._tally = Tally(self._arms)
        self._waiting: list[Sample] = []
        self._rows: list[JsonObject] = []
        self._read_until = 0.0
        self._silent_since = parts.clock.monotonic()

    async def run(self) -> None:
        """Watch for ever; a database or a proxy that is away for a moment does not end it."""
        while True:
            try:
                await self._watch()
            except InterlockError as error:
                self._live.leave(error.message)
                log.warning("release.watch_put_off", release=self._release.number, reason=error.message)
            except Exception as error:
                self._live.leave(f"the watcher stopped on a bug: {type(error).__name__}: {error}")
                log.exception("release.watch_bug", release=self._release.number)
            await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        judged = await self._store.judged(self._release.number)
        settings = self._release.settings.judge
        if self._release.stable is not None:
            versions = (self._release.stable, self._release.candidate)
            self._judge = Judge(settings, *versions, judged.state)
            self._measuring = Measuring(settings, *versions, self._parts.metrics)
        self._read_until = judged.read_until_seconds
        plane = self._effects.plane(self._release)
        begun = judged.read_until_seconds > 0
        followed = await asyncio.to_thread(plane.log, self._release.name, from_end=not begun)
        probing = asyncio.create_task(self._probe_for_ever(), name=f"release.{self._release.number}.probe")
        measuring = asyncio.create_task(self._measure_for_ever(), name=f"release.{self._release.number}.measure")
        try:
            await self._turn_for_ever(followed)
        finally:
            probing.cancel()
            measuring.cancel()
            followed.close()
            await self._save_last()

    async def _turn_for_ever(self, followed: TrafficLog) -> None:
        begun_at = tick_at = row_at = save_at = self._clock.monotonic()
        ticked = False
        tick_seconds = self._release.settings.judge.tick_seconds
        while True:
            full = self._take(followed.read(READ_BYTES_MAX))
            if self._crossed is not None:
                await self._is_bad("red_line", self._crossed.words, None)
            now = self._clock.monotonic()
            if now - tick_at >= tick_seconds:
                tick_at = now
                await self._tick()
                if not ticked:  # written down at once: only then somebody watches
                    ticked, save_at = True, now - SAVE_SECONDS
            if now - row_at >= ROW_SECONDS:
                row_at = now
                self._keep_row()
            if now - save_at >= SAVE_SECONDS:
                save_at = now
                await self._save()
                if ticked:
                    self._live.attend(now, begun_at)
            await asyncio.sleep(0 if full else TURN_SECONDS)

    def _take(self, samples: list[Sample]) -> bool:
        """What came since the last turn; whether there may be more of it at once."""
        fresh = [each for each in samples if each.at_seconds > self._read_until] if self._read_until else samples
        mine = by_chance_of(fresh, self._arms)
        if mine:
            self._silent_since = self._clock.monotonic()
            self._crossed = self._crossed or self._burst.feed(mine)
            self._tally.add(mine)
            self._waiting += mine[: max(0, WAITING_MAX - len(self._waiting))]
            answered = sum(each.arm == self._release.candidate and each.status > 0 for each in mine)
            self._live.requests += answered
            if answered:
                self._live.hear(self._clock.monotonic(), gap_seconds_max(self._parts.stands(self._release)))
        self._live.quiet_seconds = self._clock.monotonic() - self._silent_since
        return len(samples) * 40 > READ_BYTES_MAX // 2

    async def _tick(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._judge is None or self._measuring is None:
            return
        read = self._measuring.take()
        now_seconds = self._clock.now().timestamp()
        judgement = self._judge.tick(now_seconds, waiting, read.readings, problems=read.problems)
        before = self._live.judgement
        self._live.judgement = judgement
        if judgement.verdict == "no_go":
            await self._is_bad("judge", judgement.summary, judgement)
        elif before is None or before.verdict != judgement.verdict:
            self._live.moved.set()

    async def _is_bad(self, cause: Cause, words: str, judgement: Judgement | None) -> None:
        """Ask for the way back until it is taken, or say it to who drives where there is none."""
        at_seconds = self._clock.now().timestamp()
        if not self._live.evidence:
            latest = judgement or self._live.judgement
            first_seconds = self._crossed.first_seconds if self._crossed is not None else None
            self._live.evidence = evidence_of(cause, words, at_seconds, first_seconds, latest)
        release = self._parts.stands(self._release)
        if release.over or release.state in {"going_back", "frozen"}:
            return
        if release.irreversible and release.reached_users:
            self._live.red_line = words
            self._live.moved.set()
            return
        try:
            run = await self._parts.door.submit(RETURNING, back_ask(release, words, self._live.evidence))
            if isinstance(run, Run) and run.state in (RunState.QUEUED, RunState.RUNNING):
                run = await self._parts.door.wait(run.number, BACK_WAIT_SECONDS)
            if isinstance(run, Run) and run.state is not RunState.SUCCEEDED:
                log.error("release.back_refused", release=release.number, run_id=run.number, reason=run.state_reason)
                self._live.red_line = words
        except Transient as error:
            log.warning("release.back_put_off", release=release.number, reason=error.message)
            await asyncio.sleep(BACK_RETRY_SECONDS)
        except InterlockError as error:
            log.warning("release.back_refused", release=release.number, reason=error.message)
            self._live.red_line = words  # who drives it decides, and asks for the way back itself
        self._live.moved.set()

    def _keep_row(self) -> None:
        if self._tally.total:
            judgement = self._live.judgement
            row = self._tally.row(
                round(self._clock.now().timestamp(), 3),
                percent=percent_of(self._parts.stands(self._release)),
                verdict=judgement.verdict if judgement is not None else None,
                log10_evidence=log10_evidence(judgement) if judgement is not None else None,
            )
            self._rows.append(row)
            self._rows = self._rows[-WAITING_MAX // 100 :]
            self._live.tell()
        self._tally = self._tally.following()

    async def _save(self) -> None:
        """What would be missed after a crash. What waits is judged again then: it came after `read_until`."""
        first = min((each.at_seconds for each in self._waiting), default=self._clock.now().timestamp())
        until = first - TINY_SECONDS
        state = self._judge.state() if self._judge is not None else None
        rows, self._rows = self._rows, []
        try:
            await self._store.keep(self._release.number, Judged(state, until), rows)
        except Transient:
            self._rows = [*rows, *self._rows]
            raise

    async def _save_last(self) -> None:
        """When the watch ends, be it because it is put off; what cannot be written now was seen in vain."""
        self._keep_row()
        try:
            await self._save()
        except InterlockError as error:
            log.warning("release.ticks_lost", release=self._release.number, reason=error.message)
        self._waiting = []  # whoever begins again reads it again

    async def _probe_for_ever(self) -> None:
        """A light look at the candidate now and then: one that hangs, or died, is no longer healthy."""
        health = self._release.workload.health
        while True:
            await asyncio.sleep(max(health.interval_seconds, 0.2))
            release = self._parts.stands(self._release)
            if release.step < 0 or release.settled != release.epoch:
                continue
            try:
                routing = await self._effects.routing(release)
            except InterlockError:
                continue  # a proxy that is away is not the candidate's fault
            failure = await self._failure(routing, release.candidate)
            stable_fails = failure is not None and await self._failure(routing, release.stable) is not None
            now_seconds = self._clock.now().timestamp()
            self._crossed = self._crossed or self._probes.feed(now_seconds, failure, stable_fails=stable_fails)

    async def _measure_for_ever(self) -> None:
        """What `measures:` declares, as long as it is judged."""
        while self._measuring is not None:
            try:
                await self._measuring.run(lambda: self._effects.routing(self._parts.stands(self._release)))
            except Exception:
                log.exception("release.measure_bug", release=self._release.number)
                await asyncio.sleep(1.0)
            else:
                return

    async def _failure(self, routing: Routing | None, version: str | None) -> str | None:
        """What is wrong with a version's answer; None as well where it is not known where it listens."""
        address = next((arm.address for arm in routing.arms if arm.name == version), None) if routing else None
        if address is None:
            return None
        health = self._release.workload.health
        answer = await asyncio.to_thread(self._probe.ask, address, health.path, timeout_seconds=health.timeout_seconds)
        return None if answer.good else answer.reason or f"status {answer.status}"
