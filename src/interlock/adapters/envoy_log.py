"""Reads what Envoy writes about requests, one line for each attempt, from where the reader was."""

from __future__ import annotations

import os
from pathlib import Path

from interlock.core.traffic import Sample

_FILES_IN_A_ROW = 3  # one that was rotated away, the one after it, the newest
_LINE_BYTES_MAX = 4096
_STATUS_MIN, _STATUS_MAX = 100, 599
_NONE = "-"


class EnvoyLog:
    """Implements `core.traffic.TrafficLog` for the lines of `envoy_documents`.

    The file is renamed to `NAME.1` when it is large, and Envoy begins a new one; the rest of the old one is read first.
    """

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self.path = path
        self._unreadable = 0
        self._begun = b""
        self._overlong = False
        self._descriptor = _open(path)
        if self._descriptor is not None and from_end:
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            # What was written of a line before this reader began is not taken for a line.
            self._overlong = end > 0 and os.pread(self._descriptor, 1, end - 1) != b"\n"

    @property
    def unreadable(self) -> int:
        """How many lines could not be read."""
        return self._unreadable

    def read(self, bytes_max: int) -> list[Sample]:
        """As the Protocol says."""
        found: list[Sample] = []
        left = bytes_max
        # To the end, through files that were rotated away meanwhile: whoever is behind falls behind further otherwise.
        while left > 0 and (data := self._next_bytes(left)):
            left -= len(data)
            found += self._read_lines(data)
        return found

    def _read_lines(self, data: bytes) -> list[Sample]:
        *lines, rest = (self._begun + data).split(b"\n")
        if self._overlong and lines:
            lines, self._overlong = lines[1:], False
        if len(rest) > _LINE_BYTES_MAX:
            self._unreadable += not self._overlong
            self._overlong, rest = True, b""
        self._begun = rest
        return self._samples(b"\n".join(lines).decode("ascii", "replace").split("\n")) if lines else []

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # Files

    def _next_bytes(self, bytes_max: int) -> bytes:
        """What comes next, from the file that follows where this one has ended."""
        for _ in range(_FILES_IN_A_ROW):
            if self._descriptor is None:
                self._descriptor = _open(self.path)
            if self._descriptor is None:
                return b""
            if data := os.read(self._descriptor, bytes_max):
                return data
            if not self._has_gone_on(self._descriptor):
                return b""
        return b""

    def _has_gone_on(self, descriptor: int) -> bool:
        """Whether the file was rotated away and is read to its end; then the next one is open."""
        found = os.fstat(descriptor)
        mine, older_path = (found.st_dev, found.st_ino), self.path.with_name(f"{self.path.name}.1")
        newest, older = _identity(self.path), _identity(older_path)
        read_to = os.lseek(descriptor, 0, os.SEEK_CUR)
        following = older_path if older not in {None, mine} else self.path
        if mine == newest or (newest is None and following == self.path):
            if found.st_size < read_to:  # somebody cut it short
                os.lseek(descriptor, 0, os.SEEK_SET)
                self._begun = b""
            return False
        # A file that was begun later is there, so that nothing is written to this one any more; all of it counts.
        if read_to < os.fstat(descriptor).st_size:
            return True
        self._unreadable += bool(self._begun)
        self._begun = b""
        self.close()
        self._descriptor = _open(following)
        return True

    # Lines

    def _samples(self, lines: list[str]) -> list[Sample]:
        found: list[Sample] = []
        add, make = found.append, tuple.__new__  # without the keywords of Sample's own constructor
        for line in lines:
            fields = line.split(" ")
            try:
                kind, at, meant, arm, status, micros, _, flags, unit, request = fields
                # The common line: an attempt that was answered in full by the arm that was meant. Written out, because
                # it is read some thousand times in a second.
                if kind == "A" and flags == "-" and arm == meant and micros != "-":
                    code = int(status)
                    if not _STATUS_MIN <= code <= _STATUS_MAX:
                        self._unreadable += 1
                        continue
                    known, joined = ("" if unit == "-" else unit), ("" if request == "-" else request)
                    add(make(Sample, (float(at), arm, code, int(micros) * 1e-6, False, False, known, joined)))
                elif (sample := _unusual(fields)) is not None:
                    add(sample)
            except (ValueError, KeyError):
                self._unreadable += 1
        return found


def _status(text: str) -> int:
    value = int(text)
    if value != 0 and not _STATUS_MIN <= value <= _STATUS_MAX:
        msg = "no status"
        raise ValueError(msg)
    return value


def _known(text: str) -> str:
    return "" if text == _NONE else text


def _unusual(fields: list[str]) -> Sample | None:
    """An attempt that failed, that fell back or that was never made; None for what another line tells better.

    Raises ValueError for a line that is none.
    """
    kind, at, meant, arm, status, micros, millis, flags, unit, request = fields
    shown, code = _known(meant if arm == _NONE else arm), _status(status)
    seconds = int(micros) * 1e-6 if micros != _NONE else int(millis) * 1e-3
    if kind == "A":
        if code == 0 and flags == _NONE:
            return None  # it was ended from our side: the request's own line says why
        ended_badly = flags != _NONE
        fell_back = _NONE not in (meant, arm) and meant != arm
        return Sample(
            float(at), shown, 0 if ended_badly else code, seconds, False, fell_back, _known(unit), _known(request)
        )
    if kind != "E":
        msg = "another kind of line"
        raise ValueError(msg)
    left = "DC" in flags.split(",")
    if left and code != 0:
        return None  # he left while he was being answered; the attempt has a line of its own
    return Sample(float(at), shown, 0, seconds, left, False, _known(unit), _known(request))


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
