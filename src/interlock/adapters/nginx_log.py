"""Reads what nginx writes about requests: one line for each, with all its attempts, as samples of versions."""

from __future__ import annotations

import re
from pathlib import Path

from interlock.adapters.log_tail import LogTail
from interlock.core.traffic import Sample
from interlock.lib.murmur2 import murmur2

LINE_BYTES_MAX = 64 * 1024
_FIELDS = {"1": 17, "2": 18}
"""By format. The first one is what workers write that are older than the mark of testers."""
_NONE = "-"
_CLIENT_LEFT = "499"
_BETWEEN = re.compile(r", | : ")


class NginxLog:
    """Implements `core.traffic.TrafficLog` for the lines of `nginx_configuration`; nginx counts in milliseconds."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self.path = path
        self._tail = LogTail(path, from_end=from_end, line_bytes_max=LINE_BYTES_MAX)
        self._unreadable = 0

    @property
    def unreadable(self) -> int:
        """How many lines could not be read."""
        return self._unreadable + self._tail.broken

    def read(self, bytes_max: int) -> list[Sample]:
        """As the Protocol says."""
        found: list[Sample] = []
        for line in self._tail.read(bytes_max):
            try:
                found += samples_of(line.decode("utf-8", "replace"))
            except ValueError:
                self._unreadable += 1
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._tail.close()


def samples_of(line: str) -> list[Sample]:
    """The attempts that a line tells, in their order; none for what nginx answered by itself (a request that is none).

    Raises ValueError for a line that is none of ours.
    """
    fields = line.split("\t")
    if _FIELDS.get(fields[0]) != len(fields):
        msg = "not a line of this format"
        raise ValueError(msg)
    chosen = fields[0] == "2" and fields.pop() != ""
    ended, lasted, status, completion, method, request, arm, pool, stable, *told, length, declared, unit = fields[1:]
    lists = [_BETWEEN.split(each) if each else [] for each in told]
    addresses, statuses, headers, times = lists  # times: until the last byte; headers: until the first
    if not arm or not addresses:
        return []
    if not len(addresses) == len(statuses) == len(headers) == len(times):
        msg = "attempts that do not match"
        raise ValueError(msg)
    seconds_in_all, ended_at = float(lasted), float(ended)
    who, left = str(murmur2(unit.encode())), status == _CLIENT_LEFT or completion == ""
    stable_name, _, stable_address = stable.partition(" ")
    falls_back = pool.endswith("_or_0")
    found: list[Sample] = []
    for index, (address, code, header, time) in enumerate(zip(addresses, statuses, headers, times, strict=True)):
        is_last = index == len(addresses) - 1
        fell_back = falls_back and index > 0 and _is_of_stable(address, stable_address)
        if not is_last and not (falls_back and _is_of_stable(addresses[index + 1], stable_address)):
            continue  # the same version was asked again: a connection that had been idle was closed under way
        answered = 0 if _NONE in {header, code} else int(code)
        if is_last and not left and _was_cut_short(method, answered, length, declared):
            answered = 0
        found.append(
            Sample(
                at_seconds=ended_at - seconds_in_all,
                arm=stable_name if fell_back else arm,
                status=answered,
                seconds=float(next((each for each in (header, time) if each != _NONE), seconds_in_all)),
                client_left=left and is_last,
                fell_back=fell_back,
                unit=who,
                request=request,
                chosen=chosen,
            )
        )
    return found


def _is_of_stable(address: str, stable: str) -> bool:
    """A name that was resolved shows another address; then only the order tells."""
    return address == stable or not re.fullmatch(r"[0-9.]+:[0-9]+|\[[0-9a-f:]+\]:[0-9]+", stable)


def _was_cut_short(method: str, answered: int, length: str, declared: str) -> bool:
    """Whether the version declared more than it sent; nginx calls such a request complete."""
    if method == "HEAD" or not 200 <= answered < 300 or not declared.isdigit():  # noqa: PLR2004 - success
        return False
    sent = _BETWEEN.split(length)[-1]
    return sent.isdigit() and int(sent) < int(declared)
