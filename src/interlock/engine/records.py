"""Lets Actions read Interlock's own tables from their threads."""

from __future__ import annotations

import asyncio

import structlog

from interlock.core.errors import InterlockError, Permanent
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.adoption_seal import AdoptionSeal
from interlock.engine.control_store import ControlStore
from interlock.engine.store import RunStore

BRIDGE_SECONDS = 30.0
TROUBLES_MAX = 20
NAME_CHARACTERS_MAX = 100

log = structlog.get_logger()


class LiveRecords:
    """Reads Interlock's own tables for Actions, from their threads."""

    def __init__(self, store: RunStore, control: ControlStore, seal: AdoptionSeal) -> None:
        self._store = store
        self._control = control
        self._seal = seal
        self._loop = asyncio.get_running_loop()
        self._adopted: tuple[JsonObject, ...] = ()
        self._strange: tuple[str, ...] = ()

    def run(self, number: int) -> Run:
        """Raises NotFound."""
        return asyncio.run_coroutine_threadsafe(self._store.by_number(number), self._loop).result(BRIDGE_SECONDS)

    def adopted(self) -> tuple[JsonObject, ...]:
        """As of the last refresh, which every adoption brings about: those that Interlock itself wrote down."""
        return self._adopted

    @property
    def troubles(self) -> tuple[InterlockError, ...]:
        """One for each row of adopted programs that counts for nothing, the first of them."""
        return tuple(_strange(name) for name in self._strange[:TROUBLES_MAX])

    async def adopt(self, run: int, by: str, program: JsonObject) -> None:
        """Make a program (`name`, `path`, `sha256`, `schema`) known, in place of an earlier one of its name."""
        row = {name: program[name] for name in ("name", "path", "sha256")}
        row |= {"program": program["schema"], "adopted_by": by, "run": run}
        await self._control.adopt(row, self._seal.of(row))
        await self.refresh()

    async def forget(self, name: str) -> int:
        """Make a program unknown again; how many there were."""
        count = await self._control.forget(name)
        await self.refresh()
        return count

    async def refresh(self) -> None:
        """Read the adopted programs anew. What somebody else wrote is no program, and is told."""
        rows = await self._control.adopted()
        sound = [self._seal.holds(row) for row in rows]
        self._adopted = tuple(row["program"] for row, ours in zip(rows, sound, strict=True) if ours)
        strange = tuple(str(row["name"]) for row, ours in zip(rows, sound, strict=True) if not ours)
        for name in [name for name in strange if name not in self._strange][:TROUBLES_MAX]:
            log.error("adopted.unbound", program=name[:NAME_CHARACTERS_MAX])
        self._strange = strange


def _strange(name: str) -> Permanent:
    shown = repr(name[:NAME_CHARACTERS_MAX])
    msg = f"Interlock did not write down the adopted program {shown} as it stands in the database; it is not known"
    fix = (
        "if it is yours, and older than the column `mac`: interlock adopt PATH --name NAME. Otherwise find out who "
        "else writes to the database; to adopt something under this name, and to undo that, removes the row"
    )
    return Permanent(msg, code="adopt.unbound", fix=fix)
