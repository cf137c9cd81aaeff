"""Puts batch jobs into the resident process: red lines, a view, and what Actions may arrange."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from interlock.batch.arrangements import BatchArrangements
from interlock.batch.inspection import inspect_batches
from interlock.batch.pruning import prune_files
from interlock.batch.red_lines import RedLines
from interlock.batch.store import BatchStore
from interlock.batch.views import BatchesView, BatchReportView
from interlock.engine.rooms import Reconciler, Room, RoomParts

LOOK_SECONDS = 1.0
PRUNE_SECONDS = 3600.0
FOLDER = ("releases", "batch")
"""Below the state folder."""


def open_room(parts: RoomParts) -> Room:
    """Everything about batch jobs; no I/O yet."""
    store = BatchStore(parts.database)
    folder = parts.state_folder.joinpath(*FOLDER)
    red_lines = RedLines(store, parts.door)

    async def prune() -> None:
        days = parts.project().retention.bodies_days
        now = parts.clock.now()
        await store.prune(now - timedelta(days=days))
        await asyncio.to_thread(prune_files, folder, now, days)

    return Room(
        views=(BatchesView(store, parts.project, folder), BatchReportView(store, parts.project, folder)),
        reconcilers=(
            Reconciler("batch_red_lines", red_lines.work, LOOK_SECONDS),
            Reconciler("prune_batches", prune, PRUNE_SECONDS),
        ),
        arrangements=BatchArrangements(store, parts.clock).all(),
        troubles=lambda: red_lines.troubles,
        inspect=inspect_batches,
    )
