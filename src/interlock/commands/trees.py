"""Looks, within bounds, at what lies beneath the folders that a command reads or writes whole."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ENTRIES_MAX = 20_000
SECONDS_MAX = 2.0


class Unbounded(Exception):
    """There is more beneath a folder than is looked at, or a part of it cannot be read."""


def walk(top: str, *, besides: str | None = None, monotonic: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """Every path beneath `top`, relative to it; nothing for a file. Links are named, never followed.

    `besides` is the name of folders that are left out.

    Raises: Unbounded after ENTRIES_MAX entries or SECONDS_MAX seconds, or where a folder may not be read.
    """
    end, count = monotonic() + SECONDS_MAX, 0
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(Path(top, inner)) as entries:
                for entry in entries:
                    count += 1
                    if count > ENTRIES_MAX or monotonic() > end:
                        raise Unbounded
                    if entry.name == besides:
                        continue
                    path = f"{inner}/{entry.name}" if inner else entry.name
                    yield path
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise Unbounded from error


def holds_secret(top: str, is_secret: Callable[[str], bool], *, besides: str | None = None) -> bool:
    """Whether anything beneath `top` is a secret by its path; what is too much to look at counts as one."""
    try:
        return any(is_secret(f"{top}/{path}") for path in walk(top, besides=besides))
    except Unbounded:
        return True


def met_beneath(source: str, destination: str) -> list[str]:
    """What lies at `destination`, and beneath it where `source` has something of the same name: it is overwritten.

    Plain folders are not: what is copied into them is looked at by itself.

    Raises: Unbounded.
    """
    places = [destination, *(f"{destination}/{path}" for path in walk(source))]
    return [place for place in places if os.path.lexists(place) and not _is_plain_folder(place)]


def _is_plain_folder(place: str) -> bool:
    return stat.S_ISDIR(os.lstat(place).st_mode)
