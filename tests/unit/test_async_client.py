"""The pool of connections to the resident process, against a server that says what the test wants it to say."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interlock.core.errors import Conflict, Denied, Invalid, Transient
from interlock.interfaces.local import async_client
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.local.client import Disconnected, NotRunning

Script = Callable[[dict[str, Any]], list[dict[str, Any]]]
US = frozenset({os.geteuid()})


class Served:
    """What the server of a test saw."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Semaphore(0)

    async def until(self, count: int) -> None:
        """Wait for further requests."""
        for _ in range(count):
            await self.asked.acquire()


@asynccontextmanager
async def served(door: Path, script: Script) -> AsyncIterator[Served]:
    """A server whose frames for each request are what a function makes of it; an empty list hangs up."""
    seen = Served()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        seen.writers.append(writer)
        while line := await reader.readline():
            seen.requests.append(json.loads(line))
            seen.asked.release()
            frames = script(seen.requests[-1])
            if not frames:
                break
            for frame in frames:
                writer.write(json.dumps(frame).encode() + b"\n")
            await writer.drain()
        writer.close()

    listener = await asyncio.start_unix_server(answer, door)
    try:
        yield seen
    finally:
        listener.close()
        for writer in seen.writers:
            writer.close()
        await asyncio.sleep(0)


def _echo(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": request["id"], "result": {"method": request["method"], **request["params"]}}]


@pytest.fixture
async def door(tmp_path: Path) -> Path:
    return tmp_path / "door.sock"


async def test_one_after_another_goes_over_one_connection(door: Path) -> None:
    async with served(door, _echo) as seen, AsyncClient(door, trusted_uids=US) as client:
        for number in range(5):
            assert await client.call("view", {"n": number}) == {"method": "view", "n": number}
        assert seen.connections == 1
        assert [request["id"] for request in seen.requests] == [1, 2, 3, 4, 5]


async def test_a_token_travels_with_its_request_alone(door: Path) -> None:
    async with served(door, _echo) as seen, AsyncClient(door, trusted_uids=US) as client:
        await client.call("hello", token="ilk_a_b", acting_as="claude")
        await client.call("hello")
        assert seen.requests[0]["token"] == "ilk_a_b"
        assert seen.requests[0]["as"] == "claude"
        assert "token" not in seen.requests[1]


async def test_a_front_asks_nothing_for_itself(door: Path) -> None:
    async with served(door, _echo) as seen, AsyncClient(door, trusted_uids=US, bearers_only=True) as client:
        with pytest.raises(Denied) as caught:
            await client.call("hello")
        assert caught.value.code == "token.missing"
        assert (await client.call("hello", token="ilk_a_b"))["method"] == "hello"
        assert len(seen.requests) == 1


async def test_progress_is_heard_before_the_result(door: Path) -> None:
    def script(request: dict[str, Any]) -> list[dict[str, Any]]:
        told = [{"id": request["id"], "progress": {"output": str(n)}} for n in range(3)]
        return [*told, {"id": request["id"], "result": {"bytes": 3}}]

    heard: list[object] = []

    async def hear(progress: dict[str, object]) -> None:
        heard.append(progress["output"])

    async with served(door, script), AsyncClient(door, trusted_uids=US) as client:
        assert await client.call("output", on_progress=hear) == {"bytes": 3}
        assert heard == ["0", "1", "2"]


async def test_an_error_is_raised_as_its_own_class_and_the_connection_goes_on(door: Path) -> None:
    def script(request: dict[str, Any]) -> list[dict[str, Any]]:
        error = {"kind": "conflict", "code": "run.key_reused", "message": "taken", "fix": "a new key"}
        return [{"id": request["id"], "error": error}]

    async with served(door, script) as seen, AsyncClient(door, trusted_uids=US) as client:
        for _ in range(2):
            with pytest.raises(Conflict) as caught:
                await client.call("submit")
        assert seen.connections == 1
        assert (caught.value.code, caught.value.fix) == ("run.key_reused", "a new key")


async def test_whoever_gives_up_takes_his_connection_with_him(door: Path) -> None:
    """Otherwise the next caller would read the answer to somebody else's question."""

    def script(request: dict[str, Any]) -> list[dict[str, Any]]:
        return _echo(request) if request["method"] == "quick" else [{"id": request["id"], "progress": {}}]

    async with served(door, script) as seen, AsyncClient(door, trusted_uids=US) as client:
        slow = asyncio.create_task(client.call("slow"))
        await seen.until(1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert (await client.call("quick"))["method"] == "quick"
        assert seen.connections == 2


async def test_a_connection_that_ended_while_it_was_idle_is_replaced(door: Path) -> None:
    async with served(door, _echo) as seen, AsyncClient(door, trusted_uids=US) as client:
        await client.call("hello")
        seen.writers[0].close()
        await seen.writers[0].wait_closed()
        assert (await client.call("hello"))["method"] == "hello"
        assert seen.connections == 2


async def test_whoever_finds_no_place_in_time_is_told_that_nothing_was_sent(
    door: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_client, "PLACE_SECONDS_MAX", 0.05)

    def silent(request: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"id": request["id"], "progress": {}}]

    async with served(door, silent) as seen, AsyncClient(door, trusted_uids=US, connections_max=2) as client:
        waiting = [asyncio.create_task(client.call("wait")) for _ in range(2)]
        await seen.until(2)
        with pytest.raises(Transient) as caught:
            await client.call("hello")
        assert caught.value.code == "door.busy"
        assert caught.value.effect_sent is False
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([], Disconnected),
        ([{"id": 7, "result": {}}], Invalid),
        ([{"id": 1, "what": {}}], Invalid),
        ([{"id": None, "error": {"kind": "transient", "code": "door.busy", "message": "full"}}], Transient),
    ],
)
async def test_what_is_no_answer_is_an_error(door: Path, frames: list[dict[str, Any]], error: type[Exception]) -> None:
    async with served(door, lambda _: frames), AsyncClient(door, trusted_uids=US) as client:
        with pytest.raises(error):
            await client.call("hello")


async def test_silence_ends_after_its_time(door: Path) -> None:
    def silent(request: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"id": request["id"], "progress": {}}]

    async with served(door, silent), AsyncClient(door, trusted_uids=US) as client:
        with pytest.raises(Transient) as caught:
            await client.call("wait", timeout_seconds=0.05)
        assert caught.value.code == "resident.silent"


async def test_nobody_at_the_door_and_an_impostor_are_told_apart(door: Path) -> None:
    async with AsyncClient(door, trusted_uids=US) as client:
        with pytest.raises(NotRunning):
            await client.call("hello")
    async with served(door, _echo), AsyncClient(door, trusted_uids=frozenset({12345})) as client:
        with pytest.raises(Denied) as caught:
            await client.call("hello")
        assert caught.value.code == "door.impostor"
