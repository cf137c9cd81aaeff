"""Asks for the way back of batch jobs whose newest version failed too often in a row."""

from __future__ import annotations

import structlog

from interlock.batch.store import BatchStore
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.batch import BatchRouting
from interlock.core.errors import InterlockError
from interlock.engine.submit import Door

log = structlog.get_logger()

RETURNING = Actor(kind="system", name="rollback")


class RedLines:
    """No invocation waits for this: a version that crossed the line gets none from that moment. This writes it down."""

    def __init__(self, store: BatchStore, door: Door) -> None:
        self._store = store
        self._door = door
        self.troubles: list[InterlockError] = []

    async def work(self) -> None:
        """Every batch job that crossed it and has a way back, once for each state of its routing."""
        troubles: list[InterlockError] = []
        for routing in await self._store.routings():
            if not routing.crossed or (routing.candidate is None and routing.previous is None):
                continue
            try:
                await self._door.submit(RETURNING, back_ask(routing))
            except InterlockError as error:
                log.warning("batch.rollback_not_asked", workload=routing.workload, reason=error.message)
                troubles.append(error)
        self.troubles = troubles


def back_ask(routing: BatchRouting) -> Ask:
    """The same for the same state of the routing, however often it is asked."""
    reason = f"{routing.failures} key failures in a row"
    return Ask(
        action="batch.rollback",
        args={"workload": routing.workload, "reason": reason},
        key=f"batch:{routing.workload}:{routing.epoch}:back",
        reason=reason,
        confirmed=True,
    )
