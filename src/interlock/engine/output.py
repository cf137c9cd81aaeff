"""Gathers what Runs print, redacts it, and writes it out in pieces while they run."""

from __future__ import annotations

import asyncio
import threading

from interlock.core.ports import OUTPUT_BYTES_MAX
from interlock.engine.output_store import OutputStore
from interlock.engine.signals import Signals
from interlock.lib.redact import Redactor, StreamRedactor

PIECE_BYTES = 64 * 1024
FLUSH_SECONDS = 0.2


class RunOutput:
    """The output of one Run in this process. Threads add to it; the event loop writes it out."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._stream = StreamRedactor(redactor)
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._kept = 0
        self.writing = asyncio.Lock()
        """Held while pieces are written out, so that they stay in order; other Runs do not wait for it."""

    def feed(self, piece: bytes) -> None:
        """Bytes of a program, as they come."""
        with self._lock:
            self._keep(self._stream.feed(piece))

    def end_of_program(self) -> None:
        """The program ended: its last line may lack a newline."""
        with self._lock:
            self._keep(self._stream.finish())

    def write(self, text: str) -> None:
        """Text of the action itself."""
        with self._lock:
            self._keep(self._redactor.redact(text))

    def _keep(self, text: str) -> None:
        room = OUTPUT_BYTES_MAX - self._kept
        if room <= 0 or not text:
            return
        if len(text) > room:
            text = text[:room] + "\n[output cut: the limit is reached]\n"
        self._kept += len(text.encode())
        self._waiting.append(text)

    def take(self) -> str:
        """What was gathered since the last call."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return "".join(waiting)


class Outputs:
    """The outputs of all Runs that this process performs."""

    def __init__(self, store: OutputStore, signals: Signals, redactor: Redactor) -> None:
        self._store = store
        self._signals = signals
        self.redactor = redactor
        self._open: dict[int, RunOutput] = {}

    def of(self, run: int) -> RunOutput:
        """The Run's output, made when first asked for."""
        return self._open.setdefault(run, RunOutput(self.redactor))

    async def flush(self, run: int) -> None:
        """Write out what the Run printed so far."""
        output = self._open.get(run)
        if output is None:
            return
        async with output.writing:
            text = output.take()
            for start in range(0, len(text), PIECE_BYTES):
                await self._store.append(run, text[start : start + PIECE_BYTES])
        if text:
            self._signals.moved(run)

    def forget(self, run: int) -> None:
        """The Run left this process."""
        self._open.pop(run, None)

    async def flush_all(self) -> None:
        """Called on a timer, so that who follows a Run sees it print."""
        await asyncio.gather(*(self.flush(run) for run in list(self._open)))
