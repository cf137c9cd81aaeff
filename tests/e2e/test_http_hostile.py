"""Whatever is thrown at the HTTP interface is answered or hung up on, and health answers meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.http_front import PREFIX, HttpFront, http_front
from interlock.interfaces.http.asking import READERS_PER_BEARER_MAX

RUNS = f"{PREFIX}/runs"
MIB = 1024 * 1024
STREAMS = 500


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    """One for all attacks: what one of them broke, the next one finds."""
    with http_front(postgres_endpoint, "permissive") as made:
        with made.client() as client:
            assert made.write(client, "first.txt", "x\n").status_code == 200
        pids = made.front_pids()
        yield made
        assert made.front_pids() == pids, "nobody died"
        assert made.resident.ask("audit_verify")["intact"] is True


@pytest.fixture(autouse=True)
def lives_on(front: HttpFront) -> Iterator[None]:
    """After each attack the same processes answer, and have met no bug of their own."""
    before = len(front.resident.log)
    yield
    said = front.resident.log[before:]
    assert front.lives()
    assert "http.bug" not in said
    assert "request.bug" not in said
    assert "Traceback" not in said


def _raw(front: HttpFront, data: bytes, seconds: float = 10.0) -> bytes:
    """All that is answered to some bytes until the other end hangs up."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=seconds) as line:
        answer = b""
        try:
            line.sendall(data)
            while piece := line.recv(65536):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def _head(front: HttpFront, *lines: str, method: str = "POST", path: str = RUNS) -> bytes:
    token = front.bearer("person:alice")
    given = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", "Connection: close"]
    return "\r\n".join([*given, *lines, "", ""]).encode()


def test_50_mib_are_refused_before_they_are_read(front: HttpFront) -> None:
    head = _head(front, "Content-Type: application/json", f"Content-Length: {50 * MIB}")
    assert b" 413 " in _raw(front, head + b"x" * 65536)


def test_50_mib_in_chunks_are_refused_where_they_are_too_many(front: HttpFront) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += MIB
            yield b" " * MIB

    with front.client() as client:
        try:
            answer = client.post(RUNS, content=chunks(), headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert answer.json()["code"] == "api.body_size"
        except httpx.TransportError:
            pass  # it hung up, and did not listen to the end
    assert sent < 20 * MIB


def test_whoever_sends_a_little_too_much_reads_why(front: HttpFront) -> None:
    with front.client() as client:
        answer = front.write(client, "large", "x" * (2 * MIB))
    assert answer.status_code == 413
    assert answer.json()["fix"]


def test_a_stranger_is_turned_away_before_his_body_is_read(front: HttpFront) -> None:
    head = f"POST {RUNS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MIB}\r\nConnection: close\r\n\r\n"
    assert b" 401 " in _raw(front, head.encode())


@pytest.mark.parametrize("depth", [150, 250, 1_000, 20_000, 400_000])
@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_json_that_is_nested_too_deeply_is_refused(front: HttpFront, depth: int, bracket: str) -> None:
    opening = '{"a":' if bracket == "{}" else "["
    deep = opening * depth + "1" + bracket[1] * depth
    body = f'{{"action":"file.write","args":{{"path":{deep}}}}}'
    with front.client() as client:
        answer = client.post(RUNS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {413, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe{\x00}\x00",
        '{"action": "file.write"}'.encode("utf-16"),
        '{"action": "file.write"}'.encode("utf-32"),
        b'\xef\xbb\xbf{"action": "x"}',
        b'{"action": "\xc3\x28"}',
        b'{"action": "\\ud800"}',
        b'{"action": NaN}',
        b'{"action": "x", "args": {"a": Infinity}}',
        b'{"action": "x", "args": {"a": 1e999}}',
        b'{"action": "x", "args": {"a": ' + b"9" * 5000 + b"}}",
        b'{"action": "x", "args": {"a": "\\u0000"}}',
        b'{"action": "x", "action": 7}',
        b'{"action": "x", "confirmed": "yes"}',
        b'{"action": "x", "confirmed": 1}',
        b'{"action": "x", "undo_of": 1}',
        b'{"action": "x", "wait": 1e9}',
        b'{"action": "x"',
        b"[]",
        b"null",
        b'"x"',
    ],
)
def test_what_is_no_ask_is_a_problem(front: HttpFront, body: bytes) -> None:
    with front.client() as client:
        answer = client.post(RUNS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {404, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_other_types_and_compressed_bodies_are_refused(front: HttpFront) -> None:
    body = json.dumps({"action": "x"})
    with front.client() as client:
        for headers in (
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "multipart/form-data; boundary=x"},
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        ):
            assert client.post(RUNS, content=body, headers=headers).status_code == 415
        assert client.post(RUNS, content=body.encode()).status_code == 415


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 1000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(front: HttpFront, data: bytes) -> None:
    answer = _raw(front, data)
    assert b" 200 " not in answer.partition(b"\r\n")[0]


def test_whoever_sends_his_head_by_and_by_is_hung_up_on_and_keeps_nobody_out(front: HttpFront) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", front.port))) for _ in range(300)]
        for line in lines:
            line.sendall(b"GET /livez HTTP/1.1\r\nHo")
        begun = time.monotonic()
        assert front.lives()
        assert time.monotonic() - begun < 2
        for line in lines:
            line.settimeout(10)
            try:
                assert line.recv(1) == b""
            except ConnectionResetError:
                continue
        assert time.monotonic() - begun < 8, "a second is given for a head here"


def test_300_bodies_that_do_not_come_keep_nobody_out(front: HttpFront) -> None:
    head = _head(front, "Content-Type: application/json", "Content-Length: 1000")
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", front.port))).sendall(head + b'{"action"')
        with front.client() as client:
            begun = time.monotonic()
            assert client.get(f"{PREFIX}/runs", params={"limit": 1}).status_code == 200
            assert front.lives()
            assert time.monotonic() - begun < 3


def test_500_streams_are_open_while_health_and_others_are_answered(front: HttpFront) -> None:
    with front.client() as client:
        path = front.resident.folder / "waits"
        path.write_text("#!/bin/sh\nsleep 60\n", encoding="utf-8")
        path.chmod(0o755)
        ask = {"action": "command.exec", "args": {"argv": [str(path)]}, "confirmed": True}
        number = client.post(RUNS, json=ask).json()["run"]["number"]
        asyncio.run(_many_streams(front, number))
        client.post(f"{RUNS}/{number}/cancel", json={})


def test_one_bearer_who_reads_slowly_leaves_room_for_others(front: HttpFront) -> None:
    (front.resident.data / "large").write_text(("x" * 99 + "\n") * 100_000)
    ask = {"action": "command.exec", "args": {"argv": ["cat", str(front.resident.data / "large")]}, "wait": 30}
    with front.client() as alice, front.client("person:bob") as bob, ExitStack() as stack:
        run = alice.post(RUNS, json=ask).json()["run"]
        assert run["state"] == "succeeded", run
        path = f"{RUNS}/{run['number']}/output"
        for _ in range(READERS_PER_BEARER_MAX):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", front.port))
            line.settimeout(10)
            line.sendall(_head(front, method="GET", path=path))
            assert b" 200 " in line.recv(100)
        refused = alice.get(path)
        assert refused.json()["code"] == "api.streams"
        with bob.stream("GET", path) as answer:
            assert answer.status_code == 200
    with front.client() as alice:
        front.resident.until(lambda: alice.get(path, params={"tail": 10}).status_code == 200)


async def _many_streams(front: HttpFront, number: int) -> None:
    """Open them all, hear the state from each, and ask other things meanwhile."""
    head = _head(front, method="GET", path=f"{RUNS}/{number}/events")
    opened = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(STREAMS)]
    try:
        for _, writer in opened:
            writer.write(head)

        async def heard(reader: asyncio.StreamReader) -> None:
            async with asyncio.timeout(30):
                await reader.readuntil(b"event: state")

        await asyncio.gather(*(heard(reader) for reader, _ in opened))
        begun = time.monotonic()
        async with httpx.AsyncClient(base_url=front.url, timeout=10) as client:
            for _ in range(20):
                assert (await client.get("/livez")).status_code == 200
            bearer = {"Authorization": f"Bearer {front.bearer('person:bob')}"}
            assert (await client.get(f"{PREFIX}/status", headers=bearer)).status_code == 200
        assert time.monotonic() - begun < 3
        connections = _sockets_of(front.resident.pid)
        assert connections < 100, f"{connections} descriptors for {STREAMS} streams"
    finally:
        for _, writer in opened:
            writer.close()


def _sockets_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_other_peoples_tokens_and_pieces_of_them_open_nothing(front: HttpFront) -> None:
    alice = front.bearer("person:alice")
    bob = front.bearer("person:bob")
    mixed = bob[:17] + alice[17:]  # bob's id with alice's secret
    with front.client(None) as client:
        for token in (mixed, alice[:-1] + ("A" if alice[-1] != "A" else "B"), alice.lower()):
            answer = client.get(f"{PREFIX}/status", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
            assert token not in answer.text
        twice = [("Authorization", f"Bearer {alice}"), ("Authorization", f"Bearer {bob}")]
        assert client.get(f"{PREFIX}/status", headers=twice).status_code == 401
        assert client.get(f"{PREFIX}/status", params={"token": alice}).status_code == 401
    assert alice not in front.resident.log
    assert alice.rpartition("_")[2] not in front.resident.log


def test_a_replayed_key_with_another_body_is_refused_however_often(front: HttpFront) -> None:
    with front.client() as client:
        key = {"Idempotency-Key": "replayed"}
        first = front.write(client, "replayed", "x\n", headers=key)
        assert first.status_code == 200
        codes = {front.write(client, f"replayed-{n}", "x\n", headers=key).json()["code"] for n in range(10)}
        assert codes == {"run.key_reused"}
        assert front.write(client, "replayed", "x\n", headers=key).json() == first.json()
        for bad in ("x" * 201, "a b", ""):
            assert front.write(client, "replayed", "x\n", headers={"Idempotency-Key": bad}).status_code == 422
