"""A client's end of `watch`: looks at any number of Runs over a few connections to the resident process."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from interlock.core.errors import InterlockError
from interlock.engine.cancellation import cancel_all
from interlock.interfaces.local.async_client import Line, gone, open_line
from interlock.interfaces.local.protocol import JsonMapping, error_from_json

LINES = 2
ANSWER_SECONDS = 20.0
"""How long an answer may take beyond what a look waits."""

_REQUEST = 1


@dataclass
class _Watched:
    """One connection and the looks that wait on it."""

    line: Line
    waiting: dict[int, asyncio.Future[JsonMapping]] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None


class Watcher:
    """Looks at Runs on behalf of many; a connection that breaks is made anew by the next look.

    Args:
        door: The socket's path.
        trusted_uids: Accounts that may be at the other end.
    """

    def __init__(self, door: Path, *, trusted_uids: frozenset[int]) -> None:
        self._door = door
        self._trusted = trusted_uids
        self._open: dict[int, _Watched] = {}
        self._opening = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def looks(self) -> int:
        """How many wait for an answer."""
        return sum(len(watched.waiting) for watched in self._open.values())

    async def close(self) -> None:
        """Hang up; who still waits gets Disconnected."""
        await cancel_all([each.reading for each in self._open.values() if each.reading is not None])

    async def look(
        self,
        run: int,
        *,
        after: int = 0,
        state: str | None = None,
        output: bool = True,
        token: str | None = None,
        acting_as: str | None = None,
        wait_seconds: float = 15.0,
    ) -> JsonMapping:
        """What is new of a Run beyond piece `after` of its output and `state`; as it is when `wait_seconds` are over.

        Returns `{run, state, state_reason, state_code, final, output: [[number, text], ...], more, hears}`. `more`
        says that further output is there already, so that the state is not to be told yet.

        Raises:
            InterlockError: What the resident process answered with (Denied, NotFound, ...).
            Disconnected: The connection ended; look again.
        """
        number = next(self._numbers)
        watched = await self._watched(number % LINES)
        answer: asyncio.Future[JsonMapping] = asyncio.get_running_loop().create_future()
        watched.waiting[number] = answer
        asked: JsonMapping = {"look": number, "run": run, "after": after, "state": state, "output": output}
        frame: JsonMapping = {"id": _REQUEST, "input": {**asked, "wait_seconds": wait_seconds}, "as": acting_as}
        try:
            await watched.line.send(frame if token is None else {**frame, "token": token})
            async with asyncio.timeout(wait_seconds + ANSWER_SECONDS):
                seen = await answer
        except TimeoutError as error:
            raise gone() from error
        except asyncio.CancelledError:
            if not watched.line.ended:
                with suppress(InterlockError):
                    await watched.line.send({"id": _REQUEST, "input": {"forget": number}})
            raise
        finally:
            watched.waiting.pop(number, None)
        told = seen.get("error")
        if isinstance(told, dict):
            raise error_from_json(told)
        return seen

    async def _watched(self, place: int) -> _Watched:
        """The connection of that place, made where there is none. Raises as `open_line`."""
        async with self._opening:
            watched = self._open.get(place)
            if watched is not None and not watched.line.ended:
                return watched
            watched = _Watched(await open_line(self._door, self._trusted))
            await watched.line.send({"id": _REQUEST, "method": "watch", "params": {}})
            self._open[place] = watched
            watched.reading = asyncio.create_task(self._read(place, watched))
            return watched

    async def _read(self, place: int, watched: _Watched) -> None:
        """Hand every answer to whoever waits for it, until the connection ends."""
        ended: InterlockError = gone()
        try:
            while True:
                frame = await watched.line.receive(None)
                seen, error = frame.get("progress"), frame.get("error")
                if isinstance(error, dict):
                    raise error_from_json(error)
                if not isinstance(seen, dict) or "look" not in seen:
                    break
                answer = watched.waiting.get(int(str(seen["look"])))
                if answer is not None and not answer.done():
                    answer.set_result(seen)
        except InterlockError as error:
            ended = error
        finally:
            watched.line.writer.close()
            if self._open.get(place) is watched:
                del self._open[place]
            for answer in watched.waiting.values():
                if not answer.done():
                    answer.set_exception(ended)
