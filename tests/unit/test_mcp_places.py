"""How much one bearer may have under way over MCP, whatever names he asks under."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from interlock.core.errors import Transient
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.mcp.session import CALLS_PER_AGENT_MAX, KnownAgents, Places, Session


async def test_one_token_has_its_calls_under_way_whatever_names_it_acts_under() -> None:
    places, known = Places(), KnownAgents()
    client = AsyncClient(Path("/nowhere"), trusted_uids=frozenset())

    def session(token: str, name: str) -> Session:
        made = Session(client, token=token, acting_as=name, known=known, places=places)
        known.add(made.mark)
        return made

    async with AsyncExitStack() as stack:
        for number in range(CALLS_PER_AGENT_MAX):
            await stack.enter_async_context(session("one", f"agent-{number}").admitted())
        with pytest.raises(Transient) as caught:
            await stack.enter_async_context(session("one", "one-more").admitted())
        assert caught.value.code == "mcp.busy"
        await stack.enter_async_context(session("two", "agent-0").admitted())
