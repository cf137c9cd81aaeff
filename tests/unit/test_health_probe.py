"""One cheap question over HTTP: what counts as an answer, and that nothing keeps the asker longer than he said."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from interlock.adapters.health_probe import HttpProbe
from interlock.core.health_probe import ProbeAnswer
from interlock.core.service_runtime import InstanceState
from interlock.core.workload import Health, Traffic
from interlock.lib.clock import SystemClock
from interlock.services.probing import RESTARTS_MAX, ask_outside, await_healthy, hopeless_of

Answering = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(answer: Answering) -> Iterator[str]:
    """Somebody who answers each connection in this way; his address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def saying(text: bytes) -> Answering:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return answer


def kept_open(text: bytes) -> Answering:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)
        connection.recv(4096)

    return answer


def ask(address: str, seconds: float = 5.0) -> ProbeAnswer:
    return HttpProbe(SystemClock()).ask(address, "/healthz", timeout_seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000,
    ],
    ids=["length", "until the end", "empty", "chunks", "a heavy page"],
)
def test_a_good_answer_is_good_whether_the_connection_ends_or_not(text: bytes) -> None:
    with server(saying(text)) as address:
        assert ask(address).good
    if b"1.0" not in text:
        with server(kept_open(text)) as address:
            assert ask(address).good


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 302, "not followed"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 503, "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", 200, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 200, "broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, "HTTP"),
        (b"", None, "without an answer"),
    ],
)
def test_anything_else_is_not_and_says_why(text: bytes, status: int | None, why: str) -> None:
    with server(saying(text)) as address:
        answer = ask(address)
    assert (answer.good, answer.status) == (False, status)
    assert why in answer.reason


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    answer = ask(address)
    assert (answer.good, answer.status, "refused" in answer.reason) == (False, None, True)


def test_an_answer_that_drips_or_never_comes_takes_no_longer_than_the_time_out() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(4096)
        for letter in b"HTTP/1.1 200 OK\r\n" + b"x" * 200:
            connection.sendall(bytes([letter]))
            time.sleep(0.01)

    def hang(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.recv(4096)

    for answering in (drip, hang):
        with server(answering) as address:
            begun = time.monotonic()
            answer = ask(address, 0.3)
            assert time.monotonic() - begun < 1.0
        assert not answer.good
        assert "within 0.3 s" in answer.reason


def test_a_port_is_free_unless_somebody_listens_on_any_address_of_it() -> None:
    probe = HttpProbe(SystemClock())
    for host in ("127.0.0.1", ""):
        with socket.create_server((host, 0)) as taken:
            port = taken.getsockname()[1]
            assert not probe.is_free(port)
        assert probe.is_free(port)


def test_outside_is_asked_by_the_way_of_users_for_this_very_version() -> None:
    seen = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection.recv(4096).decode())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(answer) as address:
        port = address.rpartition(":")[2]
        traffic = Traffic(listen=f"0.0.0.0:{port}", testers="x-try")
        assert ask_outside(HttpProbe(SystemClock()), traffic, "v2", Health(path="/live")).good
    assert seen[0].startswith("GET /live HTTP/1.1\r\n")
    assert "x-try: v2\r\n" in seen[0]


# How long is waited.


class Turned:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        raise NotImplementedError

    def pause(self, seconds: float) -> None:
        self.at += seconds


GOOD, BAD = ProbeAnswer(status=200), ProbeAnswer(status=503, reason="answers 503")
HEALTH = Health(interval_seconds=1, deadline_seconds=10, successes=3)


def waited(answers: list[ProbeAnswer], **options: object) -> tuple[bool, str, int]:
    clock, coming = Turned(), iter(answers)
    found = await_healthy(lambda: next(coming, BAD), HEALTH, clock=clock, pause=clock.pause, **options)  # type: ignore[arg-type]
    return found.ok, found.words, found.asked


def test_several_good_answers_in_a_row_are_believed() -> None:
    assert waited([GOOD, GOOD, GOOD])[::2] == (True, 3)
    assert waited([GOOD, GOOD, BAD, GOOD, GOOD, GOOD])[::2] == (True, 6)


def test_waiting_ends_at_the_deadline_with_the_last_reason() -> None:
    ok, words, asked = waited([])
    assert (ok, asked) == (False, 11)
    assert "answers 503" in words


def test_waiting_ends_where_it_makes_no_sense() -> None:
    assert waited([BAD, BAD], hopeless=lambda: "it is gone") == (False, "it is gone", 1)


def test_what_was_given_up_is_gone_or_ends_again_and_again_is_hopeless() -> None:
    runs = InstanceState(phase="running", address="127.0.0.1:1", restarts=3)
    assert hopeless_of(runs, 3) is None
    assert hopeless_of(runs, 3 - RESTARTS_MAX) is not None
    assert hopeless_of(runs.model_copy(update={"phase": "given_up"}), 3) is not None
    assert hopeless_of(None, 0) is not None
