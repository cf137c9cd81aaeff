"""One agent's line to the resident process: who he is is settled once, and how much he asks at once is bounded."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, cast

from interlock.core.errors import Denied, Transient
from interlock.core.model import JsonObject
from interlock.interfaces.local.protocol import JsonMapping

CALLS_PER_AGENT_MAX = 8
CALLS_MAX = 48
"""Of all agents together; fewer than the connections of one pool."""

ANSWER_SECONDS_MAX = 60.0
KNOWN_MAX = 1000


class Client(Protocol):
    """What asks the resident process (`interfaces.local.async_client.AsyncClient`)."""

    async def call(
        self,
        method: str,
        params: JsonMapping | None = None,
        *,
        token: str | None = None,
        acting_as: str | None = None,
        on_progress: Callable[[JsonMapping], Awaitable[None]] | None = None,
        timeout_seconds: float | None = ...,
    ) -> JsonMapping:
        """Ask and return the result; raises what it is answered with."""
        ...


ClientFactory = Callable[[], Client]
"""Returns the pool of this process; called on the loop that serves."""


class Places:
    """How many calls are under way, of one agent and of all; further ones are turned away at once."""

    def __init__(self, per_agent_max: int = CALLS_PER_AGENT_MAX, calls_max: int = CALLS_MAX) -> None:
        self._per_agent_max = per_agent_max
        self._calls_max = calls_max
        self._taken: Counter[str] = Counter()

    @asynccontextmanager
    async def taken(self, agent: str) -> AsyncIterator[None]:
        """A place for one call. Raises Transient when there is none."""
        if self._taken[agent] >= self._per_agent_max or self._taken.total() >= self._calls_max:
            msg = f"{self._taken[agent]} calls of yours are under way, which is all that are served at once"
            raise Transient(msg, code="mcp.busy", fix="wait for an answer, then call again", effect_sent=False)
        self._taken[agent] += 1
        try:
            yield
        finally:
            self._taken[agent] -= 1
            if not self._taken[agent]:
                del self._taken[agent]


class KnownAgents:
    """Which tokens were seen to be an agent's. What a token is never changes; whether it still counts is looked up by
    the resident process with every request."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, mark: str) -> bool:
        return mark in self._known

    def add(self, mark: str) -> None:
        """Remember; the oldest is forgotten first."""
        self._known[mark] = None
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


class Session:
    """What one agent may call.

    Args:
        client: The pool of connections.
        token: A bearer's token; None where the account of this process asks.
        acting_as: The agent that this account acts as.
        known: Tokens that were seen to be agents'.
        places: The bounds that all sessions of this process share.
    """

    def __init__(
        self, client: Client, *, token: str | None, acting_as: str | None, known: KnownAgents, places: Places
    ) -> None:
        self._client = client
        self._token = token
        self._acting_as = acting_as
        self._known = known
        self._places = places
        self.mark = hashlib.sha256(f"{token or ''}\n{acting_as or ''}".encode()).hexdigest()
        # A person's token may act under any number of names; they share what is his.
        self._bearer = hashlib.sha256((token or acting_as or "").encode()).hexdigest()

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place for one call of an agent. Raises Denied for whoever is none, Transient when too much is asked."""
        async with self._places.taken(self._bearer), asyncio.timeout(ANSWER_SECONDS_MAX):
            await self._require_agent()
            yield

    async def call(
        self,
        method: str,
        params: JsonMapping | None = None,
        on_progress: Callable[[JsonMapping], Awaitable[None]] | None = None,
    ) -> JsonObject:
        """Ask the resident process. Raises what it answers with."""
        found = await self._client.call(
            method,
            params,
            token=self._token,
            acting_as=self._acting_as,
            on_progress=on_progress,
            timeout_seconds=ANSWER_SECONDS_MAX,
        )
        return cast("JsonObject", found)

    async def view(self, name: str, args: JsonObject) -> JsonObject:
        """Read a view. Raises Invalid, NotFound, Denied."""
        data = (await self.call("view", {"name": name, "args": args}))["data"]
        return data if isinstance(data, dict) else {}

    async def _require_agent(self) -> None:
        """Raises Denied: whoever speaks through a model is an agent, with an agent's rights."""
        if self.mark in self._known:
            return
        actor = (await self.call("hello"))["actor"]
        kind = actor.get("kind") if isinstance(actor, dict) else None
        if kind != "agent":
            msg = f"only an agent is served here, and this is a {kind}: a model must not have a person's rights"
            fix = "interlock mcp --as NAME; over HTTP use the token of an agent: interlock tokens create"
            raise Denied(msg, code="mcp.not_agent", fix=fix)
        self._known.add(self.mark)
