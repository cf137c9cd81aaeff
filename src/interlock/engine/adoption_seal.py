"""Binds each row of the table of adopted programs to what Interlock itself wrote: a MAC under a key of its own."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from interlock.lib.canonical import canonical_bytes

PURPOSE = b"interlock-adopted-1"
KEY_BYTES = 32
SEALED = ("name", "program", "path", "sha256", "adopted_by", "run")


class AdoptionSeal:
    """HMAC-SHA256 over a row's RFC 8785 form, with a key derived (HKDF, RFC 5869) from the one that encrypts bodies.

    Whoever can write to the database and cannot read the keys folder makes no row that holds. He may still bring back a
    row that held once, which names a script by the digest of its content.
    """

    def __init__(self, key: bytes) -> None:
        self._key = HKDF(SHA256(), KEY_BYTES, salt=None, info=PURPOSE).derive(key)

    def of(self, row: Mapping[str, Any]) -> str:
        """Hex digits for the columns in `SEALED`. Raises ValueError when one holds what is no JSON."""
        return hmac.digest(self._key, canonical_bytes({name: row[name] for name in SEALED}), "sha256").hex()

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether Interlock wrote this row as it stands; `mac` may be None."""
        try:
            expected = self.of(row)
        except (ValueError, RecursionError):
            return False
        return hmac.compare_digest(expected.encode(), str(row["mac"] or "").encode())
