"""Takes in copies of requests and answers each with 204 at once, so that the proxy never waits for a comparison."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 1024 * 1024
"""A body is passed over; one that is larger ends the connection."""
CONNECTIONS_MAX = 512

_ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) ([!-~]{1,16000}) HTTP/1\.([01])")
_LENGTH = re.compile(r"[0-9]{1,10}")

Headers = list[tuple[str, str]]
Accept = Callable[[str, str, Headers], None]
"""Called with method, target and headers of each copy; it never blocks."""


class Connections:
    """Those that are open, so that there are not too many and all are closed at the end."""

    def __init__(self, accept: Accept, refuse: Callable[[], None]) -> None:
        self.accept = accept
        self.refuse = refuse
        self.open: set[asyncio.Transport] = set()

    def protocol(self) -> Receiver:
        """For one more connection."""
        return Receiver(self)

    def close(self) -> None:
        """Close all."""
        for transport in tuple(self.open):
            transport.close()


class Receiver(asyncio.Protocol):
    """One connection of the proxy's: requests one after another, perhaps several at once.

    What is no HTTP/1.1 request is refused and ends the connection; chunked bodies are answered and end it as well, for
    a copy of a safe request has none.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._passing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        if len(self._connections.open) >= CONNECTIONS_MAX:
            transport.close()
            return
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own does not say so
        self._connections.open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - named by the library
        """Called by the event loop."""
        if self._transport is not None:
            self._connections.open.discard(self._transport)

    def pause_writing(self) -> None:
        """Called by the event loop: the other side reads no answers, and so gets none."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._transport is None or self._transport.is_closing():
            return
        self._held += data
        while self._held and not self._transport.is_closing():
            if self._passing:
                passed = min(self._passing, len(self._held))
                self._held, self._passing = self._held[passed:], self._passing - passed
                continue
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                if len(self._held) > HEAD_BYTES_MAX:
                    self._refuse()
                return
            head, self._held = self._held[:end], self._held[end + 4 :]
            self._request(head.decode("latin-1"))

    def _request(self, head: str) -> None:
        first, *lines = head.lstrip("\r\n").split("\r\n")
        line = _REQUEST_LINE.fullmatch(first)
        headers = [(name, value.strip()) for name, colon, value in (each.partition(":") for each in lines) if colon]
        named = {name.lower(): value for name, value in headers}
        length = named.get("content-length", "0")
        too_large = _LENGTH.fullmatch(length) is None or int(length) > BODY_BYTES_MAX
        if line is None or len(headers) != len(lines) or too_large or self._transport is None:
            self._refuse()
            return
        self._transport.write(_ANSWER)
        self._passing = int(length)
        closes = line[3] == "0" or "close" in named.get("connection", "").lower()
        if closes or "transfer-encoding" in named:
            self._transport.close()
        self._connections.accept(line[1], line[2], headers)

    def _refuse(self) -> None:
        self._connections.refuse()
        if self._transport is not None:
            self._transport.write(_REFUSAL)
            self._transport.close()
