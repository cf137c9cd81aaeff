"""A comparator that runs as it does under the keeper, and a proxy's part: copies of requests sent to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.shop_service import free_port
from interlock.comparison.shadow import (
    DIFFERENCES_NAME,
    ComparatorTask,
    ShadowSummary,
    comparator_process,
    read_summary,
    write_task,
)

PATIENCE_SECONDS = 20.0


class RunningComparator:
    """One that can be killed and started again."""

    def __init__(self, task: ComparatorTask, folder: Path) -> None:
        self.task = task
        self.folder = folder
        self.kept = comparator_process(task, write_task(folder, task), sys.executable)
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.kept.argv, env=self.kept.environment, cwd=self.kept.folder)
        self.process = process
        self.await_summary(lambda summary: summary.pid == process.pid)
        return process

    def kill(self) -> None:
        """Kill -9, and start it again as the keeper does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = self._started()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)

    def copies(self, *targets: str, method: str = "GET", headers: dict[str, str] | None = None) -> list[int]:
        """Send copies of requests as a proxy does, on one connection; the statuses of the answers."""
        connection = http.client.HTTPConnection(*self.task.listen.split(":"), timeout=5)
        statuses = []
        with contextlib.closing(connection):
            for target in targets:
                connection.request(method, target, headers=headers or {})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    def await_summary(self, holds: Callable[[ShadowSummary], bool]) -> ShadowSummary:
        """The first summary of which this holds."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            summary = read_summary(self.folder)
            if summary is not None and holds(summary):
                return summary
            assert time.monotonic() < end, summary
            assert getattr(self, "process", None) is None or self.process.poll() is None, "the comparator ended"
            time.sleep(0.02)

    def differences(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / DIFFERENCES_NAME).read_bytes().splitlines()]


@contextlib.contextmanager
def comparator(folder: Path, stable: str, candidate: str, **told: Any) -> Iterator[RunningComparator]:
    """One that listens, for versions at these addresses; gone afterwards."""
    task = ComparatorTask(
        release=7,
        workload="shop",
        listen=f"127.0.0.1:{free_port()}",
        stable=stable,
        stable_version="v1",
        candidate=candidate,
        candidate_version="v2",
        **told,
    )
    running = RunningComparator(task, folder)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
