"""What a capability adds to the resident process besides its Actions: views, work on a timer, arrangements."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from interlock.core.errors import InterlockError
from interlock.core.model import JsonObject
from interlock.core.outside import Outside
from interlock.core.ports import Blobs
from interlock.core.project import Project
from interlock.core.run import Run
from interlock.core.view import View
from interlock.engine.catalog import Catalog
from interlock.engine.db import Database
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader
from interlock.engine.runner import Runner
from interlock.engine.signals import Signals
from interlock.engine.store import RunStore
from interlock.engine.submit import Door
from interlock.engine.telemetry import Telemetry
from interlock.engine.tokens import TokenDesk
from interlock.lib.clock import Clock
from interlock.lib.redact import Redactor

Arrange = Callable[[Run, JsonObject], Awaitable[JsonObject]]
"""Changes Interlock's own tables on behalf of a Run; the same Run may do it twice and changes them once."""

Inspect = Callable[[Project], Iterable[JsonObject]]
"""What `check` finds about a capability, as `finding` shapes it, in a project that may not be in force yet."""


class Reconciler(NamedTuple):
    """Work without input that may run at any moment: again `seconds` after it ended."""

    name: str
    work: Callable[[], Awaitable[object]]
    seconds: float


@dataclass(frozen=True)
class RoomParts:
    """What a room may stand on."""

    state_folder: Path
    project: Callable[[], Project]
    database: Database
    clock: Clock
    store: RunStore
    door: Door
    judge: Judge
    loader: PolicyLoader
    book: PolicyBook
    catalog: Catalog
    blobs: Blobs
    redactor: Redactor
    signals: Signals
    tokens: TokenDesk
    outside: Outside
    telemetry: Telemetry
    runner: Runner
    troubles: Callable[[], list[JsonObject]]
    """What needs somebody, as `status` shows it; no I/O."""
    reload: Callable[[], object]
    """Puts interlock.yaml, programs and policies in force as they are on disk; raises Invalid and changes nothing."""


@dataclass(frozen=True)
class Room:
    """What one capability adds."""

    views: tuple[View, ...] = ()
    reconcilers: tuple[Reconciler, ...] = ()
    arrangements: Mapping[str, Arrange] = field(default_factory=dict)
    troubles: Callable[[], Iterable[InterlockError]] = tuple
    """What of it needs somebody now, for `status`; called often, so without I/O."""
    inspect: Inspect = lambda _: ()
    """Runs in a thread."""


class RoomModule(Protocol):
    """A capability folder's `room.py`."""

    def open_room(self, parts: RoomParts) -> Room:
        """Make what this capability adds; no I/O yet."""
        ...


def find_rooms(package: str = "interlock") -> tuple[RoomModule, ...]:
    """The `room` module of every capability folder that has one, by name."""
    root = importlib.import_module(package)
    names = sorted(
        f"{package}.{folder.name}.room"
        for folder in pkgutil.iter_modules(root.__path__)
        if folder.ispkg and importlib.util.find_spec(f"{package}.{folder.name}.room") is not None
    )
    return tuple(cast("RoomModule", importlib.import_module(name)) for name in names)
