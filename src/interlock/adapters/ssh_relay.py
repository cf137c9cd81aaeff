"""Carries one request to the door of another machine over ssh, and its output back; a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

FRAME_BYTES_MAX = 2 * 1024 * 1024
WORDS_BYTES_MAX = 300
WORDS_SECONDS = 1.0
NOT_SENT, LOST = 3, 4  # as core.remote_host says; this program imports nothing that takes long to load


class NotSent(Exception):
    """Nothing was asked of the other side. Its text is how ssh, or the shell over there, put it."""


class Lost(Exception):
    """The other side was asked, and did not come to an end."""


def converse(
    ssh: list[str], request: dict[str, Any], on_output: Callable[[bytes], None], timeout_seconds: float
) -> dict[str, Any]:
    """Ask, hand on what is printed over there, and return the last frame.

    The request is sent once the other side said that it listens, so that without that word nothing can have happened.
    Our end stays open until the answer is there: when it closes, the other side kills what it runs.

    Raises: NotSent, Lost.
    """
    try:
        process = subprocess.Popen(
            ssh,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LANG": "C"},
            cwd="/",
        )
    except OSError as error:
        raise NotSent(error.strerror) from error
    timer = threading.Timer(timeout_seconds, process.kill)
    timer.daemon = True
    timer.start()
    words = _LastWords(process.stderr)
    try:
        return _converse(process, request, on_output)
    except NotSent as error:
        raise NotSent(words.read() or str(error)) from error
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        words.read()
        for stream in (process.stdin, process.stdout, process.stderr):
            _hang_up(stream)


def _converse(
    process: subprocess.Popen[bytes], request: dict[str, Any], on_output: Callable[[bytes], None]
) -> dict[str, Any]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None or _frame(stdout).get("ready") != 1:
        msg = "no door answers there"
        raise NotSent(msg)
    try:
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
    except OSError as error:
        msg = "the connection broke off"
        raise Lost(msg) from error
    while frame := _frame(stdout):
        if "output" in frame:
            on_output(str(frame["output"]).encode())
        else:
            return frame
    msg = "the connection broke off"
    raise Lost(msg)


class _LastWords:
    """The end of what is said on a stream of errors, which is read on the side so that it never fills up."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._end = b""
        self._thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._thread.start()

    def _follow(self, stream: IO[bytes] | None) -> None:
        while stream is not None and (piece := os.read(stream.fileno(), 4096)):
            self._end = (self._end + piece)[-WORDS_BYTES_MAX:]

    def read(self) -> str:
        """The last line, once the other side has hung up; of printable characters only."""
        self._thread.join(WORDS_SECONDS)
        last = self._end.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return "".join(each for each in last if each.isprintable())


def _frame(stream: IO[bytes]) -> dict[str, Any]:
    """The next frame; empty at the end, and for whatever is none."""
    line = stream.readline(FRAME_BYTES_MAX)
    try:
        frame = json.loads(line) if line.endswith(b"\n") else {}
    except ValueError:
        return {}
    return frame if isinstance(frame, dict) else {}


def _hang_up(stream: IO[bytes] | None) -> None:
    if stream is not None:
        try:
            stream.close()
        except OSError:
            return  # what was not sent any more belongs to a connection that is over


def main() -> int:
    """Read what to do from standard input; print output, and leave the answer in the file that was named."""
    given = json.load(sys.stdin)
    out = sys.stdout.fileno()

    def show(piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[os.write(out, left) :]

    try:
        frame = converse(given["ssh"], given["request"], show, float(given["timeout_seconds"]))
    except NotSent:
        return NOT_SENT
    except Lost:
        return LOST
    descriptor = os.open(given["answer"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(frame).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
