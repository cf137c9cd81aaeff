"""One session with an MCP server of others: opened once, used by many calls of one credential, closed when idle."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from typing import Any

import structlog
from mcp.types import CallToolResult, Tool

from interlock.adapters.mcp_transport import address_transport, program_transport
from interlock.core.errors import NotFound, Permanent, Transient
from interlock.core.mcp_server import (
    ANSWER_BYTES_MAX,
    DESCRIPTION_BYTES_MAX,
    McpServer,
    ToolAnswer,
    ToolDescription,
)
from interlock.lib.redact import BLOT
from mcp import Client

log = structlog.get_logger()

IDLE_SECONDS = 120.0
TOOLS_MAX = 2000
TOOLS_SHOWN = 20
PAGES_MAX = 50


class ServerSession:
    """An open session; everything of it happens on one event loop."""

    def __init__(self, name: str, declared: McpServer, secret: str | None) -> None:
        self.name = name
        self.declared = declared
        self.places = asyncio.Semaphore(declared.calls_at_once_max)
        self._secret = secret
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._last_used = time.monotonic()
        self._calls = 0
        self._task = asyncio.create_task(self._live())

    @property
    def ended(self) -> bool:
        """Whether it cannot be used any more."""
        return self._task.done() or self._closing.is_set()

    async def client(self) -> Client:
        """When it is ready. Raises Transient when it does not come to be."""
        self._last_used = time.monotonic()
        try:
            async with asyncio.timeout(self.declared.connect_timeout_seconds):
                return await asyncio.shield(self._client)
        except TimeoutError as error:
            self.close()
            msg = f"the MCP server {self.name} is not ready within {self.declared.connect_timeout_seconds:g} s"
            raise _unreachable(msg) from error

    def close(self) -> None:
        """Let go of it."""
        if not self._closing.is_set():
            self._closing.set()
            self._task.cancel()

    async def describe(self, tool: str) -> ToolDescription:
        """The tool as it is described now. Raises NotFound, Permanent (garbage), Transient."""
        client = await self.client()
        try:
            async with asyncio.timeout(self.declared.connect_timeout_seconds):
                tools = await _tools(client)
        except Exception as error:
            self.close()
            log.info("mcp.listing_failed", server=self.name, error=type(error).__name__)
            msg = f"the MCP server {self.name} does not say which tools it has"
            raise _unreachable(msg) from error
        found = [each for each in tools if each.name == tool]
        if not found:
            msg = f"the MCP server {self.name} has no tool {tool}"
            plain = sorted(each.name for each in tools if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", each.name))
            fix = f"it has {', '.join(plain[:TOOLS_SHOWN])}" if plain else "look at its own documentation"
            raise NotFound(msg, code="mcp.tool_unknown", fix=fix)
        if len(found) > 1:
            msg = f"the MCP server {self.name} has two tools called {tool}"
            raise Permanent(msg, code="mcp.garbage", fix="ask whoever makes that server")
        return _description(found[0], self.name, self._secret)

    async def call(self, tool: str, args: dict[str, Any]) -> CallToolResult:
        """Send one call. Raises whatever the SDK raises."""
        client = await self.client()
        self._calls += 1
        try:
            return await client.call_tool(tool, args)
        finally:
            self._calls -= 1
            self._last_used = time.monotonic()

    async def _live(self) -> None:
        """Open, stay until it is idle or done, close; all in one task, as the SDK wants it."""
        make = program_transport if self.declared.command else address_transport
        try:
            async with Client(make(self.declared, self._secret), cache=None) as client:
                self._client.set_result(client)
                while self._calls or time.monotonic() - self._last_used < IDLE_SECONDS:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(IDLE_SECONDS / 4):
                            await self._closing.wait()
                            return
        except asyncio.CancelledError:
            log.debug("mcp.session_closed", server=self.name)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the session is told; here nobody would be
            log.info("mcp.session_ended", server=self.name, error=type(error).__name__)
        finally:
            self._closing.set()
            if not self._client.done():
                self._client.set_exception(_unreachable(f"the MCP server {self.name} cannot be reached, or started"))
            if not self._client.cancelled():
                self._client.exception()  # nobody need have asked


def _unreachable(msg: str) -> Transient:
    fix = "see whether it runs, and what interlock.yaml says under `mcp_servers`"
    return Transient(msg, code="mcp.unreachable", fix=fix, effect_sent=False)


async def _tools(client: Client) -> list[Tool]:
    """All pages, up to a bound."""
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(PAGES_MAX):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None or len(found) > TOOLS_MAX:
            return found
    return found


def _description(tool: Tool, server: str, secret: str | None) -> ToolDescription:
    try:
        said = tool.annotations.model_dump(mode="json", by_alias=True, exclude_none=True) if tool.annotations else {}
        described = ToolDescription(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=said,
        )
        text = described.model_dump_json()
        if _blotted(text, secret) != text:
            why = "holds the credential that it is reached with"
        elif len(text.encode()) <= DESCRIPTION_BYTES_MAX and described.digest:
            return described
        else:
            why = f"is over {DESCRIPTION_BYTES_MAX:,} bytes"
    except (ValueError, RecursionError):
        why = "is not plain JSON"
    msg = f"what the MCP server {server} says of its tool {tool.name[:100]} {why}"
    raise Permanent(msg, code="mcp.garbage", fix="ask whoever makes that server")


def answer_of(result: CallToolResult, secret: str | None) -> ToolAnswer:
    """What the tool said as text: its text, or else its structured answer; of anything else what it is.

    Our credential is blotted out of it: whoever asks for a call holds none, and is not handed one by the server.
    """
    parts: list[str] = []
    for block in result.content:
        text = getattr(block, "text", None)
        parts.append(text if isinstance(text, str) else f"[{block.type}]")
    if result.structured_content is not None and not any(part.strip() for part in parts):
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    raw = _blotted("\n".join(parts), secret).encode("utf-8", "replace")
    kept = raw[:ANSWER_BYTES_MAX].decode("utf-8", "ignore")
    return ToolAnswer(is_error=result.is_error, text=kept, bytes_total=len(raw), truncated=len(raw) > ANSWER_BYTES_MAX)


def _blotted(text: str, secret: str | None) -> str:
    """Without the secret, be it as it is or as JSON writes it."""
    for written in _written(secret):
        text = text.replace(written, BLOT)
    return text


def _written(secret: str | None) -> tuple[str, ...]:
    return () if not secret else tuple(dict.fromkeys((secret, json.dumps(secret, ensure_ascii=False)[1:-1])))
