"""Shows tokens, who may come in, and which tools of others may be called."""

from __future__ import annotations

from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.screen import Screen, styled
from interlock.interfaces.messages import say

CODES_SHOWN = 6


def show_tokens(screen: Screen, tokens: list[Record]) -> None:
    """One row each, newest first."""
    if not tokens:
        screen.quiet(say("nothing"))
        return
    columns = (say("id"), say("name"), say("whose"), say("until"), say("last used"), say("what for"))
    words = {"revoked": say("revoked"), "expired": say("expired")}
    rows = []
    for token in tokens:
        ended = words.get(token.text("state"))
        ends = styled("expired", ended) if ended is not None else screen.moment(token.text("expires_at"))
        used = screen.moment(token.text("last_used_at")) if "last_used_at" in token else say("never")
        may = _several(token.texts("scopes")) or say("all that he may")
        rows.append((token.text("id"), token.text("name"), token.text("actor"), ends, used, may))
    screen.rows(columns, rows)


def show_actors(screen: Screen, actors: list[Record]) -> None:
    """One row each: people, services, agents."""
    if not actors:
        screen.quiet(say("interlock.yaml declares nobody: whoever runs Interlock is its operator"))
        return
    columns = (say("who"), say("roles"), say("tokens"), say("what for"))
    rows = []
    for actor in actors:
        may = _several(actor.texts("codes")) if "codes" in actor else say("what policy lets him")
        rows.append((actor.text("id"), ", ".join(actor.texts("roles")), actor.text("tokens"), may or say("nothing")))
    screen.rows(columns, rows)


def show_tools(screen: Screen, servers: list[str], tools: list[Record]) -> None:
    """One row each, and a line for each server of which nothing was accepted."""
    if not servers and not tools:
        screen.quiet(say("no servers; declare them under `mcp_servers` in interlock.yaml"))
        return
    columns = (say("server"), say("tool"), say("arguments"), say("accepted by"), say("accepted"))
    rows = []
    for tool in tools:
        taken = ", ".join(tool.record("description").record("input_schema").record("properties").data)
        when = screen.moment(tool.text("accepted_at"))
        rows.append((tool.text("server"), tool.text("tool"), taken, tool.text("accepted_by"), when))
    if rows:
        screen.rows(columns, rows)
    for server in servers:
        if server not in {tool.text("server") for tool in tools}:
            screen.quiet(say("{server}: no tool was accepted", server=server))


def _several(codes: list[str]) -> str:
    more = f" +{len(codes) - CODES_SHOWN}" if len(codes) > CODES_SHOWN else ""
    return ", ".join(codes[:CODES_SHOWN]) + more
