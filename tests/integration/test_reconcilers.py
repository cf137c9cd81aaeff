"""Work on a timer: what failed is tried again soon, however seldom it is due."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from interlock.core.errors import Transient
from interlock.engine import reconcile
from interlock.engine.rooms import Reconciler


async def test_what_is_due_once_an_hour_is_tried_again_soon_after_it_failed(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "RETRY_SECONDS", 0.05)
    tried: list[int] = []
    again = asyncio.Event()

    async def fails_at_first() -> None:
        tried.append(len(tried))
        if len(tried) == 1:
            msg = "the database was away"
            raise Transient(msg, code="database.unreachable")
        again.set()

    reconcilers = engine.parts.reconcilers
    await reconcilers.stop()
    reconcilers.add([Reconciler("hourly", fails_at_first, 3600.0)], list)
    await reconcilers.start()

    async with asyncio.timeout(10):
        await again.wait()
    await asyncio.sleep(0)
    assert reconcilers.troubles == ()
