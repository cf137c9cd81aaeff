"""The verbs by which AI agents are connected: mcp."""

from __future__ import annotations

import typer

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.messages import say

app = typer.Typer()


@verb(
    app,
    "mcp",
    summary=say("Serve the door to one AI agent over standard input and output (MCP)."),
    more=say("Started by the agent's own program, not by hand; `interlock connect` writes its configuration."),
    examples=("interlock mcp --as claude", "interlock mcp --as codex --project /srv/shop"),
)
def serve_mcp(caller: Caller) -> Answer:
    """Until standard input ends; standard output belongs to the protocol."""
    import asyncio

    from interlock.interfaces.mcp.stdio import serve_stdio

    locations, acting_as = caller.locations(), caller.acting_as
    caller.resident.connection.call("hello", acting_as=acting_as)
    caller.close()
    asyncio.run(serve_stdio(locations.door_socket, locations.trusted_uids(), acting_as))
    return Answer()
