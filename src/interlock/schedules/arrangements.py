"""What Actions may change in the tables of schedules; the same Run may do each twice and changes them once."""

from __future__ import annotations

from interlock.core.errors import Conflict, Permanent
from interlock.core.event import Event
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.core.schedule import Schedule
from interlock.lib.clock import Clock
from interlock.schedules.model import timing_digest
from interlock.schedules.store import ScheduleStore


class ScheduleArrangements:
    """`schedule.once`, `schedule.cancel`, `schedule.pause`, `schedule.resume`."""

    def __init__(self, store: ScheduleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def once(self, run: Run, payload: JsonObject) -> JsonObject:
        """Raises Conflict when the name was taken meanwhile."""
        name, now = str(payload["name"]), self._clock.now()
        schedule = Schedule.model_validate(payload["spec"])
        if not await self._store.once(name, schedule, timing_digest(schedule), run.actor, run.number, now):
            msg = f"there is a schedule {name!r} already"
            raise Conflict(msg, code="schedule.name", fix="choose another name")
        return {"name": name, "count": 1}

    async def cancel(self, run: Run, payload: JsonObject) -> JsonObject:
        """Only a one-off: what interlock.yaml declares would be declared again at once."""
        name, now = str(payload["name"]), self._clock.now()
        found = [each for each in await self._store.standings(now, name) if each.declared]
        if found and not found[0].one_off:
            msg = f"{name} is declared in interlock.yaml"
            raise Permanent(msg, code="schedule.declared", fix=f"interlock schedules pause {name}")
        await self._store.forget(name, now, f"cancelled by {run.actor.id} (Run {run.number})")
        if found:
            await self._tell(run, "cancelled", name)
        return {"name": name, "count": len(found)}

    async def pause(self, run: Run, payload: JsonObject) -> JsonObject:
        """Who, why and until when stands in the view."""
        name, now = str(payload["name"]), self._clock.now()
        count = await self._store.pause(name, run.actor.id, payload, run.number, now)
        if count:
            await self._tell(run, "paused", name, reason=payload["reason"])
        return {"name": name, "count": count}

    async def resume(self, run: Run, payload: JsonObject) -> JsonObject:
        """From now on."""
        name = str(payload["name"])
        count = await self._store.resume(name, self._clock.now())
        if count:
            await self._tell(run, "resumed", name)
        return {"name": name, "count": count}

    async def _tell(self, run: Run, word: str, name: str, **data: object) -> None:
        labels = {"schedule": name, "action": run.action, "actor": run.actor.id}
        body: JsonObject = {"schedule": name, "run": run.number, "by": run.actor.id}
        reason = data.get("reason")
        body |= {"reason": reason} if isinstance(reason, str) else {}
        await self._store.tell(Event(kind=f"schedule.{word}", labels=labels, data=body))
