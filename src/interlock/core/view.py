"""A named, typed read of Interlock's own tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from interlock.core.actor import Actor
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses


class View(ABC):
    """One read; it is checked by policy, makes no Run, and never leaves the process.

    `Args` is validated strictly before `read` is called. `discloses` is what an answer may tell at worst.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    discloses: ClassVar[Discloses] = "nothing"
    Args: ClassVar[type[Frozen]]

    def subject(self, args: Any) -> str:  # noqa: ARG002 - most views are one thing
        """What policy and codes are asked about: the view, or one of many things that it tells of, as `NAME.THING`."""
        return self.name

    @abstractmethod
    async def read(self, actor: Actor, args: Any) -> JsonObject:
        """Answer. Raises NotFound or Invalid."""
