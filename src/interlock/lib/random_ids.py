"""Ids that nobody else draws."""

from __future__ import annotations

import os


def random_hex(byte_count: int) -> str:
    """So many bytes of the kernel's chance, as lower-case hexadecimal digits."""
    return os.urandom(byte_count).hex()
