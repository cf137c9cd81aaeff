"""A task ends when it is told to, although a library swallowed the first word."""

from __future__ import annotations

import asyncio

import pytest

from interlock.engine import cancellation
from interlock.engine.cancellation import cancel_all


async def _deaf(times: int) -> None:
    """Goes on after so many cancellations, as `asyncio.wait_for` of Python 3.11 may."""
    for _ in range(times):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    await asyncio.sleep(3600)


async def _broken() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        raise ZeroDivisionError


async def test_a_task_that_lost_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_AGAIN_SECONDS", 0.02)
    tasks = [asyncio.create_task(_deaf(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_all(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_a_task_ends_with_is_not_raised() -> None:
    task = asyncio.create_task(_broken())
    await asyncio.sleep(0)
    await cancel_all([task])
    assert isinstance(task.exception(), ZeroDivisionError)


async def test_nothing_to_end_ends_at_once() -> None:
    await cancel_all([])
