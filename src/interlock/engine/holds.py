"""Where a Run that holds a target for a person meets that person's terminal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from interlock.core.model import JsonObject
from interlock.core.run import Run

ATTACH_SECONDS = 10.0
LOOK_SECONDS = 1.0


@dataclass
class _Terminal:
    """`changed` is set whenever one of the others changes."""

    attached: bool = False
    lost: bool = False
    exit_code: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Holds:
    """The terminals that people keep targets with.

    A hold whose terminal is gone never ends by itself: what the person did meanwhile is not known, so that its Run
    becomes unresolved.
    """

    def __init__(self) -> None:
        self._terminals: dict[int, _Terminal] = {}

    def attach(self, run: int) -> None:
        """A terminal is there for this Run; it may come before or shortly after the Run is started."""
        terminal = self._terminals.setdefault(run, _Terminal())
        terminal.attached = True
        terminal.changed.set()

    def ended(self, run: int, exit_code: int) -> None:
        """The person's command ended."""
        if (terminal := self._terminals.get(run)) is not None:
            terminal.exit_code = exit_code
            terminal.changed.set()

    def detach(self, run: int) -> None:
        """The terminal is gone; whoever waits for its command will never know."""
        if (terminal := self._terminals.pop(run, None)) is not None:
            terminal.lost = True
            terminal.changed.set()

    async def look(self, run: Run, payload: JsonObject) -> JsonObject:
        """Wait a moment for news. `payload.waited_seconds` says how long somebody has been waiting already.

        Returns: `exit_code` (None while the command runs) and `lost`.
        """
        terminal = self._terminals.setdefault(run.number, _Terminal())
        if terminal.exit_code is None and not terminal.lost:
            terminal.changed.clear()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await terminal.changed.wait()
            except TimeoutError:
                waited = payload["waited_seconds"]
                if not terminal.attached and isinstance(waited, float) and waited > ATTACH_SECONDS:
                    terminal.lost = True
        return {"exit_code": terminal.exit_code, "lost": terminal.lost}
