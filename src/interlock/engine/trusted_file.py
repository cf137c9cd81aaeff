"""Reads a small file that decides what is allowed: a regular file that not everybody may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from interlock.core.errors import Invalid, NotFound


def read_trusted(path: Path, bytes_max: int) -> bytes:
    """The whole content.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no regular file, is larger than `bytes_max`, cannot be read, or every user may write it.
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
        if facts.st_mode & stat.S_IWOTH:
            msg = f"every user may write {path}, and it decides what is allowed"
            raise Invalid(msg, code="file.writable", fix=f"chmod o-w {path}", details={"file": str(path)})
        body = file.read(bytes_max + 1)
    if len(body) > bytes_max:
        msg = f"{path} is larger than {bytes_max} bytes"
        raise Invalid(msg, code="file.size", fix="Shorten it.", details={"file": str(path)})
    return body
