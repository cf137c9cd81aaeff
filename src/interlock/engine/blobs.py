"""Bodies (outputs, diffs, originals) in encrypted files that are named after the SHA-256 of what they hold."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from interlock.core.errors import Invalid, NotFound, Permanent, Transient
from interlock.engine.keys import sync_folder

BODY_BYTES_MAX = 64 * 1024 * 1024
_MAGIC = b"interlock-blob-1\n"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class FileBlobs:
    """Implements `core.ports.Blobs`: AES-256-GCM, one file a body, written whole or not at all.

    The digest is authenticated with the body, so that one file cannot stand in for another. Safe to use from many
    threads and processes.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._cipher = AESGCM(key)

    def put(self, body: bytes) -> str:
        """Keep a body; a body that is there already is kept once.

        Raises:
            Permanent: `blob.too_large`, over `BODY_BYTES_MAX` bytes; `blob.unwritable`.
            Transient: `blob.disk_full`.
        """
        if len(body) > BODY_BYTES_MAX:
            msg = f"a body of {len(body)} bytes is over the {BODY_BYTES_MAX} that are kept"
            raise Permanent(msg, code="blob.too_large")
        digest = sha256(body).hexdigest()
        path = self._path(digest)
        try:
            if not self._keep_on(path, digest):
                nonce = secrets.token_bytes(_NONCE_BYTES)
                self._write(path, _MAGIC + nonce + self._cipher.encrypt(nonce, body, digest.encode()))
        except OSError as error:
            if error.errno in _DISK_FULL:
                msg = f"the disk that holds {self._folder} is full"
                raise Transient(msg, code="blob.disk_full", fix="make room, then ask again") from error
            msg = f"a body cannot be written to {self._folder}: {error.strerror}"
            raise Permanent(msg, code="blob.unwritable", fix="interlock check") from error
        return digest

    def get(self, digest: str) -> bytes:
        """The body.

        Raises:
            Invalid: That is not a digest.
            NotFound: `blob.pruned`, there is none (any more).
            Permanent: `blob.damaged`, the file is not what was put.
        """
        try:
            packed = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            msg = f"the body {digest[:12]} is not kept any more"
            raise NotFound(msg, code="blob.pruned", fix="bodies live as long as retention.bodies_days says") from error
        body = self._decrypt(packed, digest)
        if body is None:
            msg = f"the body {digest[:12]} was changed on disk, or belongs to another key"
            raise Permanent(msg, code="blob.damaged", fix="restore it from a backup")
        return body

    def prune(self, digest: str) -> bool:
        """Forget a body; whether there was one."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def prune_older(self, moment: datetime) -> int:
        """Forget every body that nobody put again since `moment`, and what a killed process left half written.

        Returns: how many files that were.
        """
        pruned = 0
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            try:
                if path.stat(follow_symlinks=False).st_mtime < moment.timestamp():
                    path.unlink()
                    pruned += 1
            except FileNotFoundError:
                continue  # somebody else pruned it
        return pruned

    def digests(self) -> Iterator[str]:
        """Every body that is kept, in no order."""
        return (path.name for path in self._folder.glob("[0-9a-f][0-9a-f]/*") if _DIGEST.fullmatch(path.name))

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            msg = "a body is named by 64 hexadecimal digits"
            raise Invalid(msg, code="blob.digest")
        return self._folder / digest[:2] / digest

    def _keep_on(self, path: Path, digest: str) -> bool:
        """Make a sound body young again, so that retention counts from now; a damaged one must be written anew."""
        try:
            if self._decrypt(path.read_bytes(), digest) is None:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _decrypt(self, packed: bytes, digest: str) -> bytes | None:
        start = len(_MAGIC) + _NONCE_BYTES
        if not packed.startswith(_MAGIC) or len(packed) < start + _TAG_BYTES:
            return None
        try:
            body = self._cipher.decrypt(packed[len(_MAGIC) : start], packed[start:], digest.encode())
        except InvalidTag:
            return None
        return body if sha256(body).hexdigest() == digest else None

    def _write(self, path: Path, packed: bytes) -> None:
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_name(f".{path.name[:12]}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
