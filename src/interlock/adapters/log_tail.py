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
        self._closed = False
        self._descriptor = _open(path)
        if self._descriptor is not None and from_end:
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            # The end of a line that was begun before is no line.
            self._passing_over = end > 0 and os.pread(self._descriptor, 1, end - 1) != b"\n"

    def read(self, bytes_max: int) -> list[bytes]:
        """The lines of the next so many bytes, without their ends."""
        found: list[bytes] = []
        left = bytes_max
        # To the end, through files that were rotated away meanwhile: whoever is behind falls behind further otherwise.
        while left > 0 and (data := self._next_bytes(left)):
            left -= len(data)
            found += self._lines(data)
        return found

    def _lines(self, data: bytes) -> list[bytes]:
        *lines, rest = (self._begun + data).split(b"\n")
        if self._passing_over and lines:
            lines, self._passing_over = lines[1:], False
        if len(rest) > self._line_bytes_max:
            self.broken += not self._passing_over
            self._passing_over, rest = True, b""
        self._begun = rest
        return lines

    def close(self) -> None:
        """Let go of the file; nothing is read any more."""
        self._closed = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _next_bytes(self, bytes_max: int) -> bytes:
        for _ in range(_FILES_IN_A_ROW):
            if self._descriptor is None and not self._closed:
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
        found = os.fstat(descriptor)
        mine, older_path = (found.st_dev, found.st_ino), self.path.with_name(f"{self.path.name}.1")
        newest, older = _identity(self.path), _identity(older_path)
        read_to = os.lseek(descriptor, 0, os.SEEK_CUR)
        following = older_path if older not in {None, mine} else self.path
        if mine == newest or (newest is None and following == self.path):
            if found.st_size < read_to:  # somebody cut it short
                os.lseek(descriptor, 0, os.SEEK_SET)
                self._begun = b""
                return True
            return False
        # A file that was begun later is there, and all of this one counts.
        if read_to < os.fstat(descriptor).st_size:
            return True
        if mine == older and not self._has_successor:
            # Its writer may need a moment to see that: the next call tells.
            self._has_successor = True
            return False
        self.broken += bool(self._begun)
        self._begun, self._has_successor = b"", False
        os.close(descriptor)
        self._descriptor = _open(following)
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
