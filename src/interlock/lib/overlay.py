"""Lays one document over another: maps merge, everything else replaces, null removes; each value keeps its place."""

from __future__ import annotations

from typing import Any

from interlock.lib.strict_yaml import Document, Path


def lay_over(base: Document, base_file: str, overlay: Document, overlay_file: str) -> tuple[Document, list[Path]]:
    """The document that both make, and the paths that the overlay removes although the base has nothing there.

    A map merges with the map of the same path, key by key. A list or a scalar of the overlay takes the place of
    whatever was there. `key: null` in a map removes the key with all below it; a null in a list is a value. Neither
    argument is changed; where the overlay says nothing, the result is the base.
    """
    merging = _Merging(base, base_file, overlay, overlay_file)
    data = merging.merge(base.data or {}, overlay.data or {}, ())
    return Document(data, merging.lines, merging.files), merging.absent


class _Merging:
    """Both documents, and the places of what has been merged so far."""

    def __init__(self, base: Document, base_file: str, overlay: Document, overlay_file: str) -> None:
        self.lines = dict(base.lines)
        self.files = dict.fromkeys(base.lines, base_file) | dict(base.files)
        self.absent: list[Path] = []
        self._overlay = overlay
        self._overlay_file = overlay_file

    def merge(self, base: dict[str, Any], overlay: dict[str, Any], path: Path) -> dict[str, Any]:
        """The reader bounds the depth of both."""
        found = dict(base)
        for key, value in overlay.items():
            place = (*path, key)
            before = found.get(key)
            if value is None:
                self._remove(found, key, place)
            elif isinstance(value, dict):
                if not isinstance(before, dict):
                    self._forget(place)
                    self._take(place)
                found[key] = self.merge(before if isinstance(before, dict) else {}, value, place)
            else:
                self._forget(place)
                for each in [each for each in self._overlay.lines if each[: len(place)] == place]:
                    self._take(each)
                found[key] = value
        return found

    def _remove(self, found: dict[str, Any], key: str, place: Path) -> None:
        if key not in found:
            self.absent.append(place)
            return
        del found[key]
        self._forget(place)

    def _forget(self, place: Path) -> None:
        for each in [each for each in self.lines if each[: len(place)] == place]:
            del self.lines[each], self.files[each]

    def _take(self, place: Path) -> None:
        self.lines[place] = self._overlay.lines[place]
        self.files[place] = self._overlay_file
