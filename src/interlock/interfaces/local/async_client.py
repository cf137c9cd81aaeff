"""A pool of connections to the resident process for a program on an event loop that asks on behalf of many."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from interlock.core.errors import Denied, Invalid, Transient
from interlock.interfaces.local.client import (
    ANSWER_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    Disconnected,
    NotRunning,
)
from interlock.interfaces.local.protocol import (
    FRAME_BYTES_MAX,
    JsonMapping,
    decode_frame,
    encode_frame,
    error_from_json,
    peer_credentials,
    request_frame,
)

CONNECTIONS_MAX = 64
"""Of one pool. Whoever waits for long must not wait on one of them: see `interfaces/local/watching.py`."""

PLACE_SECONDS_MAX = 10.0
"""How long a request waits for one of them."""

KEPT_SECONDS = 60.0
"""How long an idle connection is kept; the other end hangs up after ten times as long."""

AsyncProgress = Callable[[JsonMapping], Awaitable[None]]


class Frame(NamedTuple):
    """One frame of an answer: any number that tell of progress, then the one that is the result."""

    last: bool
    data: JsonMapping


@dataclass
class Line:
    """One connection, over which requests are answered one after another."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def ended(self) -> bool:
        """Whether the other end hung up."""
        return self.reader.at_eof() or self.writer.is_closing()

    async def send(self, frame: JsonMapping) -> None:
        """Raises Disconnected, Invalid (too large)."""
        try:
            self.writer.write(encode_frame(frame))
            await self.writer.drain()
        except OSError as error:
            raise gone() from error

    async def receive(self, timeout_seconds: float | None) -> JsonMapping:
        """The next frame. Raises Disconnected, Transient (none in time), Invalid (no frame)."""
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await self.reader.readline()
        except TimeoutError as error:
            msg = "the resident process does not answer"
            raise Transient(msg, code="resident.silent", fix="interlock check; or ask again") from error
        except OSError as error:
            raise gone() from error
        except ValueError as error:
            msg = f"the resident process sent more than {FRAME_BYTES_MAX:,} bytes in one frame"
            raise Invalid(msg, code="protocol.size") from error
        if not line.endswith(b"\n"):
            raise gone()
        return decode_frame(line)


async def open_line(door: Path, trusted_uids: frozenset[int]) -> Line:
    """Connect to the socket at `door`.

    Raises:
        NotRunning: Nobody listens.
        Denied: This account may not knock, or whoever listens is not among `trusted_uids`.
        Transient: It does not open in `CONNECT_TIMEOUT_SECONDS`.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(door, limit=FRAME_BYTES_MAX)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        msg = "no resident process listens"
        raise NotRunning(msg, code="resident.absent", fix="interlock serve", effect_sent=False) from error
    except PermissionError as error:
        msg = "this account may not use the door"
        raise Denied(msg, code="door.closed", fix="ask whoever runs Interlock here") from error
    except (OSError, TimeoutError) as error:
        msg = f"the door does not open: {getattr(error, 'strerror', None) or 'it takes too long'}"
        raise Transient(msg, code="door.busy", fix="try again", effect_sent=False) from error
    peer = peer_credentials(writer.get_extra_info("socket"))
    if peer.uid not in trusted_uids:
        writer.close()
        msg = f"the process behind the door belongs to the account with the id {peer.uid}, which is not trusted"
        raise Denied(msg, code="door.impostor", fix=f"see who made that socket: ls -l {door}")
    return Line(reader, writer)


class AsyncClient:
    """Asks the resident process; many callers at once, each for himself (`token`, `acting_as`).

    Args:
        door: The socket's path.
        trusted_uids: Accounts that may be at the other end.
        connections_max: How many requests are under way at once; further ones wait for `PLACE_SECONDS_MAX`.
        bearers_only: Refuse what comes without a token: the account of this process may have every right, which is not
            to be lent to whoever reaches it.
    """

    def __init__(
        self,
        door: Path,
        *,
        trusted_uids: frozenset[int],
        connections_max: int = CONNECTIONS_MAX,
        bearers_only: bool = False,
    ) -> None:
        self.door = door
        self.trusted_uids = trusted_uids
        self._bearers_only = bearers_only
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[Line] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up. A Run that was asked for goes on."""
        self._closed = True
        while self._idle:
            self._idle.pop().writer.close()

    async def call(
        self,
        method: str,
        params: JsonMapping | None = None,
        *,
        token: str | None = None,
        acting_as: str | None = None,
        on_progress: AsyncProgress | None = None,
        timeout_seconds: float | None = ANSWER_TIMEOUT_SECONDS,
    ) -> JsonMapping:
        """Ask, hand every progress frame to `on_progress`, and return the result.

        `token` is a bearer's; without one the caller is the account of this process. `timeout_seconds` bounds the
        silence between two frames; None waits as long as the connection stands.

        Raises:
            InterlockError: The error that the resident process answered with.
            Disconnected: The connection ended first; whether the request was heard is not known.
            Transient: No place in the pool, or no frame, in time.
            Invalid: The request is too large, or the answer is no frame.
        """
        frames = self.stream(method, params, token=token, acting_as=acting_as, timeout_seconds=timeout_seconds)
        async with aclosing(frames) as heard:
            async for frame in heard:
                if frame.last:
                    return frame.data
                if on_progress is not None:
                    await on_progress(frame.data)
        raise gone()

    async def stream(
        self,
        method: str,
        params: JsonMapping | None = None,
        *,
        token: str | None = None,
        acting_as: str | None = None,
        timeout_seconds: float | None = ANSWER_TIMEOUT_SECONDS,
    ) -> AsyncGenerator[Frame, None]:
        """As `call`, frame by frame; whoever leaves early closes the iterator (`contextlib.aclosing`)."""
        if token is None and self._bearers_only:
            msg = "nobody asks here without a token"
            raise Denied(msg, code="token.missing", fix="interlock tokens create")
        async with self._lent() as line:
            number = next(line.numbers)
            await line.send(request_frame(number, method, params, token=token, acting_as=acting_as))
            while True:
                answer = await line.receive(timeout_seconds)
                if answer.get("id") == number and "progress" not in answer:
                    line.idle_since = asyncio.get_running_loop().time()
                frame = _understood(answer, number)
                yield frame
                if frame.last:
                    return

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Line]:
        """A connection for one request; it is kept for the next one only if its answer was read to the end."""
        try:
            async with asyncio.timeout(PLACE_SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError as error:
            msg = "too much is asked at once"
            raise Transient(msg, code="door.busy", fix="ask again in a moment", effect_sent=False) from error
        line: Line | None = None
        try:
            line = self._kept() or await open_line(self.door, self.trusted_uids)
            line.idle_since = 0.0
            yield line
        finally:
            self._places.release()
            if line is not None:
                if line.idle_since and not self._closed:
                    self._idle.append(line)
                else:
                    line.writer.close()

    def _kept(self) -> Line | None:
        """The connection that was used last; those that ended or grew old meanwhile are let go."""
        while self._idle:
            line = self._idle.pop()
            if not line.ended and asyncio.get_running_loop().time() - line.idle_since < KEPT_SECONDS:
                return line
            line.writer.close()
        return None


def _understood(frame: JsonMapping, number: int) -> Frame:
    """Raises the error that it tells, or Invalid."""
    error = frame.get("error")
    # A request that was not even read (too many clients, say) is answered without its number.
    if isinstance(error, dict) and frame.get("id") in {None, number}:
        raise error_from_json(error)
    if frame.get("id") != number:
        msg = "the resident process answered something that was not asked"
        raise Invalid(msg, code="protocol.order")
    for name, last in (("progress", False), ("result", True)):
        data = frame.get(name)
        if isinstance(data, dict):
            return Frame(last, data)
    msg = "the resident process sent a frame that is neither progress nor result nor error"
    raise Invalid(msg, code="protocol.frame")


def gone() -> Disconnected:
    """The error of a connection that ended before its answer."""
    msg = "the resident process went away before it answered"
    return Disconnected(msg, code="resident.gone", fix="ask again with the same key: what was recorded is not repeated")
