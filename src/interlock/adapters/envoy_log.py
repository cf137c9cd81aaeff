"""Reads what Envoy writes about requests, one line for each attempt, from where the reader was."""

from __future__ import annotations

from pathlib import Path

from interlock.adapters.envoy_documents import CHOSEN
from interlock.adapters.log_tail import LogTail
from interlock.core.traffic import Sample

_LINE_BYTES_MAX = 4096
_STATUS_MIN, _STATUS_MAX = 100, 599
_NONE = "-"
_FIELDS_BEFORE = 10
"""Of lines that connections write which are older than the routes' names."""


class EnvoyLog:
    """Implements `core.traffic.TrafficLog` for the lines of `envoy_documents`.

    The file is renamed to `NAME.1` when it is large, and Envoy begins a new one; the rest of the old one is read first.
    """

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self.path = path
        self._unreadable = 0
        self._tail = LogTail(path, from_end=from_end, line_bytes_max=_LINE_BYTES_MAX)

    @property
    def unreadable(self) -> int:
        """How many lines could not be read."""
        return self._unreadable + self._tail.broken

    def read(self, bytes_max: int) -> list[Sample]:
        """As the Protocol says."""
        lines = self._tail.read(bytes_max)
        return self._samples(b"\n".join(lines).decode("ascii", "replace").split("\n")) if lines else []

    def close(self) -> None:
        """Let go of the file; nothing is read any more."""
        self._tail.close()

    def _samples(self, lines: list[str]) -> list[Sample]:
        found: list[Sample] = []
        add, make = found.append, tuple.__new__  # without the keywords of Sample's own constructor
        for line in lines:
            fields = line.split(" ")
            if len(fields) == _FIELDS_BEFORE:
                fields.append(_NONE)
            try:
                kind, at, meant, arm, status, micros, _, flags, unit, request, route = fields
                # The common line: an attempt that was answered in full by the arm that was meant. Written out, because
                # it is read some thousand times in a second.
                if kind == "A" and flags == "-" and arm == meant and micros != "-" and route == "-":
                    code = int(status)
                    if not _STATUS_MIN <= code <= _STATUS_MAX:
                        self._unreadable += 1
                        continue
                    known, joined = ("" if unit == "-" else unit), ("" if request == "-" else request)
                    add(make(Sample, (float(at), arm, code, int(micros) * 1e-6, False, False, known, joined, False)))
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
    kind, at, meant, arm, status, micros, millis, flags, unit, request, route = fields
    if route not in {_NONE, CHOSEN}:
        msg = "no route of ours"
        raise ValueError(msg)
    chosen = route == CHOSEN
    shown, code = _known(meant if arm == _NONE else arm), _status(status)
    seconds = int(micros) * 1e-6 if micros != _NONE else int(millis) * 1e-3
    if kind == "A":
        if code == 0 and flags == _NONE:
            return None  # it was ended from our side: the request's own line says why
        ended_badly = flags != _NONE
        fell_back = _NONE not in (meant, arm) and meant != arm
        answered, known, joined = 0 if ended_badly else code, _known(unit), _known(request)
        return Sample(float(at), shown, answered, seconds, False, fell_back, known, joined, chosen)
    if kind != "E":
        msg = "another kind of line"
        raise ValueError(msg)
    left = "DC" in flags.split(",")
    if left and code != 0:
        return None  # he left while he was being answered; the attempt has a line of its own
    return Sample(float(at), shown, 0, seconds, left, False, _known(unit), _known(request), chosen)
