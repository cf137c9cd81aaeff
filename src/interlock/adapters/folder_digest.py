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
PLAIN_RIGHTS = 0o755
"""Of a file in a copy: no rights of its owner's to whoever runs it, and nobody else may write."""
HISTORIES = frozenset({".git", ".hg", ".svn"})
WRITTEN_BY_PYTHON = "__pycache__"


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the paths, kinds, rights to execute and contents of all that lies below a folder.

    What is left out of it is never laid out either, so that nothing runs that the digest does not bind.

    Raises: NotFound (no such folder), Invalid (too much, neither file, link nor folder, or a link that leads out of
    the folder), Transient (it is being changed or cannot be read).
    """
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise NotFound(msg, code="source.missing", fix=f"put the version's files into {folder}")
    digest, size, inside = hashlib.sha256(), 0, os.path.realpath(folder)
    try:
        for count, (path, name) in enumerate(entries_below(folder), start=1):
            found = path.lstat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
            if count > ENTRIES_MAX or size > BYTES_MAX:
                raise _too_large(folder)
            digest.update(b"%d:%b," % (len(name), name))
            digest.update(_content(path, found, inside))
    except OSError as error:
        msg = f"{error.filename or folder} cannot be read: {error.strerror}"
        raise Transient(msg, code="source.unreadable", fix="check its permissions", effect_sent=False) from error
    return digest.hexdigest()


def is_left_out(entry: os.DirEntry[str], *, at_top: bool) -> bool:
    """What a version is not made of: the history beside it, and what Python writes while it runs."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    return entry.name == WRITTEN_BY_PYTHON or (at_top and entry.name in HISTORIES)


def entries_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Everything a version is made of, with its relative path; each folder's entries in the order of their bytes."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        entries = sorted(os.scandir(here), key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            if is_left_out(entry, at_top=here == folder):
                continue
            path = Path(entry.path)
            yield path, os.fsencode(path.relative_to(folder))
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)


def copy_folder(folder: Path, new: Path) -> None:
    """Copy what the digest is made of, with its rights and times, and nothing else. Bounded as the digest is.

    Nobody vouches for its staying the same meanwhile: who copies takes the digest of the copy.

    Raises: OSError, and Invalid as `folder_digest` does.
    """
    new.mkdir(mode=0o700)
    size = 0
    for count, (path, name) in enumerate(entries_below(folder), start=1):
        place, found = new / os.fsdecode(name), path.lstat()
        if stat.S_ISDIR(found.st_mode):
            place.mkdir(mode=0o700)
        elif stat.S_ISLNK(found.st_mode):
            place.symlink_to(path.readlink())
        elif stat.S_ISREG(found.st_mode):
            size += _copy_file(path, place, BYTES_MAX - size)
            place.chmod(stat.S_IMODE(found.st_mode) & PLAIN_RIGHTS)
            os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))
        else:
            raise _strange(path)
        if count > ENTRIES_MAX or size > BYTES_MAX:
            raise _too_large(folder)


def _copy_file(path: Path, place: Path, bytes_max: int) -> int:
    """Not more than one part beyond `bytes_max`, however it grows; returns the bytes that were copied."""
    size = 0
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(source, "rb") as file, place.open("xb") as copy:  # noqa: PTH123 - a descriptor
        while size <= bytes_max and (part := file.read(READ_BYTES)):
            size += copy.write(part)
    return size


def require_links_inside(folder: Path) -> None:
    """Raises Invalid with the path of a link that leads out of a folder, and OSError."""
    inside = os.path.realpath(folder)
    for path, _ in entries_below(folder):
        if path.is_symlink():
            _require_inside(path, inside)


def _require_inside(link: Path, inside: str) -> None:
    leads_to = os.path.realpath(link)
    if leads_to != inside and not leads_to.startswith(f"{inside}/"):
        msg = f"the link {link} leads out of the version's folder, to {leads_to}"
        fix = "put what it leads to into the folder, or make it with a command of `build`"
        raise Invalid(msg, code="source.link", fix=fix)


def _content(path: Path, found: os.stat_result, inside: str) -> bytes:
    if stat.S_ISDIR(found.st_mode):
        return b"d"
    if stat.S_ISLNK(found.st_mode):
        _require_inside(path, inside)
        return b"l" + hashlib.sha256(os.fsencode(path.readlink())).digest()
    if not stat.S_ISREG(found.st_mode):
        raise _strange(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return (b"x" if found.st_mode & stat.S_IXUSR else b"f") + digest.digest()


def _strange(path: Path) -> Invalid:
    msg = f"{path} is neither a file nor a folder nor a link"
    return Invalid(msg, code="source.strange", fix="move it out of the version's folder")


def _too_large(folder: Path) -> Invalid:
    msg = f"{folder} holds more than {ENTRIES_MAX} entries or {BYTES_MAX // 2**30} GiB"
    return Invalid(msg, code="source.too_large", fix="give the version by `git`, or move data out of its folder")
