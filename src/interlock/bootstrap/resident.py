"""The resident process itself: served until somebody tells it to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from interlock.bootstrap.assembly import THREADS_NAME, open_installation
from interlock.bootstrap.installation import Installation
from interlock.engine.guard.orphans import become_subreaper
from interlock.engine.hanging import leave_hanging_threads
from interlock.engine.logging import configure_logging
from interlock.lib.redact import Redactor
from interlock.settings import Locations

log = structlog.get_logger()

PROJECT_LOOK_SECONDS = 3.0


async def serve(
    locations: Locations,
    database_url: str | None,
    owner_url: str | None,
    *,
    on_ready: Callable[[str], None],
    server: Callable[[Installation], Any],
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """The resident process, until it is told to stop by a signal or through its own door.

    `server` makes the interface that answers at the socket; it is an asynchronous context manager whose value is an
    event that is set when somebody asked it to stop.
    """
    configure_logging(Redactor())
    become_subreaper()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_installation(locations, database_url, owner_url, report=report) as installation:
        async with server(installation) as asked_to_stop:
            on_ready(str(locations.door_socket))
            ends = (stop.wait(), asked_to_stop.wait(), _until_project_is_gone(locations.project_folder))
            waiting = [asyncio.create_task(each) for each in ends]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        log.info("serve.stopping", running=installation.runner.running)
    if installation.embedded is not None:
        # Nobody else uses it, and whoever stops Interlock expects that nothing of it goes on.
        await asyncio.to_thread(installation.embedded.stop)
    leave_hanging_threads(THREADS_NAME)


async def _until_project_is_gone(folder: Path) -> None:
    """Until the folder that held interlock.yaml at the start is moved or deleted: clients find us by its path."""
    began = _identity_of(folder)
    while True:
        await asyncio.sleep(PROJECT_LOOK_SECONDS)
        if _identity_of(folder) != began:
            break
    log.warning("serve.project_gone", folder=str(folder))


def _identity_of(folder: Path) -> tuple[int, int] | None:
    """Device and inode; None where there is none."""
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
