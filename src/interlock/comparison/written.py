"""Files that hold what versions answered: for their owner alone, replaced as a whole or added to within a bound."""

from __future__ import annotations

import os
from pathlib import Path

OWNER_ONLY = 0o600


def replace_file(path: Path, body: bytes) -> None:
    """Put a file in place as a whole: whoever reads it gets the old one or the new one. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, OWNER_ONLY), "wb") as file:
            file.write(body)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


class Journal:
    """Lines that are added to a file; when it is full it becomes `NAME.1`, and the one before that is gone."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        """Begins a new line where whoever wrote last was killed in the middle of one. Raises OSError."""
        self._path = path
        self._bytes_max = bytes_max
        self._open()
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, OWNER_ONLY)
        self._size = os.fstat(self._descriptor).st_size

    def add(self, line: bytes) -> None:
        """Add a line, given without its end. Raises OSError; then a part of it may be there, on a line of its own."""
        if self._size and self._size + len(line) + 1 > self._bytes_max:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            os.close(self._descriptor)
            self._open()
        whole = line + b"\n"
        written = os.write(self._descriptor, whole)
        self._size += written
        if written < len(whole):
            self._size += os.write(self._descriptor, b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
