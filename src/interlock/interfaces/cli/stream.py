"""Follows a Run: what it prints goes to standard output as it comes, and survives a restart of the resident process."""

from __future__ import annotations

import sys

from interlock.core.errors import Conflict
from interlock.interfaces.cli.caller import WAIT_SECONDS_MAX, Caller
from interlock.interfaces.cli.leaving import write_output
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.terminal import TerminalText
from interlock.interfaces.local.client import Disconnected
from interlock.interfaces.messages import say

KEPT_CHARACTERS_MAX = 4 * 1024 * 1024
"""How much output the envelope of `--output json` holds; `interlock output N` has all of it."""

_MOVING = frozenset({"queued", "running"})
_ASKS = frozenset({"submit", "retry", "undo"})
"""The methods that make a Run; the others move one that somebody else may have asked for."""
_RESUMES_MAX = 5


class RunStream:
    """What came of one request that may make or move a Run."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._terminal = TerminalText() if sys.stdout.isatty() else None
        self._pieces: list[str] = []
        self._kept = 0
        self._position = 0  # in characters of the Run's output, on this connection
        self._shown = 0  # on all of them

    @property
    def output(self) -> str:
        """What was printed, up to `KEPT_CHARACTERS_MAX`; only where the answer is for programs."""
        return "".join(self._pieces)

    @property
    def output_is_cut(self) -> bool:
        """Whether `output` lacks its end."""
        return self._kept > KEPT_CHARACTERS_MAX

    def hear(self, progress: dict[str, object]) -> None:
        """One progress frame."""
        number, output = progress.get("run"), progress.get("output")
        if isinstance(number, int):
            self._caller.run = number
        if isinstance(output, str):
            known = max(0, self._shown - self._position)
            self._position += len(output)
            self._shown = max(self._shown, self._position)
            self._write(output[known:])

    def request(self, method: str, params: dict[str, object], *, wait: bool, patience: str) -> Record:
        """Ask, follow the Run until it rests, and return the result: it holds `run` or `proposal`.

        Raises: what the resident process answers with; Disconnected when it went away before a Run was known.
        """
        waiting: dict[str, object] = {"wait_seconds": WAIT_SECONDS_MAX if wait else 0.0, "stream": wait}
        timeout = None if wait else 60.0
        self._caller.asked_here = method in _ASKS
        try:
            result = self._caller.call(
                method, {**params, **waiting}, on_progress=self.hear, timeout_seconds=timeout, patience=patience
            )
        except Disconnected:
            if self._caller.run is None or not wait:
                raise
            result = self._resume(self._caller.run)
        number = result.record("run").number("number")
        self._caller.run = number or None
        if wait and number and result.record("run").text("state") in _MOVING:
            result = self._resume(number)
        self._finish()
        return result

    def follow(self, number: int, *, tail_bytes: int | None, follow: bool) -> Record:
        """Show what a Run printed, and go on until it rests when `follow`."""
        self._caller.run = number if follow else None
        params: dict[str, object] = {"run": number, "follow": follow}
        if tail_bytes is not None:
            params["tail_bytes"] = tail_bytes
        result = self._caller.call("output", params, on_progress=self.hear, timeout_seconds=None if follow else 60.0)
        self._finish()
        return result

    def _resume(self, number: int) -> Record:
        """Go on with a Run whose connection was lost, from where its output was heard."""
        patience = say("Run {number} goes on", number=number)
        params: dict[str, object] = {"run": number, "follow": True}
        for _ in range(_RESUMES_MAX):
            self._caller.close()
            self._position = 0
            try:
                self._caller.call("output", params, on_progress=self.hear, timeout_seconds=None, patience=patience)
                return self._caller.call("wait", {"run": number, "wait_seconds": 60.0, "stream": False})
            except Disconnected:
                continue
        msg = f"the resident process went away {_RESUMES_MAX} times; Run {number} is recorded and goes on"
        raise Conflict(msg, code="resident.unsteady", fix=f"interlock show {number}")

    def _write(self, text: str) -> None:
        if self._caller.table:
            write_output(self._terminal.feed(text) if self._terminal is not None else text)
            return
        if self._kept <= KEPT_CHARACTERS_MAX:
            self._pieces.append(text[: KEPT_CHARACTERS_MAX - self._kept])
        self._kept += len(text)

    def _finish(self) -> None:
        if self._caller.table and self._terminal is not None:
            write_output(self._terminal.finish())
