"""Says what is being waited for once it has taken two seconds, and keeps silent before that."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from interlock.interfaces.cli.terminal import visible_line
from interlock.interfaces.messages import say
from interlock.lib.clock import SystemClock

QUIET_SECONDS = 2.0
_FRAME_SECONDS = 0.2
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Patience:
    """A note on standard error; on a terminal it moves and is wiped out at the end, elsewhere it is one line.

    `text` may be changed while waiting.
    """

    def __init__(self, text: str, *, silent: bool = False) -> None:
        self.text = text
        self._clock = SystemClock()
        self._began = self._clock.monotonic()
        self._over = threading.Event()
        self._silent = silent
        self._thread = threading.Thread(target=self._tell, daemon=True)

    @property
    def elapsed_seconds(self) -> float:
        """Since the waiting began."""
        return self._clock.monotonic() - self._began

    def __enter__(self) -> Self:
        if not self._silent:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """The waiting is over, or there is something better to show."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self) -> None:
        if self._over.wait(QUIET_SECONDS):
            return
        if not sys.stderr.isatty():
            sys.stderr.write(f"{visible_line(self.text)} ...\n")
            sys.stderr.flush()
            return
        frame = 0
        while not self._over.wait(_FRAME_SECONDS):
            seconds = say("{seconds} s", seconds=int(self.elapsed_seconds))
            sys.stderr.write(f"\r\x1b[K{_FRAMES[frame % len(_FRAMES)]} {visible_line(self.text)} · {seconds}")
            sys.stderr.flush()
            frame += 1
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
