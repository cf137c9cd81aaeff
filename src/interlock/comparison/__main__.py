"""The comparator as a program: python -m interlock.comparison TASK_FILE, kept running by the keeper."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from interlock.comparison.comparator import Comparator, read_task
from interlock.comparison.receiver import CONNECTIONS_MAX, Connections
from interlock.comparison.shadow import ComparatorTask
from interlock.core.errors import Permanent
from interlock.engine.loop import run_loop
from interlock.lib.clock import SystemClock

NICENESS = 10
"""Below the versions themselves, which go on serving users meanwhile."""
SUMMARY_SECONDS = 1.0
"""At least so often a summary is written; with news, four times as often."""
LOOPBACK = ("127.", "[::1]")


def main() -> int:
    """Compare until SIGTERM; 2 for a task that cannot be read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.nice(NICENESS)
    path = Path(sys.argv[1])
    try:
        task = read_task(path)
    except Permanent as error:
        _say(error.message)
        return 2
    if not task.listen.startswith(LOOPBACK):
        _say(f"{task.listen} is not on loopback, and copies of requests come from nowhere else")
        return 2
    return run_loop(_serve(task, path.parent))


async def _serve(task: ComparatorTask, folder: Path) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    comparator = Comparator(task, folder, SystemClock(), pid=os.getpid())
    connections = Connections(comparator.accept, comparator.refuse)
    host, _, port = task.listen.rpartition(":")
    server = await loop.create_server(connections.protocol, host.strip("[]"), int(port), backlog=CONNECTIONS_MAX)
    workers = comparator.workers()
    try:
        await _write_until(comparator, stopping, workers)
    finally:
        server.close()
        connections.close()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        _write(comparator)
        comparator.close()
    return 0


async def _write_until(comparator: Comparator, stopping: asyncio.Event, workers: list[asyncio.Task[None]]) -> None:
    """Summaries until it is told to stop; a worker that ended ends all, loudly, and the keeper starts another."""
    told = asyncio.create_task(stopping.wait())
    quarter = 0
    while not told.done():
        if quarter % 4 == 0 or comparator.has_news():
            _write(comparator)
        quarter += 1
        everyone = {told, *workers}
        ended, _ = await asyncio.wait(everyone, timeout=SUMMARY_SECONDS / 4, return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {told}:
            task.result()


def _write(comparator: Comparator) -> None:
    """A full disk is no reason to end: the next second may have room again."""
    try:
        comparator.write_summary()
    except OSError as error:
        _say(f"the summary cannot be written: {error}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
