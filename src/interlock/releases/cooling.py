"""Stops versions that no user has any more: a candidate that was sent back, one kept to go back to for long enough."""

from __future__ import annotations

import asyncio

import structlog

from interlock.core.actor import SYSTEM
from interlock.core.ask import Ask
from interlock.core.errors import InterlockError, Transient
from interlock.core.model import JsonObject
from interlock.core.outside import Outside
from interlock.core.run import Run, RunState
from interlock.core.service_instance import SERVICE_INSTANCES, STANDING
from interlock.core.traffic import WHOLE
from interlock.engine.submit import Door
from interlock.lib.clock import Clock
from interlock.releases.effects import Effects
from interlock.releases.model import Release
from interlock.releases.store import ReleaseStore

log = structlog.get_logger()

WAIT_SECONDS = 60.0
DRAIN_SECONDS = 30.0


class Cooling:
    """Asks at the door, once for each release; who uses such a version again keeps it."""

    def __init__(self, store: ReleaseStore, effects: Effects, door: Door, outside: Outside, clock: Clock) -> None:
        self._outside = outside
        self._store = store
        self._effects = effects
        self._door = door
        self._clock = clock

    async def work(self) -> None:
        """All whose time is over. Raises Transient without a database."""
        for release in await self._store.cooling(self._clock.now()):
            try:
                if await self._cool(release):
                    await self._store.cooled(release.number)
            except Transient:
                raise
            except InterlockError as error:
                log.warning("release.not_cooled", release=release.number, reason=error.message)
                await self._store.cooled(release.number)

    async def _cool(self, release: Release) -> bool:
        """Whether nothing is left to do about it."""
        version = release.stable if release.state == "released" else release.candidate
        if version is None or await self._is_used(release, version):
            return True
        instance = await asyncio.to_thread(self._outside[SERVICE_INSTANCES].find, release.name, version)
        if instance is None or instance.stage not in STANDING:
            return True
        routing = await self._effects.routing(release)
        if release.state == "released" and routing is not None and any(arm.name == version for arm in routing.arms):
            shares: JsonObject = {release.candidate: WHOLE}
            if not await self._done(release, "traffic.route", {"shares": shares}, "cool_route"):
                return False
        if not await self._is_drained(release, version):
            return False
        return await self._done(release, "service.stop", {"version": version}, "cool_stop")

    async def _is_used(self, release: Release, version: str) -> bool:
        """Whether users have it, or a later release is about it."""
        routing = await self._effects.routing(release)
        if routing is not None and any(arm.name == version and arm.share for arm in routing.arms):
            return True
        later = [each for each in await self._store.newest(release.name) if each.number > release.number]
        return any(version in {each.stable, each.candidate} and each.revocable for each in later)

    async def _is_drained(self, release: Release, version: str) -> bool:
        """Whether it has answered what it was answering, or had long enough for that."""
        since = release.closed_at or release.state_at
        if (self._clock.now() - since).total_seconds() > DRAIN_SECONDS:
            return True
        return await asyncio.to_thread(self._effects.plane(release).in_flight, release.name, version) == 0

    async def _done(self, release: Release, action: str, args: JsonObject, what: str) -> bool:
        whole: JsonObject = {"workload": release.name, **args, "release": release.number}
        hour = int(self._clock.now().timestamp() // 3600)
        key = f"release:{release.number}:{what}:{hour}"
        reason = f"release {release.number} is {release.state}: nobody needs this version any more"
        ask = Ask(action=action, args=whole, key=key, reason=reason, confirmed=True)
        if (await self._door.propose(SYSTEM, ask)).decision.outcome == "forbid":
            return False  # a freeze, or an hour without changes: it keeps running until then
        run = await self._door.submit(SYSTEM, ask)
        if not isinstance(run, Run):
            return False
        run = await self._door.wait(run.number, WAIT_SECONDS)
        return run.state is RunState.SUCCEEDED
