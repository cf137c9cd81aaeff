"""Processes die and are replaced under load; nothing that was accepted is lost, and a reload fails no request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from harness.http_front import PREFIX, HttpFront, http_front

pytestmark = pytest.mark.chaos

RUNS = f"{PREFIX}/runs"
CLIENTS = 8


class Load:
    """Clients that ask without a pause; what each was told is kept."""

    def __init__(self, front: HttpFront) -> None:
        self.front = front
        self.accepted: dict[str, int] = {}
        self.failed: list[str] = []
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        try:
            yield self
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def until(self, count: int) -> None:
        """Wait for so many further acceptances."""
        goal = len(self.accepted) + count
        async with asyncio.timeout(30):
            while len(self.accepted) < goal:  # noqa: ASYNC110 - other tasks count
                await asyncio.sleep(0.01)

    async def _client(self) -> None:
        token = {"Authorization": f"Bearer {self.front.bearer('person:alice')}"}
        async with httpx.AsyncClient(base_url=self.front.url, headers=token, timeout=20) as client:
            while not self._stop.is_set():
                await self._ask(client, uuid4().hex)

    async def _ask(self, client: httpx.AsyncClient, key: str) -> None:
        args = {"path": str(self.front.resident.data / key), "content": "x\n"}
        body = {"action": "file.write", "args": args, "confirmed": True}
        try:
            answer = await client.post(RUNS, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError as error:
            self.failed.append(f"{type(error).__name__}: {error}")
            return
        if answer.status_code in {200, 202}:
            self.accepted[key] = answer.json()["run"]["number"]
        else:
            self.failed.append(answer.text[:200])


async def _all_are_there(front: HttpFront, load: Load) -> None:
    """Every accepted ask is a Run under its key, and comes to a good end; asked again it stays the same Run."""

    def states() -> dict[str, tuple[int, str]]:
        with psycopg.connect(front.owner_conninfo) as connection:
            rows = connection.execute("select key, number, state from run where key = any(%s)", [list(load.accepted)])
            return {key: (number, state) for key, number, state in rows}

    await _until(lambda: {state for _, state in states().values()} == {"succeeded"})
    assert {key: number for key, (number, _) in states().items()} == load.accepted
    key, number = next(iter(load.accepted.items()))
    token = {"Authorization": f"Bearer {front.bearer('person:alice')}", "Idempotency-Key": key}
    args = {"path": str(front.resident.data / key), "content": "x\n"}
    async with httpx.AsyncClient(base_url=front.url, headers=token, timeout=30) as client:
        again = await client.post(RUNS, json={"action": "file.write", "args": args, "confirmed": True})
    assert again.json()["run"]["number"] == number


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Any:
    with http_front(postgres_endpoint, "permissive") as made:
        yield made


async def _follow(front: HttpFront, number: int, seen: list[str], done: Callable[[], bool]) -> None:
    """Read a Run's events and come again whenever the stream ends, until all is said."""
    headers = {"Authorization": f"Bearer {front.bearer('person:bob')}"}
    async with httpx.AsyncClient(base_url=front.url, timeout=30) as client:
        while not done():
            with suppress(httpx.TransportError):
                async with client.stream("GET", f"{RUNS}/{number}/events", headers=headers) as answer:
                    if answer.status_code == 204:
                        return
                    kind, latest = "", ""
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            latest = value
                        elif name == "event":
                            kind = value
                        elif name == "data":
                            said = json.loads(value)
                            headers["Last-Event-ID"] = latest  # only what was read to its end counts as seen
                            if kind == "output":
                                seen.append(said["text"])
                            elif kind == "state" and said["final"]:
                                return
            await asyncio.sleep(0.1)


async def _talking_run(front: HttpFront, seconds: float) -> int:
    """A Run that prints a line every tenth of a second."""
    path = front.resident.folder / "talks"
    path.write_text(f"#!/bin/sh\nfor n in $(seq {int(seconds * 10)}); do echo $n; sleep 0.1; done\n", encoding="utf-8")
    path.chmod(0o755)
    headers = {"Authorization": f"Bearer {front.bearer('person:bob')}"}
    async with httpx.AsyncClient(base_url=front.url, headers=headers, timeout=30) as client:
        ask = {"action": "command.exec", "args": {"argv": [str(path)]}, "confirmed": True}
        answer = await client.post(RUNS, json=ask)
        number: int = answer.json()["run"]["number"]
        return number


async def test_a_reload_under_load_fails_no_request_and_streams_go_on(front: HttpFront) -> None:
    number = await _talking_run(front, 4)
    seen: list[str] = []
    load = Load(front)
    before = front.front_pids()
    async with load.running():
        following = [asyncio.create_task(_follow(front, number, seen, lambda: False))]
        await load.until(30)
        os.kill(front.resident.pid, signal.SIGHUP)
        await _until(lambda: len(set(front.front_pids()) - set(before)) >= 1)
        await load.until(30)
        os.kill(front.resident.pid, signal.SIGHUP)
        await asyncio.gather(*following)
        await load.until(30)
    assert load.failed == []
    assert "".join(seen) == "".join(f"{n}\n" for n in range(1, 41))
    assert front.front_pids()[0] == before[0], "the master stayed"
    assert "serve.reloaded" in front.resident.log
    await _all_are_there(front, load)


async def test_a_front_that_is_killed_is_back_at_once_and_nothing_accepted_is_lost(front: HttpFront) -> None:
    load = Load(front)
    async with load.running():
        await load.until(30)
        for pid in (front.front_pids()[0], front.front_pids()[-1]):
            os.kill(pid, signal.SIGKILL)
            await load.until(30)
        for pid in front.front_pids():
            os.kill(pid, signal.SIGKILL)
        await load.until(30)
    assert "http.front_died" in front.resident.log
    assert len(load.failed) < 20 * CLIENTS, load.failed[:5]
    await _all_are_there(front, load)


async def test_a_resident_process_that_is_killed_takes_its_front_along_and_loses_nothing(front: HttpFront) -> None:
    load = Load(front)
    async with load.running():
        await load.until(30)
        old = front.front_pids()
        front.resident.kill()
        await asyncio.to_thread(front.resident.start)
        await load.until(30)
        assert not set(old) & set(front.front_pids())
    await _all_are_there(front, load)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - processes come and go
            await asyncio.sleep(0.05)
