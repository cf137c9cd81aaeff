"""What a route needs of a request: who asks, and the resident process to ask on his behalf."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Request

from interlock.core.errors import InterlockError, Invalid, Transient
from interlock.core.model import JsonObject
from interlock.interfaces.http.problems import at
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.local.protocol import JsonMapping
from interlock.interfaces.local.watching import Watcher

READERS_PER_BEARER_MAX = 8
"""Long answers that one bearer reads at once: there are only so many connections for them."""


@dataclass(frozen=True)
class Resident:
    """The ways from this process to the resident one.

    Long answers have connections of their own, so that who reads slowly is in nobody's way but that of other such
    readers; `readers` counts them by token. `probe` alone asks without a bearer, and only for `health`.
    """

    client: AsyncClient
    long: AsyncClient
    watcher: Watcher
    probe: AsyncClient
    readers: Counter[str] = field(default_factory=Counter, repr=False)

    @contextmanager
    def reading(self, token: str) -> Iterator[None]:
        """A place for one long answer. Raises Transient when this bearer has all that are his."""
        if self.readers[token] >= READERS_PER_BEARER_MAX:
            msg = f"{self.readers[token]} long answers are being read with this token, which is all that are served"
            raise Transient(msg, code="api.streams", fix="read one to its end, or hang up", effect_sent=False)
        self.readers[token] += 1
        try:
            yield
        finally:
            self.readers[token] -= 1
            if not self.readers[token]:
                del self.readers[token]


@dataclass(frozen=True)
class Asking:
    """Who asks, and by whom it is answered. There is no asking without a token: this process itself asks nothing."""

    token: str
    acting_as: str | None
    resident: Resident
    path: str

    async def call(self, method: str, params: JsonMapping | None = None) -> JsonMapping:
        """Ask the resident process. Raises what it answers with."""
        try:
            return await self.resident.client.call(method, params, token=self.token, acting_as=self.acting_as)
        except Invalid as error:
            raise _placed(error, method) from error

    async def view(self, name: str, args: JsonMapping | None = None) -> JsonObject:
        """Read a view."""
        data: JsonObject = (await self.call("view", {"name": name, "args": args or {}}))["data"]  # type: ignore[assignment]
        return data

    async def texts(self, method: str, params: JsonMapping, name: str) -> AsyncGenerator[str, None]:
        """A member of every progress frame of a long answer, as they come."""
        frames = self.resident.long.stream(method, params, token=self.token, acting_as=self.acting_as)
        with self.resident.reading(self.token):
            async with aclosing(frames) as heard:
                async for frame in heard:
                    if not frame.last and name in frame.data:
                        yield str(frame.data[name])

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time()

    async def look(
        self, run: int, *, after: int = 0, state: str | None = None, output: bool = True, wait_seconds: float = 0.0
    ) -> JsonMapping:
        """Look at a Run: see `Watcher.look`."""
        return await self.resident.watcher.look(
            run,
            after=after,
            state=state,
            output=output,
            token=self.token,
            acting_as=self.acting_as,
            wait_seconds=wait_seconds,
        )


def _placed(error: Invalid, method: str) -> InterlockError:
    """The error, with the first place of the request that the resident process complained about."""
    problems = error.details.get("problems")
    if not isinstance(problems, list) or not problems:
        return error
    name = str(problems[0]).partition(":")[0]
    part = {"view": "query.", "submit": "body.args.", "propose": "body.args."}.get(method, "body.")
    return at(error, f"body.{name.removeprefix('ask.')}" if name.startswith("ask.") else part + name)


def asking_of(
    request: Request,
    acting_as: Annotated[
        str | None,
        Header(
            alias="Interlock-As",
            max_length=64,
            description="Act as this agent of yours, which may do less than you.",
            examples=["claude"],
        ),
    ] = None,
) -> Asking:
    """The dependency of every route."""
    token = request.scope["interlock.token"]
    return Asking(str(token), acting_as, request.app.state.resident, request.url.path)


Asker = Annotated[Asking, Depends(asking_of)]
