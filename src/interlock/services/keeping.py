"""Compares what should run with what does, starts dead keepers again, and lets go of what nobody needs any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from interlock.core.errors import InterlockError, NotFound, Permanent
from interlock.core.keeper import KEEPER
from interlock.core.outside import Outside
from interlock.core.project import Project
from interlock.core.service_instance import STANDING, ServiceInstance
from interlock.core.service_runtime import SERVICE_RUNTIMES, InstanceState
from interlock.core.source_layout import SOURCE_LAYOUTS
from interlock.lib.clock import Clock
from interlock.services.configuration import layout_name
from interlock.services.store import InstanceStore

log = structlog.get_logger()

STOPPED_KEPT = 5
"""So many versions of each workload that were stopped keep their files, so that they can be started again at once."""


class ServiceKeeping:
    """Work on timers. What it finds wrong needs a person: nothing is started here but keepers that died."""

    def __init__(self, store: InstanceStore, outside: Outside, project: Callable[[], Project], clock: Clock) -> None:
        self._store = store
        self._outside = outside
        self._project = project
        self._clock = clock
        self._troubles: tuple[InterlockError, ...] = ()
        self._not_kept: InterlockError | None = None

    @property
    def troubles(self) -> tuple[InterlockError, ...]:
        """What of it needs somebody, as of the last look."""
        return self._troubles if self._not_kept is None else (self._not_kept, *self._troubles)

    async def revive(self) -> None:
        """Keepers die with the machine; what they kept was asked for once, and goes on.

        What fails is told as a trouble as long as it does, and logged once.
        """
        try:
            revived = await asyncio.to_thread(self._outside[KEEPER].revive)
        except InterlockError as error:
            if self._not_kept is None or self._not_kept.message != error.message:
                log.warning("keeper.not_revived", error_code=error.code, reason=error.message, fix=error.fix)
            self._not_kept = error
            return
        self._not_kept = None
        for name in revived:
            log.warning("keeper.revived", name=name, reason="its keeper had died")

    async def compare(self) -> None:
        """Who should run and does not."""
        kept = await asyncio.to_thread(self._outside[KEEPER].states)
        instances = await self._store.all()
        found = []
        for instance in instances:
            if instance.stage == "running":
                trouble = await asyncio.to_thread(self._look, instance)
                found += [trouble] if trouble is not None else []
        recorded = {each.spec.name for each in instances if each.stage in STANDING}
        for name in (state.process.name for state in kept):
            if "@" in name and name not in recorded and await self._is_unrecorded(name):
                found.append(unrecorded(name))
        self._troubles = tuple(found)

    async def _is_unrecorded(self, name: str) -> bool:
        """A second look: it may have been stopped between the first two."""
        workload, _, version = name.partition("@")
        instance = await self._store.find(workload, version)
        runs = await asyncio.to_thread(self._outside[KEEPER].state, name) is not None
        return runs and (instance is None or instance.stage not in STANDING)

    async def let_go(self) -> None:
        """Files, logs and rows of versions that ended long ago, and files of services that no row names."""
        before = self._clock.now() - timedelta(days=self._project().retention.bodies_days)
        keep = kept_sources(await self._store.all())
        removed = [
            place
            for workload, sources in keep.items()
            for place in await asyncio.to_thread(self._outside[SOURCE_LAYOUTS].discard, workload, sources)
        ]
        forgotten = await self._store.forget(before, STOPPED_KEPT)
        for name in forgotten:
            await asyncio.to_thread(self._forget_logs, name)
        if forgotten or removed:
            log.info("services.let_go", versions=len(forgotten), folders=len(removed))

    def _forget_logs(self, name: str) -> None:
        try:
            self._outside[KEEPER].forget(name)
        except NotFound:
            return  # another runtime's, or gone already

    def _look(self, instance: ServiceInstance) -> InterlockError | None:
        try:
            state = self._outside[SERVICE_RUNTIMES[instance.spec.runtime]].state(instance.spec)
        except InterlockError as error:
            return error
        return trouble_of(instance, state)


def kept_sources(instances: Iterable[ServiceInstance]) -> dict[str, set[str]]:
    """The folders of files that stay, by workload: of all versions that stand, and of the newest that were stopped.

    `instances` are newest first.
    """
    keep: dict[str, set[str]] = {}
    stopped: Counter[str] = Counter()
    for instance in instances:
        workload, source, configuration = instance.spec.workload, instance.spec.source, instance.spec.configuration
        stopped[workload] += instance.stage not in STANDING
        sources = keep.setdefault(workload, set())
        configurations = keep.setdefault(layout_name(workload), set())
        if instance.stage not in STANDING and stopped[workload] > STOPPED_KEPT:
            continue
        sources |= {source} if source is not None else set()
        configurations |= {configuration.folder} if configuration is not None else set()
    return keep


def unrecorded(name: str) -> InterlockError:
    """A version runs although the table does not say so: an older one was restored, say."""
    workload, _, version = name.partition("@")
    msg = f"{name} runs, and no record says that it should"
    ask = f"interlock service stop {workload} {version}"
    return Permanent(msg, code="service.unrecorded", fix=f"{ask}   # then start it anew")


def trouble_of(instance: ServiceInstance, state: InstanceState | None) -> InterlockError | None:
    """What is wrong with a version that should run, as its runtime sees it; None where nothing is."""
    spec = instance.spec
    if state is not None and state.phase not in {"given_up", "stopped"}:
        return None
    if state is None:
        msg, fix = f"{spec.name} should run, and its runtime does not know it", "start it again"
    elif state.phase == "given_up":
        msg, fix = f"{spec.name} ended too often and was given up ({state.last_exit})", f"see {state.log}"
    else:
        msg, fix = f"{spec.name} should run, and does not", f"see {state.log}"
    ask = f"interlock service start {spec.workload} {spec.version}"
    return Permanent(msg, code="service.down", fix=f"{fix}; then: {ask}")
