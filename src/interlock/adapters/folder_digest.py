"""The digest of a folder's content, within bounds: what a version is when nothing else says so."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from interlock.core.errors import Invalid, NotFound, Transient

ENTRIES_MAX = 50_000
BYTES_MAX = 2 * 1024 * 1024 * 1024
READ_BYTES = 1024 * 1024
LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__"})
"""What a version is not made of: the history beside it, and what Python writes while it runs."""


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the paths, kinds, rights to execute and contents of all that lies below a folder.

    Raises: NotFound (no such folder), Invalid (too much, or neither file, link nor folder), Transient (it is being
    changed or cannot be read).
    """
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise NotFound(msg, code="source.missing", fix=f"put the version's files into {folder}")
    digest, size = hashlib.sha256(), 0
    try:
        for count, (path, name) in enumerate(_entries(folder), start=1):
            found = path.lstat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
            if count > ENTRIES_MAX or size > BYTES_MAX:
                raise _too_large(folder)
            digest.update(b"%d:%b," % (len(name), name))
            digest.update(_content(path, found))
    except OSError as error:
        msg = f"{error.filename or folder} cannot be read: {error.strerror}"
        raise Transient(msg, code="source.unreadable", fix="check its permissions", effect_sent=False) from error
    return digest.hexdigest()


def _entries(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Everything below, each folder's entries in the order of their names' bytes."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        entries = sorted(os.scandir(here), key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            if entry.name in LEFT_OUT:
                continue
            path = Path(entry.path)
            yield path, os.fsencode(path.relative_to(folder))
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)


def _content(path: Path, found: os.stat_result) -> bytes:
    if stat.S_ISDIR(found.st_mode):
        return b"d"
    if stat.S_ISLNK(found.st_mode):
        return b"l" + hashlib.sha256(os.fsencode(path.readlink())).digest()
    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is neither a file nor a folder nor a link"
        raise Invalid(msg, code="source.strange", fix="move it out of the version's folder")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return (b"x" if found.st_mode & stat.S_IXUSR else b"f") + digest.digest()


def _too_large(folder: Path) -> Invalid:
    msg = f"{folder} holds more than {ENTRIES_MAX} entries or {BYTES_MAX // 2**30} GiB"
    return Invalid(msg, code="source.too_large", fix="give the version by `git`, or move data out of its folder")
