"""Every view that the asker may read as a tool of its own, made from the catalogue of views."""

from __future__ import annotations

import re

from interlock.core.errors import NotFound
from interlock.core.model import JsonObject
from interlock.interfaces.mcp.guidance import FROM_THE_WORLD
from interlock.interfaces.mcp.results import answer_schema
from interlock.interfaces.mcp.session import Session

PREFIX = "view_"
VIEW_OUTPUT: JsonObject = answer_schema(data={"type": "object"})


def tool_name_of(view: str) -> str:
    """`view_audit_findings` for the view `audit.findings`: some clients accept letters, digits and _ only."""
    return PREFIX + re.sub(r"[^A-Za-z0-9]", "_", view)


async def readable_views(session: Session) -> dict[str, JsonObject]:
    """Tool name -> the view, as the resident process describes it to this agent."""
    found = (await session.view("views", {}))["views"]
    listed = found if isinstance(found, list) else []
    return {tool_name_of(str(view["name"])): view for view in listed if isinstance(view, dict)}


async def read_view(session: Session, name: str, args: JsonObject) -> JsonObject | None:
    """The answer of the view behind a tool name; None where there is no such view. Raises Denied, Invalid, NotFound.

    The resident process validates the arguments, and asks policy again.
    """
    # Most names are the view's own; only where characters were exchanged is the catalogue asked.
    plain = name.removeprefix(PREFIX)
    view = plain if "_" not in plain else None
    if view is None:
        described = (await readable_views(session)).get(name)
        if described is None:
            return None
        view = str(described["name"])
    try:
        return {"data": await session.view(view, args), "note": FROM_THE_WORLD}
    except NotFound as error:
        if error.code == "view.unknown":
            return None
        raise
