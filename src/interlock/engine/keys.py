"""The two key files, one to sign the log and one to encrypt bodies: made once, readable by nobody else."""

from __future__ import annotations

import base64
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from interlock.core.errors import Permanent
from interlock.lib.note import NoteError, SigningKey

SIGNING_KEY = "evidence-ed25519.key"
PUBLIC_KEY = "evidence-ed25519.vkey"
BLOB_KEY = "blobs.key"
BLOB_KEY_BYTES = 32
_RESTORE = "restore the keys folder from a backup; a new key cannot stand in for it"


def signing_key(folder: Path, origin: str) -> SigningKey:
    """The key that signs checkpoints, made on first use; a key that exists keeps its name.

    A new one is named `origin`, with what no key name may hold replaced, and eight random digits: two logs never share
    a name. The public half is written beside it, for people to copy.

    Raises:
        Permanent: The file is damaged, or others may read it.
    """
    path = folder / SIGNING_KEY
    try:
        key = SigningKey.parse(_read_or_create(path, lambda: SigningKey.generate(_unique(origin)).encode()))
    except NoteError as error:
        msg = f"the key file {path} is damaged: {error}"
        raise Permanent(msg, code="key.damaged", fix=_RESTORE) from error
    public = _read_or_create(folder / PUBLIC_KEY, key.verifier.encode)
    if public != key.verifier.encode():
        msg = f"{folder / PUBLIC_KEY} is not the public half of {path}: one of the two was replaced"
        raise Permanent(msg, code="key.replaced", fix=_RESTORE)
    return key


def blob_key(folder: Path) -> bytes:
    """32 bytes that encrypt bodies, made on first use. Raises Permanent as `signing_key` does."""
    path = folder / BLOB_KEY
    text = _read_or_create(path, lambda: base64.b64encode(secrets.token_bytes(BLOB_KEY_BYTES)).decode())
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != BLOB_KEY_BYTES:
        msg = f"the key file {path} is damaged: it does not hold {BLOB_KEY_BYTES} bytes in base64"
        raise Permanent(msg, code="key.damaged", fix=_RESTORE)
    return key


def _unique(origin: str) -> str:
    return f"{re.sub(r'[^0-9A-Za-z._/-]+', '-', origin)}-{secrets.token_hex(4)}"


def _read_or_create(path: Path, make: Callable[[], str]) -> str:
    """The one line in `path`; when there is no such file, `make` gives it, and of several processes one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(path.parent)
    if not path.exists():
        _create(path, make() + "\n")
    _require_private(path)
    return path.read_text(encoding="utf-8").removesuffix("\n")


def _create(path: Path, text: str) -> None:
    """Write a whole file under its name or not at all; a file that is there already stays as it is."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)  # fails when the name exists, so that nothing is ever overwritten
        except FileExistsError:
            return
    finally:
        draft.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_private(path: Path) -> None:
    status = path.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        msg = f"{path} must belong to this user alone, and be no link"
        fix = f"chown {os.geteuid()} {path} && chmod go= {path}"
        raise Permanent(msg, code="key.exposed", fix=fix)
