"""Follows a log file by lines, from where the reader was, over its rotation to `NAME.1` and over being cut short."""

from __future__ import annotations

import os
from pathlib import Path

_FILES_IN_A_ROW = 3  # one that was rotated away, the one after it, the newest


class LogTail:
    """Whole lines only; what was begun stays for the next call.

    Args:
        path: The file; it need not be there yet.
        from_end: Begin with what is written from now on.
        line_bytes_max: A longer line is passed over, and counted in `broken`.
    """

    def __init__(self, path: Path, *, from_end: bool, line_bytes_max: int) -> None:
        self.path = path
        self.broken = 0
        """Lines that were too long, or never ended because their file did."""
        self._line_bytes_max = line_bytes_max
        self._begun = b""
        self._passing_over = False
        self._has_successor = False
        self._descriptor = _open(path)
        if self._descriptor is not None and from_end:
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            # The end of a line that was begun before is no line.
            self._passing_over = end > 0 and os.pread(self._descriptor, 1, end - 1) != b"\n"

    def read(self, bytes_max: int) -> list[bytes]:
        """The lines of the next so many bytes, without their ends."""
        data = self._next_bytes(bytes_max)
        if not data:
            return []
        *lines, rest = (self._begun + data).split(b"\n")
        if self._passing_over and lines:
            lines, self._passing_over = lines[1:], False
        if len(rest) > self._line_bytes_max:
            self.broken += not self._passing_over
            self._passing_over, rest = True, b""
        self._begun = rest
        return lines

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _next_bytes(self, bytes_max: int) -> bytes:
        for _ in range(_FILES_IN_A_ROW):
            if self._descriptor is None:
                self._descriptor = _open(self.path)
            if self._descriptor is None:
                return b""
            if data := os.read(self._descriptor, bytes_max):
                return data
            if not self._goes_on(self._descriptor):
                return b""
        return b""

    def _goes_on(self, descriptor: int) -> bool:
        """Whether there is more to read: of a file that was rotated away and then written to, or of the next one."""
        mine, newest = os.fstat(descriptor), _identity(self.path)
        read_to = os.lseek(descriptor, 0, os.SEEK_CUR)
        if newest is None or newest == (mine.st_dev, mine.st_ino):
            if mine.st_size < read_to:  # somebody cut it short
                os.lseek(descriptor, 0, os.SEEK_SET)
                self._begun = b""
                return True
            return False
        # A file of this name is there again. Its writer may need a moment to see that: the next call tells.
        if read_to < os.fstat(descriptor).st_size:
            return True
        if not self._has_successor:
            self._has_successor = True
            return False
        older = self.path.with_name(f"{self.path.name}.1")
        was_skipped = _identity(older) not in {None, (mine.st_dev, mine.st_ino)}
        self.broken += bool(self._begun)
        self._begun, self._has_successor = b"", False
        self.close()
        self._descriptor = _open(older if was_skipped else self.path)
        return True


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
