"""RFC 8785 canonical JSON and the digests made from it."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical_bytes(value: Any) -> bytes:
    """The RFC 8785 (JCS) form of a JSON value.

    Raises:
        ValueError: The value is not JSON, or holds a number that IEEE 754 doubles cannot carry.
    """
    return rfc8785.dumps(value)


def digest_of(value: Any) -> str:
    """SHA-256 (lower-case hex) over the canonical form."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()
