"""Ed25519 keys and signed notes as C2SP describes them (c2sp.org/signed-note): text that carries its signatures."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 16
_SECRET_PREFIX = "PRIVATE+KEY+"  # noqa: S105 - the public marker of Go's note format, not a secret


class NoteError(ValueError):
    """A key or a note that is not what it should be."""


class BadSignature(NoteError):
    """The note is well formed, and this key did not sign it."""


def _decode(text: str, what: str) -> bytes:
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"{what} is not base64"
        raise NoteError(msg) from error
    if base64.b64encode(body).decode() != text:  # the last character may carry bits that decoding drops
        msg = f"{what} is not written as base64 is"
        raise NoteError(msg)
    return body


def _require_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() or not character.isprintable() for character in name):
        msg = f"{name!r} cannot name a key: no spaces, no plus, not empty"
        raise NoteError(msg)


def _key_id(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name || newline || 0x01 || public key)."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _parse_key(text: str, what: str) -> tuple[str, bytes, bytes]:
    """NAME+ID+BASE64 as (name, id, 32 bytes)."""
    name, _, rest = text.strip().partition("+")
    identity, _, encoded = rest.partition("+")
    _require_name(name)
    body = _decode(encoded, what)
    if len(body) != 1 + KEY_BYTES or body[:1] != ED25519:
        msg = f"{what} is not an Ed25519 key of {KEY_BYTES} bytes"
        raise NoteError(msg)
    try:
        return name, bytes.fromhex(identity), body[1:]
    except ValueError as error:
        msg = f"{what} has an id that is not hexadecimal"
        raise NoteError(msg) from error


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs under."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a vkey, `NAME+ID+BASE64`. Raises NoteError."""
        name, identity, public = _parse_key(text, "the public key")
        if identity != _key_id(name, public):
            msg = f"the id of the public key of {name} does not belong to it: a character was lost or changed"
            raise NoteError(msg)
        return cls(name, public)

    def encode(self) -> str:
        """`NAME+ID+BASE64`, on one line without a newline."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    @property
    def id(self) -> bytes:
        """Four bytes that tell keys apart; they prove nothing."""
        return _key_id(self.name, self.public)

    @property
    def fingerprint(self) -> str:
        """What people compare: SHA-256 of the public key, in hexadecimal."""
        return sha256(self.public).hexdigest()

    def is_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key made `signature` over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key with the name it signs under; printing it does not show it."""

    name: str
    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        """A new key from the operating system's randomness. Raises NoteError for an impossible name."""
        _require_name(name)
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `encode` wrote. Raises NoteError."""
        if not text.startswith(_SECRET_PREFIX):
            msg = f"a signing key begins with {_SECRET_PREFIX}"
            raise NoteError(msg)
        name, identity, seed = _parse_key(text.removeprefix(_SECRET_PREFIX), "the signing key")
        key = cls(name, seed)
        if identity != key.verifier.id:
            msg = f"the id of the signing key of {name} does not belong to it: a character was lost or changed"
            raise NoteError(msg)
        return key

    def encode(self) -> str:
        """`PRIVATE+KEY+NAME+ID+BASE64`, as Go's note tools write it. Secret."""
        body = base64.b64encode(ED25519 + self._seed).decode()
        return f"{_SECRET_PREFIX}{self.name}+{self.verifier.id.hex()}+{body}"

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self._private.public_key().public_bytes_raw())

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._seed)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of Ed25519 signature (RFC 8032); the same message always gives the same signature."""
        return self._private.sign(message)


def sign_note(text: str, key: SigningKey) -> str:
    """The note that carries `text` and one signature of `key`.

    Raises:
        NoteError: The text does not end with a newline, or holds control characters.
    """
    _require_text(text)
    signature = base64.b64encode(key.verifier.id + key.sign(text.encode())).decode()
    return f"{text}\n\N{EM DASH} {key.name} {signature}\n"


def open_note(note: str, key: VerifierKey) -> str:
    """The text of a note that `key` signed; signatures of other keys are passed over.

    Raises:
        BadSignature: No signature of this key, or one that does not hold.
        NoteError: It is not a signed note.
    """
    text, signatures = _take_apart(note)
    found = False
    for name, identity, signature in signatures:
        if name != key.name or identity != key.id:
            continue
        if not key.is_signed(text.encode(), signature):
            msg = f"the signature of {name} does not fit the text above it"
            raise BadSignature(msg)
        found = True
    if not found:
        signers = ", ".join(f"{name} ({identity.hex()})" for name, identity, _ in signatures)
        msg = f"it is not signed by {key.name} ({key.id.hex()}) but by {signers}"
        raise BadSignature(msg)
    return text


def signer_names(note: str) -> tuple[str, ...]:
    """Who claims to have signed; nothing is verified. Raises NoteError."""
    return tuple(name for name, _, _ in _take_apart(note)[1])


def _require_text(text: str) -> None:
    if not text.endswith("\n") or any(ord(character) < 0x20 and character != "\n" for character in text):  # noqa: PLR2004
        msg = "the text of a note ends with a newline and has no other control characters"
        raise NoteError(msg)


def _take_apart(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text and (name, key id, signature) of each line below it."""
    if len(note.encode()) > NOTE_BYTES_MAX:
        msg = f"a note is at most {NOTE_BYTES_MAX} bytes long"
        raise NoteError(msg)
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        msg = "it is not a signed note: an empty line and a signature line are missing"
        raise NoteError(msg)
    text += "\n"
    _require_text(text)
    rows = lines.removesuffix("\n").split("\n")
    if len(rows) > SIGNATURES_MAX:
        msg = f"a note has at most {SIGNATURES_MAX} signatures"
        raise NoteError(msg)
    return text, [_signature_line(row) for row in rows]


def _signature_line(line: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "\N{EM DASH}":
        msg = "a signature line begins with a long dash and a space"
        raise NoteError(msg)
    _require_name(name)
    body = _decode(encoded, "a signature")
    if len(body) != 4 + SIGNATURE_BYTES:
        msg = f"the signature of {name} has {len(body)} bytes instead of {4 + SIGNATURE_BYTES}"
        raise NoteError(msg)
    return name, body[:4], body[4:]
