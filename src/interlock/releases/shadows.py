"""Keeps a comparator running while a release is in the shadow, and reads what it learned."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from interlock.comparison.shadow import (
    TASK_NAME,
    ComparatorTask,
    ShadowVerdict,
    comparator_process,
    differences_table,
    read_summary,
    shadow_verdict,
    write_task,
)
from interlock.core.errors import Conflict, InterlockError, Transient
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.keeper import KEEPER
from interlock.core.outside import Outside
from interlock.core.service_instance import SERVICE_INSTANCES
from interlock.core.traffic import DATA_PLANES, Mirror
from interlock.core.workload import ShadowStep
from interlock.lib.clock import Clock
from interlock.releases.folders import ReleaseFolders
from interlock.releases.model import Release, Seen, basis_points

PORTS = range(28_000, 29_000)
"""Where comparators listen; versions of services are given lower ones."""


class Shadows:
    """One comparator for each release that is in the shadow. `secrets`: the project's own patterns of secrets."""

    def __init__(
        self, outside: Outside, clock: Clock, folders: ReleaseFolders, secrets: Callable[[], tuple[str, ...]]
    ) -> None:
        self._outside = outside
        self._clock = clock
        self._folders = folders
        self._secrets = secrets
        self._ended: set[int] = set()

    async def begin(self, release: Release) -> Mirror:
        """Raises Transient where no port is free or nothing is known of a version, and what the keeper raises."""
        self._ended.discard(release.number)
        return await asyncio.to_thread(self._begin, release)

    async def look(self, release: Release) -> Seen:
        """What was found so far."""
        found = await asyncio.to_thread(self.verdict, release)
        return Seen(shadow=found.verdict, shadow_words=found.words, evidence=found.evidence)

    async def end(self, release: Release) -> None:
        """Its files stay in the release's folder; what the keeper knows of it goes when the release is over."""
        if not (self._folders.path(release.number) / TASK_NAME).exists():
            return
        if release.over:
            await asyncio.to_thread(self._stop, release)
            self._ended.discard(release.number)
        elif release.number not in self._ended:
            await asyncio.to_thread(self._stop, release)
            self._ended.add(release.number)

    def verdict(self, release: Release) -> ShadowVerdict:
        """What the comparison says about the candidate. Raises Permanent when its summary cannot be read."""
        step = release.current
        pairs = step.pairs if isinstance(step, ShadowStep) else 1
        summary = read_summary(self._folders.path(release.number))
        return shadow_verdict(summary, release.workload.comparison, pairs, self._clock.now())

    def words(self, release: Release) -> tuple[str, str]:
        """What was compared in one sentence, and the differences as a table; both empty where nothing was."""
        if not (self._folders.path(release.number) / TASK_NAME).exists():
            return "", ""
        summary = read_summary(self._folders.path(release.number))
        until = summary.updated_at if summary is not None else self._clock.now()
        found = shadow_verdict(summary, release.workload.comparison, 1, until)
        return found.words, differences_table(summary) if summary is not None else ""

    def _begin(self, release: Release) -> Mirror:
        step = release.current
        share = basis_points(step.shadow_percent) if isinstance(step, ShadowStep) else 0
        folder = self._folders.made(release.number)
        path = folder / TASK_NAME
        task = ComparatorTask.model_validate_json(path.read_bytes()) if path.exists() else self._task(release)
        if not path.exists():
            path = write_task(folder, task)
        process = comparator_process(task, path, sys.executable)
        keeper = self._outside[KEEPER]
        try:
            keeper.ensure(process)
        except Conflict:
            # The interpreter or the package moved since: what it learned lies in its folder, and it goes on from there.
            keeper.stop(process.name)
            keeper.ensure(process)
        return Mirror(address=task.listen, share=share)

    def _task(self, release: Release) -> ComparatorTask:
        routing = self._outside[DATA_PLANES[release.workload.traffic.proxy]].current(release.name)
        stable = next((arm.address for arm in routing.arms if arm.name == release.stable), None) if routing else None
        candidate = self._outside[SERVICE_INSTANCES].find(release.name, release.candidate)
        if stable is None or candidate is None or release.stable is None:
            msg = f"it is not known where both versions of {release.name} listen"
            raise Transient(msg, code="release.addresses", fix=f"interlock release status {release.name}")
        return ComparatorTask(
            release=release.number,
            workload=release.name,
            listen=f"127.0.0.1:{self._free_port()}",
            stable=stable,
            stable_version=release.stable,
            candidate=candidate.address,
            candidate_version=release.candidate,
            rules=release.workload.comparison,
            secrets=self._secrets(),
        )

    def _free_port(self) -> int:
        probe = self._outside[HEALTH_PROBE]
        port = next((each for each in PORTS if probe.is_free(each)), None)
        if port is None:
            msg = f"no port between {PORTS.start} and {PORTS.stop - 1} is free"
            raise Transient(msg, code="release.ports", fix="end what listens there")
        return port

    def _stop(self, release: Release) -> None:
        task = ComparatorTask.model_validate_json((self._folders.path(release.number) / TASK_NAME).read_bytes())
        name = comparator_process(task, self._folders.path(release.number) / TASK_NAME, sys.executable).name
        try:
            self._outside[KEEPER].stop(name)
            if release.over:
                self._outside[KEEPER].forget(name)
        except InterlockError as error:
            msg = f"the comparator of release {release.number} cannot be ended yet: {error.message}"
            raise Transient(msg, code="release.comparator", fix="interlock status") from error
