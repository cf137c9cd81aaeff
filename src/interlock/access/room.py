"""What tokens add to the resident process: two views, and the arrangements behind `token.create` and `token.revoke`."""

from __future__ import annotations

from datetime import timedelta

from interlock.access.actions import token_of
from interlock.access.views import AccessDesk, ActorsView, TokensView
from interlock.core.errors import Conflict, NotFound
from interlock.core.model import JsonObject
from interlock.core.run import Run
from interlock.engine.actors import declared_actor
from interlock.engine.rooms import Room, RoomParts
from interlock.engine.token_store import TokenStore


def open_room(parts: RoomParts) -> Room:
    """Everything about tokens but the look-up of one that is presented; no I/O yet."""
    store = TokenStore(parts.database)

    async def create(run: Run, payload: JsonObject) -> JsonObject:
        """Raises Denied (its actor is no longer declared), Conflict (the id is taken)."""
        now, days = parts.clock.now(), payload["days"]
        token = token_of(payload, run.actor.id, now, now + timedelta(days=days if isinstance(days, int) else 0))
        declared_actor(parts.project(), token)
        if not await store.add(token, run.number):
            msg = f"there is a token with the id {token.id} already"
            raise Conflict(msg, code="token.taken", fix="ask again with another id and another secret")
        return {"id": token.id, "expires_at": token.expires_at.isoformat()}

    async def revoke(run: Run, payload: JsonObject) -> JsonObject:
        """Raises NotFound."""
        identity = str(payload["id"])
        if await store.by_id(identity) is None:
            msg = f"there is no token with the id {identity}"
            raise NotFound(msg, code="token.unknown", fix="interlock tokens list --all")
        count = await store.revoke(identity, run.actor.id)
        parts.tokens.forget(identity)
        return {"id": identity, "count": count}

    desk = AccessDesk(store, parts.project, parts.clock)
    return Room(
        views=(TokensView(desk), ActorsView(desk)), arrangements={"token.create": create, "token.revoke": revoke}
    )
