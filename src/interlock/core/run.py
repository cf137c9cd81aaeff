"""The one record of an ask from beginning to end, and the states it may pass through."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from interlock.core.actor import Actor
from interlock.core.decision import Decision
from interlock.core.errors import Conflict
from interlock.core.model import Frozen
from interlock.core.plan import Plan


class RunState(StrEnum):
    """Where a Run stands.

    `unresolved` means that an effect may have happened and nobody knows: it keeps its targets until a person says
    repeat, skip or undo.
    """

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    UNRESOLVED = "unresolved"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDONE = "undone"
    DENIED = "denied"
    STALE = "stale"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can change it any more (an `undo` of a succeeded Run is a Run of its own)."""
        return not TRANSITIONS[self]

    @property
    def is_open(self) -> bool:
        """Whether it still holds, or may come to hold, its targets."""
        return not self.is_final


_S = RunState
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _S.WAITING: frozenset({_S.QUEUED, _S.RUNNING, _S.DENIED, _S.STALE, _S.EXPIRED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.WAITING, _S.DENIED, _S.STALE, _S.EXPIRED, _S.CANCELLED}),
    _S.RUNNING: frozenset(
        {_S.QUEUED, _S.WAITING, _S.SUCCEEDED, _S.FAILED, _S.UNDONE, _S.UNRESOLVED, _S.DENIED, _S.STALE, _S.CANCELLED}
    ),
    _S.UNRESOLVED: frozenset({_S.QUEUED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.UNDONE: frozenset(),
    _S.DENIED: frozenset(),
    _S.STALE: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.CANCELLED: frozenset(),
}
OPEN_STATES = frozenset(state for state in RunState if state.is_open)
FINAL_STATES = frozenset(RunState) - OPEN_STATES


def require_transition(old: RunState, new: RunState) -> None:
    """Refuse a change of state that the machine does not have.

    Raises:
        Conflict: `old` cannot become `new`.
    """
    if new not in TRANSITIONS[old]:
        msg = f"a Run that is {old} cannot become {new}"
        raise Conflict(msg, code="run.transition", details={"from": old, "to": new})


class Run(Frozen):
    """An ask and all that became of it; people call it by `number`.

    `state_reason` says in one sentence why it is where it is, `state_code` the same in a word for programs. `owner`,
    `fence` and `lease_until` belong to the worker
    that runs it: the fence rises with each claim, and every write names it.
    """

    number: int
    state: RunState
    state_reason: str | None
    state_code: str | None
    actor: Actor
    action: str
    plan: Plan
    digest: str
    decision: Decision
    key: str | None
    reason: str | None
    created_at: datetime
    due_at: datetime
    expires_at: datetime | None
    closed_at: datetime | None
    cancelled_by: str | None
    undo_of: int | None
    retry_of: int | None
    owner: str | None
    fence: int
    lease_until: datetime | None
    timeout_seconds: float
    traceparent: str | None = None
    """Where its ask stands in a trace (W3C Trace Context); None for what was asked before there were any."""
