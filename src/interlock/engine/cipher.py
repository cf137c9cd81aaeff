"""Encrypts pieces of output with the key that encrypts bodies."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from interlock.core.errors import Permanent

NONCE_BYTES = 12
PURPOSE = b"interlock-output-1"


class PieceCipher:
    """AES-256-GCM with a random nonce before each piece."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, body: bytes) -> bytes:
        """Encrypt."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, body, PURPOSE)

    def open(self, body: bytes) -> bytes:
        """Decrypt. Raises Permanent when it was changed or belongs to another key."""
        try:
            return self._cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], PURPOSE)
        except InvalidTag as error:
            msg = "a piece of output was changed in the database, or belongs to another key"
            raise Permanent(msg, code="output.damaged", fix="restore the keys folder from a backup") from error
