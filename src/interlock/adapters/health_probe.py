"""Asks a service over HTTP whether it can answer, and takes no more of it than that."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

from interlock.core.health_probe import ProbeAnswer
from interlock.lib.clock import Clock

HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 64 * 1024
"""Who says more than this is answering; the rest is not waited for."""
READ_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r|\n)")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,18}) *\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_NO_BODY = frozenset({204, 304})


class HttpProbe:
    """One connection for each question, so that every question also asks whether connections are accepted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def ask(
        self, address: str, path: str, *, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> ProbeAnswer:
        """GET."""
        begun = self._clock.monotonic()
        host, _, port = address.rpartition(":")
        lines = [f"GET {path} HTTP/1.1", f"Host: {address}", "User-Agent: interlock-probe", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        question = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection:
                connection.sendall(question)
                status, reason = self._hear(connection, begun + timeout_seconds)
        except TimeoutError:
            status, reason = None, f"no answer within {timeout_seconds:g} s"
        except OSError as error:
            status, reason = None, (error.strerror or str(error)).lower()
        return ProbeAnswer(status=status, reason=reason, seconds=self._clock.monotonic() - begun)

    def is_free(self, port: int) -> bool:
        """By trying; SO_REUSEADDR only overlooks connections that are over."""
        for host in ("127.0.0.1", ""):
            with socket.socket() as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    tried.bind((host, port))
                except OSError:
                    return False
        return True

    def _hear(self, connection: socket.socket, deadline: float) -> tuple[int | None, str]:
        """The status, and what is wrong with the answer. Raises TimeoutError, OSError."""
        heard = b""
        ended = False
        while not (ended or _is_whole(heard)):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(READ_BYTES)
            ended = not part
            heard += part
        found = _STATUS.match(heard)
        if found is None:
            return None, "what answers does not speak HTTP" if heard else "the connection was closed without an answer"
        status = int(found[1])
        if ended and not _may_end(heard):
            return status, "the answer broke off"
        if status not in range(200, 300):
            return status, f"answers {status}" + (" (redirects are not followed)" if status in range(300, 400) else "")
        return status, ""


def _is_whole(heard: bytes) -> bool:
    """Whether nothing more needs to be waited for."""
    head, end, body = heard.partition(b"\r\n\r\n")
    if not end:
        return len(heard) > HEAD_BYTES_MAX or (len(heard) > len(b"HTTP/1.1 200 ") and _STATUS.match(heard) is None)
    found = _STATUS.match(head + b"\r\n")
    if found is None or int(found[1]) in _NO_BODY or len(body) > BODY_BYTES_MAX:
        return True
    if _CHUNKED.search(head):
        return body.endswith(b"0\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return length is not None and len(body) >= int(length[1])


def _may_end(heard: bytes) -> bool:
    """Whether the end of the connection is the end of the answer."""
    head, end, _ = heard.partition(b"\r\n\r\n")
    return bool(end) and (_is_whole(heard) or not (_LENGTH.search(head + b"\r\n") or _CHUNKED.search(head)))
