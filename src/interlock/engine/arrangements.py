"""What an Action may have changed in Interlock's own tables: freezes, pauses, adopted programs, holds."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.core.errors import NotFound
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.control_store import ControlStore
from interlock.engine.holds import Holds
from interlock.engine.records import LiveRecords
from interlock.engine.rooms import Arrange
from interlock.engine.store import RunStore


class Arrangements:
    """Each arrangement by its name; each may be repeated by the same Run."""

    def __init__(self, store: RunStore, control: ControlStore, records: LiveRecords, holds: Holds) -> None:
        self._store = store
        self._control = control
        self._records = records
        self._known: dict[str, Arrange] = {
            "freeze.set": self._set,
            "freeze.lift": self._lift,
            "program.adopt": self._adopt,
            "program.forget": self._forget,
            "hold.look": holds.look,
        }

    def add(self, further: Mapping[str, Arrange]) -> None:
        """What another room arranges. Raises ValueError for a name that is taken."""
        if taken := self._known.keys() & further.keys():
            msg = f"arranged twice: {', '.join(sorted(taken))}"
            raise ValueError(msg)
        self._known.update(further)

    async def __call__(self, name: str, run: int, payload: JsonObject) -> JsonObject:
        """Raises NotFound for a name that is none."""
        if name not in self._known:
            msg = f"nothing can be arranged under {name!r}"
            raise NotFound(msg, code="arrangement.unknown")
        return await self._known[name](await self._store.by_number(run), payload)

    async def _set(self, run: Run, payload: JsonObject) -> JsonObject:
        return {"count": await self._control.set_freeze(run.number, run.actor.id, payload)}

    async def _lift(self, run: Run, payload: JsonObject) -> JsonObject:
        scope, pattern = str(payload["scope"]), str(payload["pattern"])
        reason = payload.get("reason")
        only = reason if isinstance(reason, str) else None
        return {"count": await self._control.lift_freeze(run.actor.id, scope, pattern, only)}

    async def _adopt(self, run: Run, payload: JsonObject) -> JsonObject:
        await self._records.adopt(run.number, run.actor.id, payload)
        return {"name": payload["name"]}

    async def _forget(self, run: Run, payload: JsonObject) -> JsonObject:  # noqa: ARG002 - the shape of them all
        return {"count": await self._records.forget(str(payload["name"]))}
