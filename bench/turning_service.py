"""A version of a service that answers at once, and answers nothing but errors from the moment it gets SIGUSR1."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import cast

from interlock.engine.loop import run_loop


class _Answers:
    """What every request is answered with now."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.turn("200 OK")

    def turn(self, status: str) -> None:
        """From now on."""
        self.bytes = f"HTTP/1.1 {status}\r\nx-version: {self._version}\r\ncontent-length: 2\r\n\r\nok".encode()


class _Connection(asyncio.Protocol):
    """Answers each request head that comes; there are no bodies."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The loop's own transports are none of the library's classes.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._begun = (self._begun + data).split(b"\r\n\r\n")
        self._transport.write(self._answers.bytes * len(heads))
        if any(b"connection: close" in head.lower() for head in heads):
            self._transport.close()


async def _serve(version: str, port: int) -> None:
    answers, loop, ended = _Answers(version), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, answers.turn, "503 Service Unavailable")
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", port)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    run_loop(_serve(sys.argv[1], int(sys.argv[2])))
