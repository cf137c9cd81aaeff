"""Puts judges of other people's rollouts into the resident process: views, and the work of reading and judging."""

from __future__ import annotations

from datetime import timedelta

from interlock.engine.rooms import Reconciler, Room, RoomParts
from interlock.judges.inspection import inspect_judges
from interlock.judges.sessions import Sessions
from interlock.judges.store import SessionStore
from interlock.judges.views import JudgesView, JudgeView

LOOK_SECONDS = 0.5
PRUNE_SECONDS = 3600.0


def open_room(parts: RoomParts) -> Room:
    """Everything about judges; no I/O yet."""
    store = SessionStore(parts.database)
    sessions = Sessions(store, parts.project, parts.outside, parts.clock)

    async def prune() -> None:
        await store.prune(parts.clock.now() - timedelta(days=parts.project().retention.bodies_days))

    return Room(
        views=(JudgeView(sessions, parts.clock), JudgesView(sessions, parts.clock)),
        reconcilers=(
            Reconciler("judge_rollouts", sessions.work, LOOK_SECONDS),
            Reconciler("prune_judges", prune, PRUNE_SECONDS),
        ),
        inspect=inspect_judges,
    )
