"""One request at the local socket, and the way back to whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from interlock.core.actor import Actor
from interlock.core.model import JsonObject
from interlock.interfaces.local.protocol import JsonMapping, PeerCredentials, encode_frame


@dataclass
class Call:
    """One request and the way back to whoever made it.

    `identify` says who stands behind a further frame on the same connection, by its `as` and `token`.
    """

    actor: Actor
    peer: PeerCredentials
    params: JsonObject
    identifier: object
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    identify: Callable[[JsonMapping], Awaitable[Actor]]

    async def progress(self, **fields: object) -> None:
        """Tell something before the end."""
        self.writer.write(encode_frame({"id": self.identifier, "progress": fields}))
        await self.writer.drain()
