"""MurmurHash2 of 32 bits: the hash by which nginx's `split_clients` shares users, so that every proxy agrees on it."""

from __future__ import annotations

HASH_MAX = 0xFFFF_FFFF

_MULTIPLIER = 0x5BD1_E995
_WORD = 4


def murmur2(text: bytes) -> int:
    """The hash of A. Appleby, MurmurHash2 with seed 0, between 0 and `HASH_MAX`; words are little endian."""
    length = len(text)
    value = length & HASH_MAX
    whole = length - length % _WORD
    for start in range(0, whole, _WORD):
        word = int.from_bytes(text[start : start + _WORD], "little") * _MULTIPLIER & HASH_MAX
        word = (word ^ word >> 24) * _MULTIPLIER & HASH_MAX
        value = (value * _MULTIPLIER & HASH_MAX) ^ word
    if whole < length:
        value = (value ^ int.from_bytes(text[whole:], "little")) * _MULTIPLIER & HASH_MAX
    value = (value ^ value >> 13) * _MULTIPLIER & HASH_MAX
    return value ^ value >> 15
