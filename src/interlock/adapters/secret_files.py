"""Secrets in files that only Interlock's own account, or root, may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from interlock.core.errors import Denied, Invalid, NotFound
from interlock.core.secret_reference import SECRET_BYTES_MAX

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretFiles:
    """Implements `core.secret_reference.Secrets`.

    Args:
        credentials_folder: Where `credential:NAME` lies.
    """

    def __init__(self, credentials_folder: Path) -> None:
        self._credentials_folder = credentials_folder

    def read(self, reference: str) -> str:
        """As the Protocol says; the file is read anew each time, so that a rotated secret counts at once."""
        kind, _, name = reference.partition(":")
        path = Path(name) if kind == "file" else self._credentials_folder / name
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            msg = f"there is no secret at {reference}"
            raise NotFound(msg, code="secret.unknown", fix=f"write it to {path}, mode 0600") from None
        except OSError as error:
            msg = f"the secret {reference} cannot be opened: {error.strerror}"
            raise Denied(msg, code="secret.unreadable", fix=f"let {path} be a plain file of this account") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS or found.st_uid not in (0, os.geteuid()):
                msg = f"the secret {reference} is not a file that only its owner (root or this account) may read"
                raise Denied(msg, code="secret.exposed", fix=f"chmod 600 {path}, and chown it")
            body = os.read(descriptor, SECRET_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
        return _text(body, reference)


def _text(body: bytes, reference: str) -> str:
    try:
        text = body.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or len(body) > SECRET_BYTES_MAX or "\0" in text:
        msg = f"the secret {reference} is empty, is not text, or is longer than {SECRET_BYTES_MAX} bytes"
        raise Invalid(msg, code="secret.malformed", fix="write the secret alone into its file")
    return text
