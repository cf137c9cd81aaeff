"""Speaks with Envoy's administration interface over its Unix socket, within bounds of time and size."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path
from urllib.parse import urlencode

from interlock.core.errors import Transient

BODY_BYTES_MAX = 4 * 1024 * 1024
_OK = 200


class EnvoyAdmin:
    """One Envoy.

    Args:
        socket_path: Where it is administered.
        timeout_seconds: For one question.
    """

    def __init__(self, socket_path: Path, *, timeout_seconds: float = 1.0) -> None:
        self.socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def is_live(self) -> bool:
        """Whether it has read what it starts with and serves. Never raises."""
        try:
            return self._ask("GET", "/ready").strip() == "LIVE"
        except Transient:
            return False

    def is_there(self) -> bool:
        """Whether anybody listens there at all, answering or not; costs next to nothing."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            return channel.connect_ex(str(self.socket_path)) == 0

    def stats(self, pattern: str) -> dict[str, str]:
        """Gauges, counters and texts whose whole name matches this regular expression. Raises Transient.

        Patterns are RE2's; names are as Envoy writes them, with `_` for `:`.
        """
        lines = self._ask("GET", f"/stats?{urlencode({'filter': f'^{pattern}$'})}").splitlines()
        pairs = (line.rpartition(": ") for line in lines)
        return {name: value.strip('"') for name, _, value in pairs if name}

    def counts(self, pattern: str) -> dict[str, int]:
        """As `stats`, for counters and gauges. Raises Transient."""
        return {name: int(value) for name, value in self.stats(pattern).items()}

    def order(self, path: str) -> None:
        """POST an order such as `/reopen_logs`. Raises Transient."""
        self._ask("POST", path)

    def _ask(self, method: str, target: str) -> str:
        connection = _Connection(str(self.socket_path), self._timeout_seconds)
        try:
            connection.request(method, target, headers={"Host": "envoy"})
            answer = connection.getresponse()
            body = answer.read(BODY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            msg = f"the Envoy proxy does not answer at {self.socket_path}: {type(error).__name__}"
            raise Transient(msg, code="traffic.proxy_silent", fix="interlock status", effect_sent=False) from error
        finally:
            connection.close()
        if answer.status != _OK and target != "/ready":
            msg = f"the Envoy proxy answered {answer.status} to {target.partition('?')[0]}"
            raise Transient(msg, code="traffic.proxy_silent", fix="interlock status")
        return body.decode(errors="replace")


def stat_name(name: str) -> str:
    """A pattern for this name as it stands in the name of a statistic."""
    return re.escape(name.replace(":", "_"))


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)
