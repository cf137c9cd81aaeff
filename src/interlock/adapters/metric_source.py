"""Asks endpoints for their numbers over HTTP, and reads files of thresholds, within bounds of time and size."""

from __future__ import annotations

from pathlib import Path

import httpx

from interlock.core.errors import Invalid, NotFound, Transient
from interlock.lib.clock import Clock

ANSWER_SECONDS_MAX = 3.0
"""For the whole answer: whoever is slower is not read this time."""
CONNECT_SECONDS_MAX = 1.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
FILE_BYTES_MAX = 256 * 1024
OK = 200


class HttpMetricSource:
    """One pool of connections for all endpoints; proxies of the environment are not used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=10)
        timeout = httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX)
        self._client = httpx.Client(
            timeout=timeout,
            limits=limits,
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": "interlock-judge", "accept-encoding": "identity"},
        )

    def fetch(self, url: str) -> bytes:
        """The body of what answers 200."""
        deadline = self._clock.monotonic() + ANSWER_SECONDS_MAX
        try:
            with self._client.stream("GET", url) as answer:
                if answer.status_code != OK:
                    msg = f"{_place(url)} answers {answer.status_code}"
                    raise Transient(msg, code="release.metrics", fix="look at what the endpoint answers")
                return self._hear(answer, url, deadline)
        except httpx.InvalidURL as error:
            msg = f"{url!r} is no URL: {error}"
            raise Invalid(msg, code="release.metrics", fix="write http://HOST:PORT/PATH") from error
        except httpx.HTTPError as error:
            msg = f"{_place(url)} does not answer: {str(error) or type(error).__name__}"
            raise Transient(msg, code="release.metrics", fix="see whether it runs") from error

    def read(self, path: str) -> bytes:
        """The content of a file."""
        try:
            with Path(path).open("rb") as file:
                body = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            msg = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
            raise NotFound(msg, code="release.thresholds", fix="look at `file` of the measure") from error
        if len(body) > FILE_BYTES_MAX:
            msg = f"{path} has more than {FILE_BYTES_MAX} bytes"
            raise Invalid(msg, code="release.thresholds", fix="a file of thresholds has a few lines")
        return body

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _hear(self, answer: httpx.Response, url: str, deadline: float) -> bytes:
        heard = bytearray()
        for part in answer.iter_bytes():
            heard += part
            if len(heard) > ANSWER_BYTES_MAX:
                msg = f"{_place(url)} answers more than {ANSWER_BYTES_MAX} bytes"
                raise Invalid(msg, code="release.metrics", fix="name an endpoint that tells less")
            if self._clock.monotonic() > deadline:
                msg = f"{_place(url)} did not finish its answer within {ANSWER_SECONDS_MAX:g} s"
                raise Transient(msg, code="release.metrics", fix="name an endpoint that is faster")
        return bytes(heard)


def _place(url: str) -> str:
    """Without what may be a secret: the query, and a name and password before the host."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.host}{f':{parsed.port}' if parsed.port else ''}{parsed.path}"
