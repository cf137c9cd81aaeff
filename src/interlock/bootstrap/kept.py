"""What goes on when Interlock ends: its own keeper, also for those who only look."""

from __future__ import annotations

import functools
from pathlib import Path

from interlock.adapters.keeper import KEEPER_MODULES, OwnKeeper
from interlock.core.keeper import KeptState
from interlock.engine.guard.image import anonymous_file, compiled_program
from interlock.lib.clock import Clock, SystemClock


@functools.cache
def _keeper_program() -> int:
    """The compiled program of keepers: a file in memory, open for as long as this process lives."""
    return anonymous_file(compiled_program(KEEPER_MODULES, "keeper"))


def own_keeper(state_folder: Path, clock: Clock) -> OwnKeeper:
    """What keeps processes running beyond our own end."""
    return OwnKeeper(state_folder / "kept", clock, _keeper_program)


def kept_processes(state_folder: Path) -> tuple[KeptState, ...]:
    """All that is kept, whether Interlock runs or not. PermissionError passes through: it is another account's."""
    return own_keeper(state_folder, SystemClock()).states()
