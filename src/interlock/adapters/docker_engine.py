"""Reads from a Docker Engine through its HTTP API on a Unix socket, within bounds of time and size."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from typing import Any, cast
from urllib.parse import quote, urlencode

from interlock.core.errors import Invalid, NotFound, Permanent, Transient

SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"
BODY_BYTES_MAX = 16 * 1024 * 1024
MESSAGE_CHARACTERS_MAX = 300

_OK, _NOT_FOUND, _FIRST_SERVER_ERROR = 200, 404, 500
_BUSY = frozenset({408, 425, 429})
_AMBIGUOUS = re.compile(r"multiple ids found|ambiguous", re.IGNORECASE)


class DockerEngine:
    """One engine.

    Args:
        socket_path: The Unix socket it listens on.
        timeout_seconds: For a whole question, from connecting to the last byte.
    """

    def __init__(self, socket_path: str = SOCKET, *, timeout_seconds: float = 5.0) -> None:
        self.socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def get(self, *path: str, **query: object) -> Any:
        """The JSON that `GET /path?query` answers with; each part of the path is quoted, a query value made JSON.

        Raises: NotFound (nothing by that name), Invalid (an ambiguous name or one the engine refuses), Transient (no
        answer, a server error, an answer that is cut short or no JSON), Permanent (the socket may not be used).
        """
        encoded = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
        target = "/" + "/".join(quote(part, safe="") for part in path) + (f"?{urlencode(encoded)}" if encoded else "")
        connection = _Connection(self.socket_path, time.monotonic() + self._timeout_seconds)
        try:
            connection.request("GET", target, headers={"Host": "docker", "Accept": "application/json"})
            response = connection.getresponse()
            body = response.read(BODY_BYTES_MAX + 1)
        except FileNotFoundError as error:
            msg = f"no Docker engine listens at {self.socket_path}"
            raise NotFound(
                msg, code="docker.absent", fix="start Docker, or set DOCKER_HOST in interlock.yaml"
            ) from error
        except PermissionError as error:
            msg = f"{self.socket_path} may not be used by this account"
            raise Permanent(msg, code="docker.forbidden", fix="give Interlock's account the right to it") from error
        except (OSError, http.client.HTTPException) as error:
            msg = f"the Docker engine at {self.socket_path} did not answer: {type(error).__name__}"
            raise Transient(msg, code="docker.silent", effect_sent=False, fix="docker info") from error
        finally:
            connection.close()
        return _read_answer(response.status, body, path)


def _read_answer(status: int, body: bytes, path: tuple[str, ...]) -> Any:
    if len(body) > BODY_BYTES_MAX:
        msg = f"the Docker engine answered with more than {BODY_BYTES_MAX} bytes"
        raise Transient(msg, code="docker.too_much", fix="ask for less")
    try:
        answer = json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        msg = f"the Docker engine answered {status} with something that is not JSON"
        raise Transient(msg, code="docker.unreadable", fix="docker info") from error
    if status == _OK:
        return answer
    said = str(answer.get("message", "")) if isinstance(answer, dict) else ""
    said = said[:MESSAGE_CHARACTERS_MAX]
    name = path[1] if len(path) > 1 else path[0]
    if _AMBIGUOUS.search(said):
        msg = f"{name} is the beginning of several ids"
        raise Invalid(msg, code="docker.ambiguous", fix="name it in full")
    if status == _NOT_FOUND:
        msg = f"the Docker engine knows no {name} ({path[0]})"
        raise NotFound(msg, code="docker.unknown", fix="docker ps --all")
    if status >= _FIRST_SERVER_ERROR or status in _BUSY:
        msg = f"the Docker engine answered {status}: {said}"
        raise Transient(msg, code="docker.failed", fix="docker info")
    msg = f"the Docker engine refused to tell of {name} ({status}): {said}"
    raise Invalid(msg, code="docker.refused", fix="check the name")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with one deadline for everything."""

    def __init__(self, socket_path: str, deadline_seconds: float) -> None:
        super().__init__("localhost")
        self._socket_path = socket_path
        self._deadline_seconds = deadline_seconds

    def connect(self) -> None:
        channel = _PunctualSocket(self._deadline_seconds)
        try:
            channel.set_rest()
            channel.connect(self._socket_path)
        except BaseException:
            channel.close()
            raise
        self.sock = cast("socket.socket", channel)


class _PunctualSocket(socket.socket):
    """A socket whose every read has only what is left of the time: a trickle of bytes does not prolong it."""

    def __init__(self, deadline_seconds: float) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._deadline_seconds = deadline_seconds

    def set_rest(self) -> None:
        """Allow the next call what is left. Raises TimeoutError when nothing is."""
        rest = self._deadline_seconds - time.monotonic()
        if rest <= 0:
            msg = "no time is left"
            raise TimeoutError(msg)
        self.settimeout(rest)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.set_rest()
        return super().recv_into(*args, **kwargs)
