"""The outside systems that Actions and rooms may speak to: each behind a Protocol, under a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from interlock.core.errors import Permanent

System = TypeVar("System")


@dataclass(frozen=True)
class OutsideKey(Generic[System]):
    """Names one outside system and says which Protocol it fulfils: `DATABASES: OutsideKey[SqlDatabases]`.

    It stands beside its Protocol in `core`, so that the adapter, the room and `bootstrap` mean the same thing.
    """

    name: str


@runtime_checkable
class Closing(Protocol):
    """An outside system that holds connections or processes between two calls."""

    def close(self) -> None:
        """Let go of them; nothing is asked of it afterwards."""
        ...


class Outside:
    """What `bootstrap` handed in; an adapter is looked up by its key and comes back typed."""

    def __init__(self, systems: Mapping[OutsideKey[Any], object] | None = None) -> None:
        self._systems = dict(systems or {})

    def __getitem__(self, key: OutsideKey[System]) -> System:
        """The system under this key. Raises Permanent when this installation has none."""
        try:
            return cast("System", self._systems[key])
        except KeyError:
            msg = f"this installation cannot reach {key.name}"
            raise Permanent(msg, code="outside.missing", fix="see `interlock status`") from None

    def close(self) -> None:
        """Let go of what is held open: called once, when the installation ends."""
        for system in self._systems.values():
            if isinstance(system, Closing):
                system.close()
