"""Which tools of outside MCP servers may be called, and what was accepted of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from interlock.core.actor import Actor
from interlock.core.model import Frozen, JsonObject
from interlock.core.project import Project
from interlock.core.view import View
from interlock.tools.store import ToolStore


class NoArguments(Frozen):
    """None."""


class OutsideTools(View):
    """The declared servers and their accepted tools."""

    name: ClassVar[str] = "outside_tools"
    summary: ClassVar[str] = "The tools of outside MCP servers that were accepted, with their schemas."
    Args: ClassVar[type[Frozen]] = NoArguments

    def __init__(self, store: ToolStore, project: Callable[[], Project]) -> None:
        self._store = store
        self._project = project

    async def read(self, actor: Actor, args: NoArguments) -> JsonObject:  # noqa: ARG002
        """Servers by name, then tools; where a server lies and with what it is reached is not told."""
        return {"servers": [*sorted(self._project().mcp_servers)], "tools": [*await self._store.listed()]}
