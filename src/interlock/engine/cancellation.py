"""Ends tasks for certain: a cancellation can get lost on its way, and whoever waited would then wait forever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, again and again, until each of them has ended; what they ended with is dropped.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes while its result does, and libraries that
    wait with it, a connection pool say, go on as if nothing had been said.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
        await asyncio.gather(*ended, return_exceptions=True)
