"""Asks one version: pooled connections, one deadline for each answer, bounded bodies, and a breaker."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from interlock.comparison.answers import Answer
from interlock.comparison.safe_request import SafeRequest
from interlock.core.traffic import Address

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
INTERIM_ANSWERS_MAX = 5
FAILURES_TO_OPEN = 5
"""So many failures in a row, and a version is asked only now and then."""
OPEN_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024
_CHUNK_LINE_BYTES_MAX = 1024
_TRAILER_LINES_MAX = 100
_WITHOUT_BODY: Final = frozenset({204, 304})
_FINAL = 200

Why = Literal["timeout", "refused", "broke_off", "garbage"]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class Unanswered(Exception):
    """A version gave no answer that can be read."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


class _Garbage(Exception):
    """What came is no HTTP/1.1."""


class _Stale(Exception):
    """A connection from the pool was closed by the other side before it said a byte."""


class _Head(NamedTuple):
    minor: int
    status: int
    headers: dict[str, str]


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Version:
    """One version that is asked; all of it on one event loop."""

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float,
        body_bytes_max: int,
        idle_max: int,
        monotonic: Callable[[], float],
    ) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._host, self._port = host.strip("[]"), int(port)
        self._timeout_seconds = timeout_seconds
        self._body_bytes_max = body_bytes_max
        self._idle: deque[_Connection] = deque(maxlen=idle_max)
        self._monotonic = monotonic
        self._failures = 0
        self._retry_at = 0.0

    def is_away(self) -> bool:
        """Whether it failed so often in a row that it is left alone now. Once in `OPEN_SECONDS` the answer is no."""
        if self._failures < FAILURES_TO_OPEN:
            return False
        now = self._monotonic()
        if now < self._retry_at:
            return True
        self._retry_at = now + OPEN_SECONDS
        return False

    async def ask(self, request: SafeRequest) -> Answer:
        """Its answer; a body beyond the bound is cut. Raises Unanswered."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._ask(request)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, _Garbage, _Stale) as error:
            self._failures += 1
            if self._failures == FAILURES_TO_OPEN:
                self._retry_at = self._monotonic() + OPEN_SECONDS
            raise Unanswered(_why(error)) from None
        self._failures = 0
        return answer

    async def _ask(self, request: SafeRequest) -> Answer:
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), request, fresh=False)
            except _Stale:
                continue  # its time was over; what is asked for may be asked for again
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=HEAD_BYTES_MAX)
        return await self._exchange(_Connection(reader, writer), request, fresh=True)

    async def _exchange(self, connection: _Connection, request: SafeRequest, *, fresh: bool) -> Answer:
        keeps = False
        try:
            try:
                connection.writer.write(request.encoded(self.address))
                head = await _read_head(connection.reader)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if not fresh and not getattr(error, "partial", b""):
                    raise _Stale from None
                raise
            body, is_cut, ended = await _read_body(connection.reader, head, request.method, self._body_bytes_max)
            keeps = ended and head.minor == 1 and "close" not in head.headers.get("connection", "").lower()
            return Answer(head.status, head.headers, body, is_cut=is_cut)
        finally:
            if keeps and len(self._idle) < (self._idle.maxlen or 0):
                self._idle.append(connection)
            else:
                connection.writer.close()

    def close(self) -> None:
        """Let go of all connections."""
        while self._idle:
            self._idle.pop().writer.close()


def _why(error: Exception) -> Why:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "broke_off" if isinstance(error, OSError | EOFError | _Stale) else "garbage"


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    for _ in range(INTERIM_ANSWERS_MAX):
        head = _parsed(await reader.readuntil(b"\r\n\r\n"))
        if head.status >= _FINAL:
            return head
    raise _Garbage


def _parsed(raw: bytes) -> _Head:
    first, *lines = raw[:-4].split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None or len(lines) > HEADERS_MAX:
        raise _Garbage
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise _Garbage
        key, text = name.lower(), value.strip()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return _Head(int(status[1]), int(status[2]), headers)


async def _read_body(
    reader: asyncio.StreamReader, head: _Head, method: str, bytes_max: int
) -> tuple[bytes, bool, bool]:
    """The body, whether it was cut, and whether the connection is at its end and can be used again."""
    if method == "HEAD" or head.status in _WITHOUT_BODY:
        return b"", False, True
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise _Garbage
        return await _read_chunks(reader, bytes_max)
    length = head.headers.get("content-length")
    if length is None:
        body = await _read_some(reader, bytes_max + 1)
        return body[:bytes_max], len(body) > bytes_max, False
    if _LENGTH.fullmatch(length) is None:
        raise _Garbage
    wanted = int(length)
    body = await reader.readexactly(min(wanted, bytes_max))
    return body, wanted > bytes_max, wanted <= bytes_max


async def _read_some(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
    """Until the other side closes."""
    body = bytearray()
    while len(body) < bytes_max:
        piece = await reader.read(min(_PIECE_BYTES, bytes_max - len(body)))
        if not piece:
            break
        body += piece
    return bytes(body)


async def _read_chunks(reader: asyncio.StreamReader, bytes_max: int) -> tuple[bytes, bool, bool]:
    """RFC 9112, 7.1; extensions and trailers are passed over."""
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\n")
        size = _CHUNK.fullmatch(line) if len(line) <= _CHUNK_LINE_BYTES_MAX else None
        if size is None:
            raise _Garbage
        wanted = int(size[1], 16)
        if wanted == 0:
            break
        if len(body) + wanted > bytes_max:
            body += await reader.readexactly(bytes_max - len(body))
            return bytes(body), True, False
        body += await reader.readexactly(wanted)
        if await reader.readexactly(2) != b"\r\n":
            raise _Garbage
    for _ in range(_TRAILER_LINES_MAX):
        if await reader.readuntil(b"\n") == b"\r\n":
            return bytes(body), False, True
    raise _Garbage
