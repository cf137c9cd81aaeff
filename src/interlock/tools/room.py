"""What outside tools add to the resident process: one view, and the arrangements behind `mcp.accept`."""

from __future__ import annotations

from interlock.core.errors import Stale
from interlock.core.mcp_server import AcceptedTool
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.rooms import Room, RoomParts
from interlock.tools.store import ToolStore, described
from interlock.tools.views import OutsideTools


def open_room(parts: RoomParts) -> Room:
    """Made from the database alone."""
    store = ToolStore(parts.database)

    async def accept(run: Run, payload: JsonObject) -> JsonObject:
        accepted = AcceptedTool.model_validate(payload)
        await store.accept(run.number, run.actor.id, accepted)
        return {"digest": accepted.digest}

    async def take_back(run: Run, payload: JsonObject) -> JsonObject:
        server, tool, digest = (str(payload[name]) for name in ("server", "tool", "digest"))
        earlier, now = described(payload, server, tool), await store.find(server, tool)
        if now is not None and now.digest not in {digest, earlier.digest if earlier is not None else digest}:
            msg = f"{tool} of {server} was accepted anew since, as {now.digest[:12]}"
            raise Stale(msg, code="mcp.accepted_since", fix="look at it: interlock tools")
        if earlier is None:
            return {"count": await store.forget(server, tool, digest)}
        await store.accept(run.number, run.actor.id, earlier)
        return {"digest": earlier.digest}

    return Room(
        views=(OutsideTools(store, parts.project),), arrangements={"mcp.accept": accept, "mcp.take_back": take_back}
    )
