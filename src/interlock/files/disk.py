"""Reads and replaces files without following links; the only file of this folder that touches the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from interlock.core.errors import Denied, NotFound, Permanent, Stale, Transient

FILE_BYTES_MAX = 16 * 1024 * 1024
NEW_FILE_MODE = 0o644

_ASK_AGAIN = "ask again to see the new plan"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Attributes(NamedTuple):
    """What a file has besides its bytes, and what must survive when it is replaced or comes back."""

    mode: int
    user: int
    group: int


@dataclass(frozen=True)
class FileState:
    """A regular file as it is."""

    body: bytes
    attributes: Attributes

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(self.body).hexdigest()


@contextmanager
def open_folder(path: str) -> Iterator[int]:
    """A descriptor of the folder that holds `path`, walked from the root without following any link.

    Raises: Stale when a component is a link or gone: the path was resolved before, so somebody swapped it.
    """
    parts = PurePosixPath(path).parts[1:-1]
    descriptor = os.open("/", _FOLDER)
    try:
        for part in parts:
            try:
                below = os.open(part, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                    msg = f"the folder of {path} is not what it was when the plan was made"
                    raise Stale(msg, code="file.moved", fix=_ASK_AGAIN) from error
                raise _translated(error, path) from error
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(path: str) -> FileState | None:
    """The file at an absolute path without links, or None when there is none.

    Raises: Denied (not a regular file, or not ours to read), Permanent (too large), Stale (swapped for a link).
    """
    with open_folder(path) as folder:
        return _read(folder, path)


def replace_file(
    path: str,
    body: bytes,
    before: FileState | None,
    hold: Callable[[], None],
    attributes: Attributes | None = None,
) -> None:
    """Put `body` in place of what is there, whole or not at all.

    `before` is what the caller found; owner and mode are taken from it. A file that comes back has those of
    `attributes`; one that is new belongs to this account. `hold` is called at the last moment.

    Raises: Stale when the file is not as `before` says; Transient when the disk is full.
    """
    name = PurePosixPath(path).name
    with open_folder(path) as folder:
        temporary = f".{name[:200]}.interlock-{os.getpid()}-{threading.get_ident()}"
        try:
            descriptor = os.open(temporary, _CREATE, 0o600, dir_fd=folder)
        except OSError as error:
            raise _translated(error, path) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
                file.flush()
                mode, *owner = before.attributes if before is not None else attributes or _new()
                if owner != [os.geteuid(), os.getegid()]:
                    os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            hold()
            _require_same(folder, path, before)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            _discard(temporary, folder)
            raise _translated(error, path) from error
        except BaseException:
            _discard(temporary, folder)
            raise


def remove_file(path: str, before: FileState, hold: Callable[[], None]) -> None:
    """Take a file away. Raises Stale when it is not as `before` says."""
    with open_folder(path) as folder:
        hold()
        _require_same(folder, path, before)
        try:
            os.unlink(PurePosixPath(path).name, dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            raise _translated(error, path) from error


def _read(folder: int, path: str) -> FileState | None:
    try:
        descriptor = os.open(PurePosixPath(path).name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = f"{path} became a link after it was resolved"
            raise Stale(msg, code="file.moved", fix=_ASK_AGAIN) from error
        raise _translated(error, path) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        msg = f"{path} is not a regular file"
        raise Denied(msg, code="file.not_regular", fix="name a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > FILE_BYTES_MAX:
            msg = f"{path} has {found.st_size:,} bytes; at most {FILE_BYTES_MAX:,} go through the door"
            raise Permanent(msg, code="file.size")
        body = file.read(FILE_BYTES_MAX + 1)
    return FileState(body, Attributes(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid))


def _new() -> Attributes:
    return Attributes(NEW_FILE_MODE, os.geteuid(), os.getegid())


def _require_same(folder: int, path: str, before: FileState | None) -> None:
    now = _read(folder, path)
    if now != before:
        msg = f"{path} changed at the last moment; nothing was written"
        raise Stale(msg, code="file.changed", fix=_ASK_AGAIN)


def _discard(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _translated(error: OSError, path: str) -> Exception:
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return Transient(f"no room on the disk for {path}", code="disk.full", effect_sent=False)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(f"{path}: {reason}", code="file.permission", fix="Interlock's own account lacks the right")
    if error.errno == errno.ENOENT:
        return NotFound(f"{path}: {reason}", code="file.unknown")
    return Permanent(f"{path}: {reason}", code="file.error")
