"""Ends what an installation of a test keeps running, which otherwise outlives the test."""

from __future__ import annotations

from pathlib import Path

from interlock.bootstrap.kept import own_keeper
from interlock.lib.clock import SystemClock


def end_kept(state_folder: Path) -> None:
    """Every process that is kept below this state folder."""
    keeper = own_keeper(state_folder, SystemClock())
    for state in keeper.states():
        keeper.stop(state.process.name)
