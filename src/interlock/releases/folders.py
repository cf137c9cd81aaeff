"""Where the files of releases lie: one folder each, closed to others."""

from __future__ import annotations

from pathlib import Path


class ReleaseFolders:
    """The folders `releases/N` below the state folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, number: int) -> Path:
        """Where the files of one release lie, be it that there are none."""
        return self._root / str(number)

    def made(self, number: int) -> Path:
        """The same, made if need be. Raises OSError."""
        path = self.path(number)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
