"""The growing evidence of one Run in one worker's hands: rows are gathered, and written under the fence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from interlock.core.approval import REASON_CHARACTERS_MAX
from interlock.core.errors import Invalid, Transient
from interlock.core.event import Event
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.run import Run, RunState
from interlock.engine.store import Left, RunStore
from interlock.lib.clock import Clock
from interlock.lib.redact import Redactor

TEXT_CHARACTERS = 500
_SECRETS = Redactor()
Written = TypeVar("Written")


class RecordLost(Exception):
    """Nobody knows whether the last write arrived: whoever gets this must write nothing more and let the lease end."""


class Trail:
    """Each row names the one before it, so that after a write which may or may not have arrived no other may follow.

    Every method raises LeaseLost when another worker took the Run, and RecordLost when the database went away, from
    then on always.
    """

    def __init__(self, store: RunStore, run: Run, rows: tuple[Evidence, ...], clock: Clock) -> None:
        self._store = store
        self._run = run
        self._chain = Chain.after(run.number, rows)
        self._clock = clock
        self._pending: list[Evidence] = []
        self._lost = False

    def add(self, kind: EvidenceKind, data: JsonObject) -> None:
        """Gather a row; it is written with the next `flush` or `leave`."""
        self._pending.append(self._chain.extend(kind, self._clock.now(), data))

    async def flush(self, *events: Event, use_approvals: bool = False) -> None:
        """Write what was gathered."""
        rows = self._take()
        if rows or events:
            await self._write(partial(self._store.append, self._run, rows, events, use_approvals=use_approvals))

    async def leave(self, state: RunState, reason: str | None, code: str | None, event: Event) -> Left:
        """Write what was gathered, and end this worker's hold on the Run."""
        rows = self._take()
        return await self._write(partial(self._store.leave, self._run, state, reason, code, rows, (event,)))

    def _take(self) -> tuple[Evidence, ...]:
        rows, self._pending = tuple(self._pending), []
        return rows

    async def _write(self, write: Callable[[], Awaitable[Written]]) -> Written:
        if self._lost:
            msg = "an earlier write of this Run was lost"
            raise RecordLost(msg)
        self._lost = True
        try:
            written = await write()
        except Transient as error:
            raise RecordLost(error.message) from error
        self._lost = False
        return written


def require_reason(reason: str | None) -> None:
    """Refuse a reason that evidence could not keep word for word.

    Raises:
        Invalid: It is too long, or holds NUL or half of a surrogate pair.
    """
    if reason is None:
        return
    if len(reason) > REASON_CHARACTERS_MAX:
        msg = f"a reason has at most {REASON_CHARACTERS_MAX} characters"
        raise Invalid(msg, code="reason.long")
    found = _SECRETS.find(reason)
    if found is not None:
        msg = f"the reason seems to hold a secret ({found}); nothing was recorded"
        raise Invalid(msg, code="reason.secret", fix="say it without the secret")
    if plain(reason, REASON_CHARACTERS_MAX) != reason:
        msg = "a reason holds characters that no record can keep"
        raise Invalid(msg, code="reason.characters")


def plain(text: str, characters_max: int = TEXT_CHARACTERS) -> str:
    """Text as evidence and tables can keep it: bounded, without NUL and halves of surrogate pairs."""
    return text[:characters_max].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
