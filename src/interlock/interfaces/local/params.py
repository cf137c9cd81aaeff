"""What each method of the local socket takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from interlock.core.ask import Ask
from interlock.core.model import Frozen, JsonObject
from interlock.engine.policy.load import FILES_MAX

WAIT_SECONDS_MAX = 24 * 3600.0


class Nothing(Frozen):
    """No parameters."""


class Waiting(Frozen):
    """How long to stay on the line, and whether to hear what the Run prints."""

    wait_seconds: float = Field(default=0.0, ge=0, le=WAIT_SECONDS_MAX)
    stream: bool = False


def _own_words(ask: Ask) -> Ask:
    """What a Run takes back or repeats is for the engine to say, not for its client."""
    if ask.undo_of is not None or ask.retry_of is not None:
        msg = "undo_of and retry_of are not given with an ask: use the methods undo and retry"
        raise ValueError(msg)
    return ask


ClientAsk = Annotated[Ask, AfterValidator(_own_words)]


class SubmitParams(Waiting):
    """An ask."""

    ask: ClientAsk


class ProposeParams(Frozen):
    """An ask to look at."""

    ask: ClientAsk


class DecideParams(Waiting):
    """A yes or no to one Run."""

    run: int
    verdict: bool
    reason: str | None = None
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{6,64}$")


class RunParams(Waiting):
    """One Run."""

    run: int


class CancelParams(Frozen):
    """One Run, and why it should end."""

    run: int
    reason: str | None = Field(default=None, max_length=2000)


class AgainParams(Waiting):
    """Ask again about a Run: retry it, or take it back."""

    run: int
    key: str | None = Field(default=None, min_length=1, max_length=200)
    reason: str | None = Field(default=None, max_length=2000)
    confirmed: bool = False
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{6,64}$")

    def ask(self) -> Ask:
        """The ask, whose action and arguments the engine fills in."""
        return Ask(action="-", key=self.key, reason=self.reason, confirmed=self.confirmed, digest=self.digest)


class ResolveParams(Waiting):
    """What a person decided about an unresolved Run."""

    run: int
    resolution: Literal["repeat", "skip", "undo"]
    reason: str | None = Field(default=None, max_length=2000)


class OutputParams(Frozen):
    """The output of a Run, perhaps only its end, perhaps until the Run ends."""

    run: int
    follow: bool = False
    tail_bytes: int | None = Field(default=None, ge=1, le=16 * 1024 * 1024)


class RangeParams(Frozen):
    """Bytes of a Run's output: from `start` to `end` (with it), or the last so many."""

    run: int
    start: int = Field(default=0, ge=0)
    end: int | None = Field(default=None, ge=0)
    last: int | None = Field(default=None, ge=0)


class ViewParams(Frozen):
    """A view by name."""

    name: str
    args: JsonObject = {}


class HoldParams(Frozen):
    """A person's own work on a target."""

    target: str
    command: tuple[str, ...]
    reason: str | None = Field(default=None, max_length=2000)
    confirmed: bool = False
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{6,64}$")
    minutes: int = Field(default=24 * 60, ge=1, le=24 * 60)


class ExplainParams(Frozen):
    """A recorded Run, or an ask."""

    run: int | None = None
    ask: ClientAsk | None = None


class ReplayParams(Frozen):
    """A time and, where it is not what lies on disk, the policies: `(name, text)` of each file."""

    since: str = Field(default="30d", max_length=40)
    until: str | None = Field(default=None, max_length=40)
    policies: tuple[tuple[str, str], ...] | None = Field(default=None, max_length=FILES_MAX)


class SinceParams(Frozen):
    """An earlier checkpoint or receipt, as text."""

    since: str | None = Field(default=None, max_length=1024 * 1024)
    run: int | None = None
