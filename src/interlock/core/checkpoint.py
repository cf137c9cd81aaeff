"""A checkpoint: how long the log is, its Merkle root, and the checkpoint before it, as text to be signed."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Self

from pydantic import Field

from interlock.core.evidence import GENESIS
from interlock.core.model import Frozen

_BODY = re.compile(
    r"(?P<origin>[^\s+]+)\n"
    r"(?P<size>[1-9][0-9]{0,18})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"prev (?P<prev>[0-9a-f]{64})\n"
    r"at (?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)\n"
    r"epoch (?P<epoch>[0-9]{1,9})\n"
    r"home (?P<home>[0-9a-z-]{1,80})\n"
)


class Checkpoint(Frozen):
    """What one signed note of the log says.

    `root` is hexadecimal. `prev` is the SHA-256 of the whole note before this one (`GENESIS` for the first), so that
    the notes are a chain of their own. `home` names the place in a PostgreSQL cluster where transaction numbers were
    comparable; `epoch` counts how often it changed, that is, how often the database was restored from a dump.
    """

    origin: str
    size: int = Field(ge=1)
    root: str
    prev: str
    at: str
    epoch: int = Field(ge=0)
    home: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note (C2SP tlog-checkpoint, with four extension lines of ours).

        Raises:
            ValueError: It is not such a text.
        """
        found = _BODY.fullmatch(text)
        if found is None:
            msg = "the text is not a checkpoint: origin, size, root, prev, at, epoch, home, each on its line"
            raise ValueError(msg)
        return cls(
            origin=found["origin"],
            size=int(found["size"]),
            root=base64.b64decode(found["root"]).hex(),
            prev=found["prev"],
            at=found["at"],
            epoch=int(found["epoch"]),
            home=found["home"],
        )

    def text(self) -> str:
        """What is signed."""
        root = base64.b64encode(bytes.fromhex(self.root)).decode()
        return (
            f"{self.origin}\n{self.size}\n{root}\n"
            f"prev {self.prev}\nat {self.at}\nepoch {self.epoch}\nhome {self.home}\n"
        )


def link_of(note: str | None) -> str:
    """What the checkpoint after `note` carries as `prev`."""
    return GENESIS if note is None else sha256(note.encode()).hexdigest()
