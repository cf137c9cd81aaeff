"""Names a secret without holding it: what interlock.yaml says instead of a password."""

from __future__ import annotations

import re
from typing import Annotated, Protocol

from pydantic import AfterValidator

from interlock.core.outside import OutsideKey

SECRET_BYTES_MAX = 16 * 1024

_FILE = re.compile(r"file:/[^\0\n]{1,4000}")
_CREDENTIAL = re.compile(r"credential:[a-z0-9][a-z0-9_.-]{0,63}")


def _reference(value: str) -> str:
    if not _FILE.fullmatch(value) and not _CREDENTIAL.fullmatch(value):
        # The value itself is not repeated: somebody may have written the secret where its name belongs.
        msg = "write file:/absolute/path or credential:NAME; a secret itself never stands in interlock.yaml"
        raise ValueError(msg)
    return value


SecretReference = Annotated[str, AfterValidator(_reference)]
"""`file:/absolute/path`, or `credential:NAME` for a file in the folder `credentials` of the state folder.

The file has mode 0600 (or stricter) and belongs to root or to Interlock's own account.
"""


class Secrets(Protocol):
    """Resolves references at the moment of an effect; nothing is remembered."""

    def read(self, reference: str) -> str:
        """The secret, without the end of its line.

        Raises: NotFound (no such file), Denied (others may read it), Invalid (it is empty, too long, or not text).
        """
        ...


SECRETS: OutsideKey[Secrets] = OutsideKey("secrets")
