"""Many Runs are watched over a few connections: output and states come as they happen, and nothing is missed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from harness.engine import ALICE, Engine
from interlock.core.errors import InterlockError, NotFound, Transient
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.local.server import local_server
from interlock.interfaces.local.watching import Watcher

US = frozenset({os.geteuid()})


@dataclass
class Door:
    """An engine with its socket, and a client's two ways to it."""

    engine: Engine
    client: AsyncClient
    watcher: Watcher


@asynccontextmanager
async def _door(engine: Engine) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(local_server(engine.parts, os.geteuid()))
        socket = engine.parts.locations.door_socket
        client = await stack.enter_async_context(AsyncClient(socket, trusted_uids=US))
        watcher = await stack.enter_async_context(Watcher(socket, trusted_uids=US))
        yield Door(engine, client, watcher)


async def _follow(watcher: Watcher, run: int) -> tuple[str, list[str]]:
    """All output and all states until the Run is over, each look going on from what the last one saw."""
    text, states, after, state = "", [], 0, None
    while True:
        seen: dict[str, Any] = await watcher.look(run, after=after, state=state)
        text += "".join(piece for _, piece in seen["output"])
        after = max((number for number, _ in seen["output"]), default=after)
        if seen["more"]:
            continue
        if seen["state"] != state:
            state = seen["state"]
            states.append(state)
        if seen["final"]:
            return text, states


async def test_output_and_states_come_as_they_happen_and_resume_where_they_were(engine: Engine) -> None:
    async with _door(engine) as door:
        run = await engine.ask(ALICE, {"do": {"outcome": "ok"}, "target": "a"})
        _, states = await _follow(door.watcher, run.number)
        assert states[-1] == "succeeded"
        again = await door.watcher.look(run.number, state="succeeded", wait_seconds=0.0)
        assert again["final"] is True
        assert again["output"] == []


async def test_a_look_waits_until_something_is_new(engine: Engine) -> None:
    async with _door(engine) as door:
        run = await engine.run({"target": "a"})
        begun = asyncio.get_running_loop().time()
        seen = await door.watcher.look(run.number, state="succeeded", output=False, wait_seconds=0.3)
        assert asyncio.get_running_loop().time() - begun >= 0.3
        assert seen["state"] == "succeeded"


async def test_five_hundred_looks_share_two_connections(engine: Engine) -> None:
    async with _door(engine) as door:
        run = await engine.run({"target": "a"})
        looks = [door.watcher.look(run.number, state="succeeded", output=False, wait_seconds=1.0) for _ in range(500)]
        waiting = asyncio.gather(*looks)
        assert (await door.client.call("hello"))["pid"] == os.getpid()
        assert {seen["state"] for seen in await waiting} == {"succeeded"}
        assert door.watcher.connections <= 2


async def test_a_run_that_is_none_is_not_found_and_the_others_go_on(engine: Engine) -> None:
    async with _door(engine) as door:
        run = await engine.run({"target": "a"})
        with pytest.raises(NotFound):
            await door.watcher.look(4_000)
        assert (await door.watcher.look(run.number))["state"] == "succeeded"


async def test_whoever_gives_up_a_look_leaves_nothing_behind(engine: Engine) -> None:
    async with _door(engine) as door:
        run = await engine.run({"target": "a"})
        look = asyncio.create_task(door.watcher.look(run.number, state="succeeded", wait_seconds=30.0))
        await door.client.call("hello")
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
        assert door.watcher.looks == 0
        assert (await door.watcher.look(run.number))["state"] == "succeeded"


async def test_looks_end_with_the_connection_and_a_new_one_is_made(engine: Engine) -> None:
    run = await engine.run({"target": "a"})
    socket = engine.parts.locations.door_socket
    async with Watcher(socket, trusted_uids=US) as watcher:
        async with local_server(engine.parts, os.geteuid()):
            look = asyncio.create_task(watcher.look(run.number, state="succeeded", wait_seconds=30.0))
            while not watcher.connections:  # noqa: ASYNC110 - it connects in the task above
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
        with pytest.raises(Transient):
            await look
        with pytest.raises(InterlockError):
            await watcher.look(run.number)
        async with local_server(engine.parts, os.geteuid()):
            assert (await watcher.look(run.number))["state"] == "succeeded"
