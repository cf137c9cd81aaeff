"""The client's end of the local protocol, against a server that says what the test wants it to say."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from interlock.core.errors import Conflict, Denied, Invalid, Permanent, Transient
from interlock.interfaces.local.client import Connection, Disconnected, NotRunning
from interlock.interfaces.local.protocol import FRAME_BYTES_MAX, decode_frame, encode_frame, error_from_json

Script = Callable[[dict[str, object]], list[bytes]]
US = frozenset({os.geteuid()})


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Callable[[Script], Path]]:
    """Starts a server whose answer to each request is what a function makes of it; an empty list hangs up."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(script: Script) -> Path:
        path = tmp_path / "door.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def answer() -> None:
            # A client that never comes, or hangs up in the middle, is what some of these tests are about.
            with suppress(OSError), listener.accept()[0] as connection, connection.makefile("rb") as lines:
                for line in lines:
                    answers = script(json.loads(line))
                    if not answers:
                        return
                    connection.sendall(b"".join(answers))

        thread = threading.Thread(target=answer)
        thread.start()
        threads.append(thread)
        return path

    yield serve
    for listener in listeners:
        listener.close()
    for thread in threads:
        thread.join(5)


def _line(frame: dict[str, object]) -> bytes:
    return json.dumps(frame).encode() + b"\n"


def test_progress_is_heard_and_the_result_returned(door: Callable[[Script], Path]) -> None:
    heard: list[object] = []

    def script(request: dict[str, object]) -> list[bytes]:
        assert request == {"id": request["id"], "method": "wait", "params": {"run": 7}, "as": "claude"}
        number = request["id"]
        return [_line({"id": number, "progress": {"n": 1}}), _line({"id": number, "result": {"run": 7}})]

    with Connection(door(script), trusted_uids=US) as connection:
        for _ in range(2):
            result = connection.call("wait", {"run": 7}, acting_as="claude", on_progress=heard.append)
            assert result == {"run": 7}
    assert heard == [{"n": 1}, {"n": 1}]


def test_an_error_arrives_as_its_own_class(door: Callable[[Script], Path]) -> None:
    error = Conflict("taken", code="run.taken", fix="look", details={"run": 3}).to_json()
    with (
        Connection(door(lambda request: [_line({"id": request["id"], "error": error})]), trusted_uids=US) as connection,
        pytest.raises(Conflict) as caught,
    ):
        connection.call("x")
    assert caught.value.to_json() == error


def test_an_error_before_the_request_was_read_is_heard_too(door: Callable[[Script], Path]) -> None:
    error = Transient("full", code="door.busy").to_json()
    path = door(lambda _: [_line({"id": None, "error": error})])
    with Connection(path, trusted_uids=US) as connection, pytest.raises(Transient, match="full"):
        connection.call("x")


def test_a_server_that_hangs_up_is_disconnected(door: Callable[[Script], Path]) -> None:
    with Connection(door(lambda _: []), trusted_uids=US) as connection, pytest.raises(Disconnected):
        connection.call("x")


def test_half_a_frame_is_disconnected(door: Callable[[Script], Path]) -> None:
    sent: list[int] = []

    def script(request: dict[str, object]) -> list[bytes]:
        sent.append(1)
        return [] if len(sent) > 1 else [b'{"id":1,"resu']

    with Connection(door(script), trusted_uids=US) as connection:
        connection._socket.sendall(b"{}\n{}\n")
        with pytest.raises(Disconnected):
            connection.call("x")


def test_a_server_that_says_nothing_is_given_up_in_time(door: Callable[[Script], Path]) -> None:
    path = door(lambda _: [b" "])
    with Connection(path, trusted_uids=US) as connection, pytest.raises(Transient, match="does not answer"):
        connection.call("x", timeout_seconds=0.1)


@pytest.mark.parametrize("answer", [b"[]\n", b"nonsense\n", b'{"id":99,"result":{}}\n', b'{"id":1}\n', b"\xff\xfe\n"])
def test_an_answer_that_is_none_is_invalid(door: Callable[[Script], Path], answer: bytes) -> None:
    with Connection(door(lambda _: [answer]), trusted_uids=US) as connection, pytest.raises(Invalid):
        connection.call("x")


def test_nobody_in_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        Connection(tmp_path / "door.sock", trusted_uids=US)


def test_an_account_that_is_not_trusted_is_not_spoken_to(door: Callable[[Script], Path]) -> None:
    asked: list[object] = []

    def script(request: dict[str, object]) -> list[bytes]:
        asked.append(request)
        return []

    with pytest.raises(Denied, match="not trusted"):
        Connection(door(script), trusted_uids=frozenset({os.geteuid() + 1}))
    assert asked == []


def test_what_is_too_large_or_not_unicode_is_refused_before_it_is_sent() -> None:
    with pytest.raises(Invalid, match="over"):
        encode_frame({"x": "a" * FRAME_BYTES_MAX})
    with pytest.raises(Invalid, match="UTF-8"):
        encode_frame({"argv": ["ls", "\udcff"]})
    with pytest.raises(Invalid):
        decode_frame(b"[" * 100_000 + b"]" * 100_000)


def test_a_frame_comes_back_as_it_was() -> None:
    frame: dict[str, object] = {"id": 1, "text": 'läuft "好" \n\u2028', "n": None, "list": [1, 2.5, True]}
    assert decode_frame(encode_frame(frame)) == frame
    assert encode_frame(frame).count(b"\n") == 1


def test_an_error_of_a_kind_that_is_not_known_yet_is_permanent_and_keeps_its_code() -> None:
    error = error_from_json({"kind": "novel", "code": "x.y", "message": "m"})
    assert isinstance(error, Permanent)
    assert error.code == "x.y"
