"""A bearer's token: how it is written, what of it is kept, and what it may be used for."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from typing import Literal, NamedTuple

from interlock.core.model import Frozen

BearerKind = Literal["person", "service", "agent"]

ID_CHARACTERS = 12
ENTROPY_BYTES = 40
"""8 bytes name the token, 32 are its secret."""

_ID_BYTES = 8
_WRITTEN = re.compile(r"ilk_(?P<id>[a-z2-7]{12})_(?P<secret>[A-Za-z0-9_-]{43,128})")


class WrittenToken(NamedTuple):
    """A token as its bearer holds it: `ilk_ID_SECRET`."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """What is presented."""
        return f"ilk_{self.id}_{self.secret}"

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the secret's text, which is all that is kept of it.

        A plain digest is enough: the secret is 32 random bytes, which nobody guesses however quickly he can try.
        """
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()


class Token(Frozen):
    """What is kept of a token. Empty `scopes` do not narrow what its actor may do; `last_used_at` is a full hour."""

    id: str
    name: str
    kind: BearerKind
    actor: str
    on_behalf_of: str | None = None
    scopes: tuple[str, ...] = ()
    sha256: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def is_good_at(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at


def make_token(entropy: bytes) -> WrittenToken:
    """A new token of `ENTROPY_BYTES` random bytes. Raises ValueError for any other number of them."""
    if len(entropy) != ENTROPY_BYTES:
        msg = f"a token is made of {ENTROPY_BYTES} random bytes"
        raise ValueError(msg)
    identity = base64.b32encode(entropy[:_ID_BYTES]).decode("ascii").lower()[:ID_CHARACTERS]
    return WrittenToken(identity, base64.urlsafe_b64encode(entropy[_ID_BYTES:]).decode("ascii").rstrip("="))


def read_token(text: str) -> WrittenToken | None:
    """The parts of what was presented; None when it cannot be a token."""
    found = _WRITTEN.fullmatch(text)
    return WrittenToken(found["id"], found["secret"]) if found else None
