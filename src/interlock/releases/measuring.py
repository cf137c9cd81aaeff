"""Keeps asking for the measures that a release declares, beside the ticks of its judge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interlock.core.errors import InterlockError
from interlock.core.judgement import JudgeSettings
from interlock.core.metric_source import MetricSource
from interlock.core.traffic import Routing
from interlock.releases.judge.collect import Collected, Endpoint, collect

ASK_SECONDS = 2.0
"""Between two rounds. An endpoint that hangs holds up the round, never the judge."""
NOTHING = Collected({}, ())


class Measuring:
    """The newest readings of all declared measures, each given to the judge once.

    Args:
        settings: What is declared; without measures nothing is ever asked.
        stable: The versions that are compared.
        candidate: As above.
        source: Asks and reads.
    """

    def __init__(self, settings: JudgeSettings, stable: str, candidate: str, source: MetricSource) -> None:
        self._settings = settings
        self._versions = (stable, candidate)
        self._source = source
        self._latest = NOTHING

    def take(self) -> Collected:
        """What was read since it was last asked for; what could not be read is told until it can."""
        latest, self._latest = self._latest, Collected({}, self._latest.problems)
        return latest

    async def run(self, routing: Callable[[], Awaitable[Routing | None]]) -> None:
        """Ask for ever; `routing` is what is in force, and says where each version listens."""
        while self._settings.measures:
            try:
                self._latest = await self._round(await routing())
            except InterlockError as error:
                self._latest = Collected({}, (error.message,))
            await asyncio.sleep(ASK_SECONDS)

    async def _round(self, routing: Routing | None) -> Collected:
        places = {arm.name: arm.address for arm in routing.arms} if routing is not None else {}
        missing = [version for version in self._versions if version not in places]
        if missing:
            return Collected({}, tuple(f"nobody knows where {version} listens" for version in missing))
        stable, candidate = (Endpoint(version, places[version]) for version in self._versions)
        return await asyncio.to_thread(
            collect,
            self._settings,
            stable=stable,
            candidate=candidate,
            fetch=self._source.fetch,
            read_file=self._source.read,
        )
