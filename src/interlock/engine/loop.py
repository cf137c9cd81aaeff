"""Runs the event loop of a process that serves: the one that costs least for each question to the database."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TypeVar

import uvloop

Result = TypeVar("Result")


def run_loop(main: Coroutine[object, object, Result]) -> Result:
    """`asyncio.run` on uvloop, which takes about a tenth off the time of an ask."""
    return uvloop.run(main)
