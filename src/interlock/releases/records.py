"""Lets Actions see releases, from their threads, and answers whether a release covers what is asked for in its name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from interlock.core.errors import Denied
from interlock.core.release import ReleaseRecord
from interlock.core.traffic import WHOLE
from interlock.core.workload import ServiceWorkload
from interlock.releases.model import Release, wanted
from interlock.releases.store import ReleaseStore

BRIDGE_SECONDS = 30.0

Found = TypeVar("Found")


class StoredReleases:
    """Reads the tables of releases in the loop that they belong to."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()

    def release(self, number: int) -> ReleaseRecord:
        """Raises NotFound."""
        return self.whole(number).record

    def require(
        self, number: int, workload: str, *, versions: tuple[str, ...], shares: Mapping[str, int] | None = None
    ) -> ReleaseRecord:
        """Raises NotFound, and Denied when it covers no such thing."""
        found = self.whole(number)
        fault = uncovered(found, workload, versions, shares)
        if fault is not None:
            msg = f"release {number} does not cover this: {fault}"
            raise Denied(msg, code="release.uncovered", fix="ask for it by hand, without `release`")
        return found.record

    def active(self, workload: str) -> ReleaseRecord | None:
        """The one that is on its way."""
        found = self._read(lambda: self._store.active(workload))
        return found[0].record if found else None

    def revocable(self, workload: str) -> ReleaseRecord | None:
        """The one that a rollback would take back."""
        found = self.revocable_whole(workload)
        return found.record if found is not None else None

    def declared(self, number: int) -> ServiceWorkload:
        """What it was approved with, whatever interlock.yaml says since. Raises NotFound."""
        return self.whole(number).workload

    def whole(self, number: int) -> Release:
        """All of it. Raises NotFound."""
        return self._read(lambda: self._store.get(number))

    def revocable_whole(self, workload: str) -> Release | None:
        """All of the one that a rollback would take back."""
        return self._read(lambda: self._store.revocable(workload))

    def _read(self, ask: Callable[[], Awaitable[Found]]) -> Found:
        async def read() -> Found:
            return await ask()

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(BRIDGE_SECONDS)


def uncovered(
    release: Release, workload: str, versions: tuple[str, ...], shares: Mapping[str, int] | None
) -> str | None:
    """Why a release covers no such step; None when it does. Pure."""
    if release.name != workload:
        return f"it is of {release.name}"
    if release.over and release.warm_until is None:
        return f"it is over ({release.state})"
    foreign = sorted(set(versions) - {release.stable, release.candidate})
    if foreign:
        return f"it is not about {', '.join(foreign)}"
    if shares is None:
        return None
    given = {name: share for name, share in shares.items() if share}
    allowed = {name: share for name, share in wanted(release).shares or () if share}
    if release.state == "released":
        allowed = {release.candidate: WHOLE}
    return None if given == allowed else f"it stands at {release.state} and wants other shares"
