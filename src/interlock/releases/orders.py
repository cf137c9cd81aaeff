"""What the Actions of releases may arrange: a new row, and what an order makes of a release."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast, get_args

from interlock.core.errors import Conflict, Invalid
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.rooms import Arrange
from interlock.lib.clock import Clock
from interlock.releases.machine import Order, obey
from interlock.releases.model import Cause, Next, Release
from interlock.releases.store import ReleaseStore

LOOKS_MAX = 5


class ReleaseOrders:
    """`release.start`, and one arrangement for each order.

    Args:
        snapshot: What there is to go back to besides the routing: what runs, configuration, schedules.
        moved: Called with the number of a release that was moved, so that nobody sleeps meanwhile.
    """

    def __init__(
        self,
        store: ReleaseStore,
        clock: Clock,
        snapshot: Callable[[str], Awaitable[JsonObject]],
        moved: Callable[[int], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._snapshot = snapshot
        self._moved = moved

    def arrangements(self) -> dict[str, Arrange]:
        """By their names."""
        orders = {f"release.{order}": self._arrange(cast("Order", order)) for order in get_args(Order)}
        return {"release.start": self.start, **orders}

    async def start(self, run: Run, payload: JsonObject) -> JsonObject:
        """Raises Conflict with the number of the one that is on its way."""
        name = str(payload["name"])
        snapshot: JsonObject = {"routing": payload["routing"], **await self._snapshot(name)}
        row: JsonObject = {**payload, "salt": f"r{run.number}", "snapshot": snapshot, "started_by": run.actor.id}
        number = await self._store.begin(row, run.number, self._clock.now())
        self._moved(number)
        return {"release": number}

    def _arrange(self, order: Order) -> Arrange:
        async def arrange(run: Run, payload: JsonObject) -> JsonObject:
            return await self._give(order, run, payload)

        return arrange

    async def _give(self, order: Order, run: Run, payload: JsonObject) -> JsonObject:
        """One that was given already by this Run, or that somebody moved meanwhile, is looked at again."""
        number = payload.get("release")
        if not isinstance(number, int):
            msg = "an order names its release"
            raise Invalid(msg, code="release.number")
        for _ in range(LOOKS_MAX):
            release = await self._store.get(number)
            if await self._store.was_ordered(number, run.number):
                return {"release": number, "state": release.state}
            following = _with_evidence(_obeyed(release, order, payload), run, payload)
            try:
                moved = await self._store.move(release, following, self._clock.now(), run=run.number)
            except Conflict as error:
                if error.code != "release.moved":
                    raise
                continue
            self._moved(number)
            return {"release": number, "state": moved.state}
        msg = f"release {number} does not stand still"
        raise Conflict(msg, code="release.moved", fix="ask again")


def _obeyed(release: Release, order: Order, payload: JsonObject) -> Next:
    return obey(
        release,
        order,
        " ".join(str(payload.get("reason") or "").split()) or "no reason given",
        full=payload.get("full") is True,
        accept=payload.get("accept_irreversible") is True,
    )


def _with_evidence(following: Next, run: Run, payload: JsonObject) -> Next:
    """Who ordered it stands in the timeline; what the watcher saw goes with it, when Interlock itself orders. What
    anybody else calls evidence is none: who sends a release back does not write its report."""
    by_itself = run.actor.kind == "system"
    evidence = payload.get("evidence") if by_itself else None
    seen = evidence if isinstance(evidence, dict) else {}
    cause: Cause | None = following.cause
    if by_itself and seen.get("cause") in get_args(Cause):
        cause = cast("Cause", seen["cause"])
    by = "" if by_itself else f" ({run.actor.id})"
    notes = tuple(replace(note, text=f"{note.text}{by}", data=seen or note.data) for note in following.notes)
    return replace(following, cause=cause, evidence=seen or following.evidence, notes=notes)
