"""A small real HTTP service for tests of releases: versions of it can be made to fail, to be slow, to hang or to lie.

Start one as a program (it needs nothing but the standard library), or in a test by `shop_service(port, version)`:

    python tests/harness/shop_service.py --port 20001 --version v1 [--error-percent 5] [--slower-percent 30] ...

It answers on 127.0.0.1, always with `x-version`, and by name of the arguments and of the control alike:

    GET  /healthz               200 {"status": "ok", "version": ...}; 503 while `healthy` is false or it still starts
    GET  /items/7               an item, the same in every version unless `wrong_field` names one of its fields; its
                                `served_at` differs with every answer, as real answers do
    GET  /echo                  the headers it was sent, and how often it was asked
    POST /orders                201, counted in `orders` of the control: a shadow must never add one
    GET  /control               settings and counts: requests, errors, orders, in_flight, pid, version
    POST /control               JSON with settings to change, answered as GET

    error_percent     0..100 of the answers are 500, spread evenly (5: each 20th), not by chance
    latency_ms        how long an answer takes in the middle; it varies around that, the same way in each version
    slower_percent    makes it so much slower on top
    hang              it accepts and never answers, until told otherwise; /healthz and /control still answer
    healthy           what /healthz says
    wrong_field       this field of an item is wrong: `price`, `name` or `stock`
    garbage           it answers items with bytes that are no JSON
    crash_after       it ends with exit code 7 at this request (0: never)
    start_seconds     (argument only) it is not healthy before
    refuse_to_start   (argument only) it ends with exit code 3 at once

SIGTERM lets it finish what it is answering, then exit 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "error_percent": 0.0,
    "latency_ms": 0.0,
    "slower_percent": 0.0,
    "hang": False,
    "healthy": True,
    "wrong_field": "",
    "garbage": False,
    "crash_after": 0,
}
BODY_BYTES_MAX = 1024 * 1024


class _Shop:
    """Settings and counts of one running version."""

    def __init__(self, version: str, settings: dict[str, Any], start_seconds: float) -> None:
        self.version = version
        self.settings = settings
        self.healthy_from = time.monotonic() + start_seconds
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.counts = {"requests": 0, "errors": 0, "orders": 0, "in_flight": 0}
        self.errors_due = 0.0
        self.chance = random.Random(7)  # noqa: S311 - the same in each version: an equal version is equal

    def begin(self) -> bool:
        """Count a request; whether it is to fail."""
        with self.lock:
            self.counts["requests"] += 1
            self.counts["in_flight"] += 1
            if self.counts["requests"] == self.settings["crash_after"]:
                os._exit(7)
            self.errors_due += self.settings["error_percent"]
            fails = self.errors_due >= 100
            self.errors_due -= 100 * fails
            self.counts["errors"] += fails
            seconds = self.settings["latency_ms"] / 1000 * (1 + self.settings["slower_percent"] / 100)
            seconds *= 0.5 + 0.5 * self.chance.expovariate(1.0)
            self.changed.wait_for(lambda: not self.settings["hang"])
        if seconds > 0:
            time.sleep(seconds)
        return fails

    def end(self) -> None:
        with self.lock:
            self.counts["in_flight"] -= 1

    def report(self) -> dict[str, Any]:
        with self.lock:
            return {**self.settings, **self.counts, "pid": os.getpid(), "version": self.version}

    def change(self, settings: dict[str, Any]) -> None:
        unknown = settings.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(sorted(unknown))
        with self.lock:
            self.settings.update(settings)
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    shop: _Shop

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the library
        """Nothing: tests print enough."""

    def answer(self, status: int, body: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-version", self.shop.version)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def handle_aside(self) -> bool:
        """What is answered whatever the settings are."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            healthy = self.shop.settings["healthy"] and time.monotonic() >= self.shop.healthy_from
            self.answer(200 if healthy else 503, {"status": "ok" if healthy else "no", "version": self.shop.version})
        elif path == "/control":
            self.answer(200, self.shop.report())
        else:
            return False
        return True

    def do_GET(self) -> None:
        if self.handle_aside():
            return
        fails = self.shop.begin()
        try:
            if fails:
                self.answer(500, {"error": "the shop is closed"})
            elif self.shop.settings["garbage"]:
                self.answer(200, b'{"id": \xff\xfe')
            elif self.path.startswith("/echo"):
                self.answer(200, {"headers": dict(self.headers.items()), "path": self.path, **self.shop.report()})
            else:
                self.answer(200, self.item())
        finally:
            self.shop.end()

    do_HEAD = do_GET  # noqa: N815 - named by the library

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length") or 0), BODY_BYTES_MAX))
        if self.path.partition("?")[0] == "/control":
            try:
                self.shop.change(json.loads(body))
            except ValueError as error:
                self.answer(400, {"error": str(error)})
                return
            self.answer(200, self.shop.report())
            return
        fails = self.shop.begin()
        try:
            if fails:
                self.answer(500, {"error": "the shop is closed"})
                return
            with self.shop.lock:
                self.shop.counts["orders"] += 1
                number = self.shop.counts["orders"]
            self.answer(201, {"order": number})
        finally:
            self.shop.end()

    def item(self) -> dict[str, Any]:
        number = self.path.partition("?")[0].rpartition("/")[2] or "0"
        item = {
            "id": number,
            "name": f"item {number}",
            "price": f"{sum(number.encode()) / 8:.2f}",
            "stock": len(number) * 3,
            "tags": ["new", "sale"],
            "served_at": time.time(),
        }
        wrong = self.shop.settings["wrong_field"]
        if wrong:
            item[wrong] = f"not {item[wrong]}"
        return item


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # SIGTERM waits for what is being answered
    request_queue_size = 256
    shop: _Shop

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(ConnectionError):
            super().process_request_thread(request, client_address)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--refuse-to-start", action="store_true")
    for name, default in DEFAULTS.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(flag, type=type(default), default=default)
    given = parser.parse_args()
    if given.refuse_to_start:
        sys.exit(3)
    settings = {name: getattr(given, name) for name in DEFAULTS}
    shop = _Shop(given.version, settings, given.start_seconds)
    handler = type("Handler", (_Handler,), {"shop": shop, "timeout": 5})
    server = _Server(("127.0.0.1", given.port), handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    sys.stdout.write(f"{given.version} listens on 127.0.0.1:{given.port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.02)
    end = time.monotonic() + 5
    while shop.report()["in_flight"] and time.monotonic() < end:
        time.sleep(0.005)
    os._exit(0)  # connections that are kept open and idle are not waited for


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


class RunningShop:
    """A version that runs for a test."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process
        self.address = f"127.0.0.1:{port}"

    def control(self, **settings: Any) -> dict[str, Any]:
        """Change settings; returns settings and counts."""
        return control(self.port, **settings)


def control(port: int, **settings: Any) -> dict[str, Any]:
    """Change settings of the version on this port; returns settings and counts."""
    data = json.dumps(settings).encode() if settings else None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/control", data=data, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextlib.contextmanager
def shop_service(port: int | None = None, version: str = "v1", *arguments: str) -> Iterator[RunningShop]:
    """A version that listens by the time this returns, and is gone afterwards."""
    chosen = port or free_port()
    command = [sys.executable, "-S", str(Path(__file__).resolve()), "--port", str(chosen), "--version", version]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "it did not start"
            yield RunningShop(chosen, process)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
