"""Two versions of a service in this process, fast and told what to do, and a client that says who it is."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class StandIn(ThreadingHTTPServer):
    """One version. `status`, `drops` (it closes without an answer) and `release` (what waits goes on) are for tests."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.status = 200
        self.drops = False
        self.release = threading.Event()
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: StandIn

    def do_GET(self) -> None:
        service = self.server
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        service.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if service.drops:
            self.close_connection = True
            return
        if self.path == "/wait":
            service.release.wait(20)
        body = b"" if self.command == "HEAD" else json.dumps({"version": service.name}).encode()
        self.send_response(service.status)
        self.send_header("x-version", service.name)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_GET  # noqa: N815 - named by the library

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the library
        """Nothing."""


@contextlib.contextmanager
def stand_in(name: str) -> Iterator[StandIn]:
    """A running version."""
    service = StandIn(name)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.release.set()
        service.shutdown()
        service.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Answer(NamedTuple):
    """What a user got."""

    status: int
    version: str
    cookie: str
    headers: Mapping[str, str]


def ask(
    port: int,
    path: str = "/",
    method: str = "GET",
    timeout_seconds: float = 10,
    body: str | None = None,
    **headers: str,
) -> Answer:
    """One request on a connection of its own; header names are given with `_` for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        return Answer(answer.status, answer.getheader("x-version") or "", cookie, dict(answer.getheaders()))
    finally:
        connection.close()


def until(condition: Any, seconds: float = 10.0) -> Any:
    """What the condition finds, as soon as it finds something."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.003)
    return found
