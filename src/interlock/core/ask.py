"""What somebody asks for, before anything is planned."""

from __future__ import annotations

from pydantic import Field

from interlock.core.errors import Invalid
from interlock.core.model import Frozen, JsonObject
from interlock.lib.canonical import canonical_bytes, digest_of

ARGS_BYTES_MAX = 2 * 1024 * 1024


class Ask(Frozen):
    """One ask. `key` makes it idempotent for its actor; `reason` is for those who read the log later.

    `confirmed` says that the asker wants it done rather than shown. `digest` binds it to the plan he was shown.
    """

    action: str = Field(min_length=1, max_length=100)
    args: JsonObject = {}
    key: str | None = Field(default=None, min_length=1, max_length=200)
    reason: str | None = Field(default=None, max_length=2000)
    timeout_seconds: float | None = Field(default=None, gt=0, le=24 * 3600)
    confirmed: bool = False
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{6,64}$")
    retry_of: int | None = None
    undo_of: int | None = None

    @property
    def ask_digest(self) -> str:
        """What makes two asks the same ask: the action and its arguments."""
        return digest_of({"action": self.action, "args": self.args})


def require_size(args: JsonObject) -> None:
    """Refuse arguments that are too large to keep.

    Raises:
        Invalid: Over `ARGS_BYTES_MAX` in canonical form, or not JSON at all.
    """
    try:
        size = len(canonical_bytes(args))
    except (ValueError, RecursionError) as error:
        msg = f"the arguments are not plain JSON: {error}"
        raise Invalid(msg, code="args.json") from error
    if size > ARGS_BYTES_MAX:
        msg = f"the arguments are {size:,} bytes; at most {ARGS_BYTES_MAX:,} are accepted"
        raise Invalid(msg, code="args.size", fix="put large content into a file and name the file")
