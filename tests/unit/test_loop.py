"""The loop that serves is the fast one."""

from __future__ import annotations

import asyncio

import uvloop

from interlock.engine.loop import run_loop


async def test_tests_run_on_the_loop_that_serves() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


def test_a_process_that_serves_runs_on_the_fast_loop() -> None:
    async def kind() -> type:
        return type(asyncio.get_running_loop())

    assert run_loop(kind()) is uvloop.Loop
