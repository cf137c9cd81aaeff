"""Reads a small file that decides what is allowed: a regular file that nobody but its operator may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from interlock.core.errors import Invalid, NotFound
from interlock.lib.reach import FileStatus, why_loose


def read_trusted(path: Path, bytes_max: int) -> bytes:
    """The whole content.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no regular file, is larger than `bytes_max`, cannot be read, or somebody besides root and this
            account (or its group) could write it or exchange it in its folder.
    """
    try:
        # Without O_NONBLOCK a named pipe in the file's place would hang the one who opens it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        msg = f"{path} does not exist"
        raise NotFound(msg, code="file.missing", details={"file": str(path)}) from error
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise Invalid(msg, code="file.unreadable", fix=f"see ls -l {path}", details={"file": str(path)}) from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            msg = f"{path} is not a regular file"
            raise Invalid(msg, code="file.kind", fix="Put a plain file there.", details={"file": str(path)})
        _require_operators(path, facts)
        body = file.read(bytes_max + 1)
    if len(body) > bytes_max:
        msg = f"{path} is larger than {bytes_max} bytes"
        raise Invalid(msg, code="file.size", fix="Shorten it.", details={"file": str(path)})
    return body


def _require_operators(path: Path, facts: os.stat_result) -> None:
    """Raises Invalid when the file, or what lies in its folder, is in the hands of others."""
    owners, groups = frozenset({0, os.geteuid()}), frozenset({0, os.getegid()})
    why, loose = why_loose(_status(facts, facts.st_uid), owners, groups), path
    if why is None:
        # Another owner of the folder could only put a file of his own here, which is refused.
        loose = Path(os.path.realpath(path)).parent
        folder = loose.stat()
        why = None if folder.st_mode & stat.S_ISVTX else why_loose(_status(folder, os.geteuid()), owners, groups)
    if why is None:
        return
    msg = f"{loose}: {why}, and {'it' if loose == path else path.name} decides what is allowed"
    mend = f"chown {os.geteuid()} {loose}" if loose == path and facts.st_uid not in owners else f"chmod go-w {loose}"
    raise Invalid(msg, code="file.writable", fix=mend, details={"file": str(path)})


def _status(facts: os.stat_result, owner: int) -> FileStatus:
    return FileStatus(facts.st_mode, owner, group=facts.st_gid)
