"""Reads an answer's body no further than wanted, whatever it grows to when it is decompressed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

PIECE_BYTES = 64 * 1024
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
CODINGS: dict[str, int] = {"gzip": _GZIP_OR_ZLIB, "x-gzip": _GZIP_OR_ZLIB, "deflate": _GZIP_OR_ZLIB}


class Unreadable(Exception):
    """The body cannot be read; the message says why."""


def read_body(pieces: Iterable[bytes], coding: str, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes of a body; `coding` is its Content-Encoding.

    Raises: Unreadable, and whatever reading the pieces raises.
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return _joined(pieces, bytes_max)
    if name not in CODINGS:
        msg = f"it is compressed as {name[:32]!a}, which nobody asked for"
        raise Unreadable(msg)
    try:
        return _joined(_inflated(pieces, CODINGS[name]), bytes_max)
    except zlib.error as error:
        msg = f"it says that it is compressed as {name}, and is not"
        raise Unreadable(msg) from error


def _joined(pieces: Iterable[bytes], bytes_max: int) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) >= bytes_max:
            break
    return bytes(body[:bytes_max])


def _inflated(pieces: Iterable[bytes], window_bits: int) -> Iterable[bytes]:
    """Never more than `PIECE_BYTES` at once, so that a bomb goes off one spoonful at a time."""
    decompressor = zlib.decompressobj(window_bits)
    for piece in pieces:
        left = piece
        while left and not decompressor.eof:
            yield decompressor.decompress(left, PIECE_BYTES)
            left = decompressor.unconsumed_tail
