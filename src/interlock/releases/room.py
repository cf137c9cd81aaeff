"""Puts releases into the resident process: who drives them, who watches, views, and what Actions may arrange."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from interlock.core.errors import InterlockError
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.metric_source import METRIC_SOURCE
from interlock.core.model import JsonObject
from interlock.core.schedule import SCHEDULES
from interlock.core.service_instance import SERVICE_INSTANCES
from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.lib.canonical import digest_of
from interlock.releases.cooling import Cooling
from interlock.releases.effects import Effects
from interlock.releases.filing import Filing
from interlock.releases.folders import ReleaseFolders
from interlock.releases.inspection import inspect_releases
from interlock.releases.live import Live, LiveReleases
from interlock.releases.model import Release
from interlock.releases.orders import ReleaseOrders
from interlock.releases.rollout import LOOK_SECONDS, Rollout
from interlock.releases.shadows import Shadows
from interlock.releases.store import ReleaseStore
from interlock.releases.views import CompareView, ReleaseDesk, ReleasesView, ReportView, TimelineView
from interlock.releases.watcher import Watcher, WatchParts

COOL_SECONDS = 2.0
REPORT_SECONDS = 60.0
PRUNE_SECONDS = 3600.0


def open_room(parts: RoomParts) -> Room:
    """Everything about releases of services; no I/O yet."""
    store, live = ReleaseStore(parts.database), LiveReleases()
    effects = Effects(store, parts.store, parts.door, parts.outside, parts.clock)
    folders = ReleaseFolders(parts.state_folder / "releases")
    shadows = Shadows(parts.outside, parts.clock, folders, lambda: parts.project().secrets_patterns)
    filing = Filing(folders, store, shadows.words)

    async def watch(release: Release, known: Live) -> None:
        probe, metrics = parts.outside[HEALTH_PROBE], parts.outside[METRIC_SOURCE]
        standing = WatchParts(store, effects, parts.door, parts.clock, probe, metrics, rollout.stands)
        await Watcher(release, known, standing).run()

    rollout = Rollout(store, effects, live, parts.clock, watch=watch, shadow=shadows, report=filing.file)
    cooling = Cooling(store, effects, parts.door, parts.outside, parts.clock)
    orders = ReleaseOrders(store, parts.clock, lambda name: _snapshot(parts, name), live.moved)
    desk = ReleaseDesk(store, live, parts.clock, filing.gather, filing.files, partial(_percent, effects))

    async def prune() -> None:
        days = parts.project().retention.bodies_days
        await store.prune(parts.clock.now() - timedelta(days=days))

    return Room(
        views=(ReleasesView(desk), TimelineView(desk), CompareView(desk), ReportView(desk)),
        reconcilers=(
            Reconciler("releases", rollout.work, LOOK_SECONDS),
            Reconciler("cool_releases", cooling.work, COOL_SECONDS),
            Reconciler("report_releases", rollout.report_missing, REPORT_SECONDS),
            Reconciler("prune_releases", prune, PRUNE_SECONDS),
        ),
        arrangements=orders.arrangements(),
        troubles=lambda: rollout.troubles,
        inspect=lambda project: inspect_releases(project, parts.book.current),
    )


async def _percent(effects: Effects, release: Release) -> float | None:
    """Which part of the users has the candidate at the proxy; None while it cannot be asked."""
    try:
        routing = await effects.routing(release)
    except InterlockError:
        return None
    arms = routing.arms if routing is not None else ()
    return sum(arm.share for arm in arms if arm.name == release.candidate) / 100


async def _snapshot(parts: RoomParts, name: str) -> JsonObject:
    """What there was before besides the routing: versions that ran, the configuration, which schedules were paused."""
    return await asyncio.to_thread(_look, parts, name)


def _look(parts: RoomParts, name: str) -> JsonObject:
    project = parts.project()
    instances = parts.outside[SERVICE_INSTANCES].of(name)
    schedules = parts.outside[SCHEDULES]
    paused: JsonObject = {}
    for each in sorted(project.schedules):
        try:
            found = schedules.find(each)
        except InterlockError as error:
            paused[each] = f"not known: {error.message}"
        else:
            paused[each] = found.paused_by if found is not None else None
    return {
        "versions": [
            {"version": each.spec.version, "identity": each.spec.identity, "stage": each.stage} for each in instances
        ],
        "configuration": digest_of(project.model_dump(mode="json")),
        "schedules_paused_by": paused,
    }
