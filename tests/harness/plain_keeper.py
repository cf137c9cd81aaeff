"""Keeps processes running as `core.keeper` says, by a thread of the test: for tests of what is kept, not of keeping."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

from interlock.core.errors import NotFound
from interlock.core.keeper import KeptProcess, KeptState


class PlainKeeper:
    """Starts again what ended, and stops when told; everything ends with `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, _Kept] = {}

    def ensure(self, process: KeptProcess) -> KeptState:
        if process.name not in self._kept:
            self._kept[process.name] = _Kept(process, self.log_path(process.name))
        return self._kept[process.name].state

    def stop(self, name: str) -> None:
        if name in self._kept:
            self._kept.pop(name).stop()

    def restart(self, name: str) -> KeptState:
        if name not in self._kept:
            raise NotFound(name)
        process = self._kept[name].process
        self.stop(name)
        return self.ensure(process)

    def state(self, name: str) -> KeptState | None:
        return self._kept[name].state if name in self._kept else None

    def states(self) -> tuple[KeptState, ...]:
        return tuple(kept.state for _, kept in sorted(self._kept.items()))

    def log_path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def close(self) -> None:
        for name in [*self._kept]:
            self.stop(name)


class _Kept:
    def __init__(self, process: KeptProcess, log: Path) -> None:
        self.process = process
        self._log = log
        self._stopping = threading.Event()
        self._restarts = 0
        self._started_at = datetime.now(UTC)
        self._child = self._start()
        self._watch = threading.Thread(target=self._keep, daemon=True)
        self._watch.start()

    @property
    def state(self) -> KeptState:
        return KeptState(
            process=self.process,
            phase="running",
            pid=self._child.pid,
            started_at=self._started_at,
            restarts=self._restarts,
            last_exit=None,
        )

    def stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
        self._watch.join()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self.process.argv,
                env=self.process.environment,
                cwd=self.process.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while True:
            self._child.wait()
            if self._stopping.wait(self.process.restart_pause_seconds):
                return
            self._child = self._start()
            self._restarts += 1
