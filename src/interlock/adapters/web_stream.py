"""A connection whose every wait ends at one deadline, or as soon as somebody cancels."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpcore

from interlock.core.errors import Transient

LOOK_SECONDS = 0.2
"""How often a wait looks up whether it should stop."""


class BoundedStream(httpcore.NetworkStream):
    """An open socket, TLS included, for one exchange.

    However slowly bytes trickle, all of them together have until `deadline` (time.monotonic). `hold` is called once,
    right before the first byte of the request; from then on `sent` is True.
    """

    def __init__(
        self, connection: socket.socket, deadline: float, hold: Callable[[], None], cancelled: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._deadline = deadline
        self._hold = hold
        self._cancelled = cancelled
        self.sent = False
        self.ended = False
        """The other side hung up."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline bounds it
        """As the base says. Raises Transient when it was cancelled."""
        while True:
            self._look()
            try:
                found = self._connection.recv(max_bytes)
            except TimeoutError:
                continue
            except ssl.SSLEOFError:
                found = b""
            except OSError as error:
                self.ended = True
                raise httpcore.ReadError from error
            self.ended = self.ended or not found
            return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        """As the base says. Raises what `hold` raises, before anything was sent."""
        if not self.sent:
            self._hold()
            self.sent = True
        left = memoryview(buffer)
        while left:
            self._look()
            try:
                left = left[self._connection.send(left) :]
            except TimeoutError:
                continue
            except OSError as error:
                raise httpcore.WriteError from error

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002 - nobody asks for any
        """Nothing."""
        return None

    def _look(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        if self._cancelled():
            msg = "the request was cancelled while it lasted"
            raise Transient(msg, code="run.cancelled", effect_sent=self.sent)
        self._connection.settimeout(min(left, LOOK_SECONDS))
