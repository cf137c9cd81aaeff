"""Who the bearer of a token is: looked up, compared in constant time, and still declared at this moment."""

from __future__ import annotations

import hmac
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from interlock.core.actor import Actor
from interlock.core.errors import Denied, Transient
from interlock.core.project import Project
from interlock.core.token import Token, WrittenToken, read_token
from interlock.engine.actors import declared_actor
from interlock.engine.token_store import TokenStore
from interlock.lib.clock import Clock

FRESH_SECONDS = 1.0
"""How long a row is believed without looking again: what another process revoked is refused after that at the latest.
In this process it is refused at once."""

KEPT_MAX = 1000
FAILURES_MAX = 20
FAILURE_SECONDS = 60.0
"""After so many failures of one peer in so long, only tokens that were good before are looked up for it."""

FAILURES_OF_OWN_ACCOUNT_MAX = 2000
"""Of our HTTP front, who speaks for all that reach it and holds up each address by itself: a few who guess must not
keep others from being let in for the first time."""

PEERS_MAX = 1000
NOBODY = "0" * 64
"""Compared with where there is no such token, so that it takes as long."""

_NOTHING = WrittenToken("", "")


@dataclass(slots=True)
class _Kept:
    token: Token
    read_at: float


class Failures:
    """Counts what each peer failed with; it forgets the peers that it has not heard of for longest."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, peer: str) -> None:
        """One more."""
        times = self._of.setdefault(peer, deque(maxlen=FAILURES_OF_OWN_ACCOUNT_MAX))
        self._of.move_to_end(peer)
        times.append(self._monotonic())
        if len(self._of) > PEERS_MAX:
            self._of.popitem(last=False)

    def too_many(self, peer: str, most: int = FAILURES_MAX) -> bool:
        """Whether the peer has failed `most` times within `FAILURE_SECONDS`."""
        times = self._of.get(peer)
        return times is not None and len(times) >= most and self._monotonic() - times[-most] < FAILURE_SECONDS


class TokenDesk:
    """Turns what was presented into an Actor.

    Args:
        store: The rows.
        project: What interlock.yaml declares at this moment.
        clock: The time by which tokens expire.
    """

    def __init__(self, store: TokenStore, project: Callable[[], Project], clock: Clock) -> None:
        self._store = store
        self._project = project
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._forgotten = 0
        self._failures = Failures(clock.monotonic)

    async def actor_of(self, text: str, peer: str = "", failures_max: int = FAILURES_MAX) -> Actor:
        """The bearer's actor, with `via` and `scopes`. `peer` is whom failures are counted for, at most `failures_max`.

        Raises:
            Denied: `token.refused`, with one and the same message, when it is malformed, unknown, wrong, expired or
                revoked; `actor.undeclared` when interlock.yaml no longer declares its actor.
            Transient: This peer failed too often, or the database does not answer.
        """
        written = read_token(text)
        token = await self._look(written.id, peer, failures_max) if written is not None else None
        now = self._clock.now()
        same = hmac.compare_digest((written or _NOTHING).sha256, token.sha256 if token is not None else NOBODY)
        if token is None or not same or not token.is_good_at(now):
            self._failures.add(peer)
            msg = "the token is not valid"
            raise Denied(msg, code="token.refused", fix="ask whoever gave it to you for a new one")
        actor = declared_actor(self._project(), token)
        await self._note_use(token, now)
        return actor

    def forget(self, identity: str) -> None:
        """Believe nothing of this token any longer; called by what revokes it."""
        self._forgotten += 1
        self._kept.pop(identity, None)

    async def _look(self, identity: str, peer: str, failures_max: int) -> Token | None:
        kept = self._kept.get(identity)
        if kept is not None and self._clock.monotonic() - kept.read_at < FRESH_SECONDS:
            return kept.token
        if kept is None and self._failures.too_many(peer, failures_max):
            msg = f"{failures_max} tokens were refused within {FAILURE_SECONDS:.0f} s"
            raise Transient(msg, code="token.too_many_failures", fix="wait a minute", effect_sent=False)
        forgotten, read_at = self._forgotten, self._clock.monotonic()
        token = await self._store.by_id(identity)
        if token is None or forgotten != self._forgotten:
            # What was revoked while it was read may have been read as it was before.
            self._kept.pop(identity, None)
            return token if token is None else await self._store.by_id(identity)
        self._kept[identity] = _Kept(token, read_at)
        self._kept.move_to_end(identity)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return token

    async def _note_use(self, token: Token, now: datetime) -> None:
        """Once an hour: more would be a write for each request."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        if token.last_used_at is not None and token.last_used_at >= hour:
            return
        kept = self._kept.get(token.id)
        if kept is not None:
            kept.token = token.model_copy(update={"last_used_at": hour})
        await self._store.used(token.id, hour)
