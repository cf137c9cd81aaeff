"""Records which environment an installation runs as: chosen once, kept in its state folder, the same for all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from interlock.core.environment import ENVIRONMENT, other_environment
from interlock.core.errors import Invalid, Permanent

BASE = "-"
"""What is recorded where no environment was chosen: interlock.yaml alone, and its key `environment`."""

_WORD_BYTES_MAX = 64


def recorded_environment(file: Path) -> str | None:
    """The environment that was chosen when the resident process started; None where nobody chose one.

    Raises:
        Permanent: The record cannot be read by this account, or is damaged.
    """
    word = _read(file)
    return None if word in {None, BASE} else word


def record_environment(file: Path, asked: str | None, *, change: bool) -> str | None:
    """Hold on to what was asked for; returns what is in force. The state folder's lock is held meanwhile.

    Args:
        file: Where the record lies.
        asked: By option or by INTERLOCK_ENVIRONMENT; None leaves everything as it was.
        change: Whether another environment than the recorded one may be chosen: by whoever starts it himself, and not
            by a process that is started on demand for whatever shell happened to ask first.

    Raises:
        Invalid: It is no name.
        Conflict: Another one is recorded, and may not be changed in this way.
        Permanent: As `recorded_environment`.
    """
    before = _read(file)
    if asked is not None and not ENVIRONMENT.fullmatch(asked):
        msg = f"{asked!r} is not the name of an environment"
        raise Invalid(msg, code="environment.name", fix="use lower-case letters, digits, - and _, as in prod")
    if asked is None or asked == before:
        if before is None:
            _write(file, BASE)
        return None if before in {None, BASE} else before
    if before is not None and not change:
        raise other_environment(None if before == BASE else before, asked)
    _write(file, asked)
    return asked


def _read(file: Path) -> str | None:
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123
            word = stream.read(_WORD_BYTES_MAX).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}"
        raise Permanent(msg, code="environment.record", fix=f"see ls -l {file}") from error
    if word != BASE and not ENVIRONMENT.fullmatch(word):
        msg = f"{file} is damaged: it does not name an environment"
        raise Permanent(msg, code="environment.record", fix=f"rm {file}, then: interlock serve --environment NAME")
    return word


def _write(file: Path, word: str) -> None:
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(word + "\n")
        stream.flush()
        os.fsync(descriptor)
    draft.replace(file)
