"""The MCP server: lists the tools of one agent and answers its calls, whatever the transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)
from structlog.contextvars import bind_contextvars

from interlock import __version__
from interlock.core.errors import Denied, InterlockError, NotFound, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.trace import TRACE, parse_traceparent
from interlock.engine.planner import validate
from interlock.interfaces.errors import ERROR_CODES
from interlock.interfaces.mcp.guidance import INSTRUCTIONS
from interlock.interfaces.mcp.results import error_answer, tool_result
from interlock.interfaces.mcp.session import ANSWER_SECONDS_MAX, Session
from interlock.interfaces.mcp.tools import AGENT_TOOLS, AgentTool
from interlock.interfaces.mcp.view_tools import PREFIX, VIEW_OUTPUT, read_view, readable_views
from mcp import MCPError

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext

log = structlog.get_logger()

SessionOf = Callable[[Any], Session]
"""The session of whoever sent a request, from what the transport knows of it. Raises Denied."""

SCHEMA_OF_ACTION = "list_actions with the action's name shows the schema of its arguments"
SCHEMA_OF_TOOL = "tools/list shows the schema of this tool; nothing is converted: 7 is not the text 7"

_BY_NAME = {tool.name: tool for tool in AGENT_TOOLS}


def make_server(session_of: SessionOf) -> Server[Any]:
    """A server that answers each request in the session of whoever sent it."""

    async def on_list(
        context: ServerRequestContext[Any, Any],
        params: PaginatedRequestParams | None,  # noqa: ARG001 - one page has them all
    ) -> ListToolsResult:
        session = session_of(context.request)
        try:
            async with session.admitted():
                views = await _views_of(session)
        except InterlockError as error:
            raise _protocol_error(error) from error
        except TimeoutError as error:
            raise _protocol_error(_slow()) from error
        own = [_described(tool) for tool in AGENT_TOOLS]
        return ListToolsResult(tools=[*own, *(_described_view(name, view) for name, view in views.items())])

    async def on_call(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        _join(context, params)
        answer = await _answer(session_of(context.request), params.name, params.arguments or {})
        if answer is None:
            msg = f"there is no tool {params.name[:100]!r}"
            raise _protocol_error(NotFound(msg, code="mcp.tool", fix="tools/list"))
        return tool_result(answer)

    return Server(
        "interlock", version=__version__, instructions=INSTRUCTIONS, on_list_tools=on_list, on_call_tool=on_call
    )


def _join(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> None:
    """Take the trace that the call names in `_meta`, or its HTTP request in a header, or the one of this process."""
    meta: object = params.meta
    given = meta.get("traceparent") if isinstance(meta, dict) else getattr(meta, "traceparent", None)
    if given is None:
        given = getattr(context.request, "headers", {}).get("traceparent")
    trace = parse_traceparent(given if isinstance(given, str) else None) or TRACE.get()
    TRACE.set(trace)
    if trace is not None:
        bind_contextvars(trace_id=trace.trace_id)


async def _answer(session: Session, name: str, given: JsonObject) -> JsonObject | None:
    """What the tool answers, or the error; None where there is no such tool."""
    try:
        async with session.admitted():
            tool = _BY_NAME.get(name)
            if tool is not None:
                return await tool.answer(session, validate(tool.args, given, name))
            return await read_view(session, name, given) if name.startswith(PREFIX) else None
    except InterlockError as error:
        if error.code == "args.invalid":
            error.fix = SCHEMA_OF_ACTION if error.message.startswith(str(given.get("action"))) else SCHEMA_OF_TOOL
        return error_answer(error)
    except TimeoutError:
        return error_answer(_slow())
    except Exception as error:
        log.exception("mcp.bug", tool=name[:100])
        return error_answer(Permanent(f"Interlock has a bug: {type(error).__name__}", code="bug", fix="tell a person"))


async def _views_of(session: Session) -> dict[str, JsonObject]:
    """The views that this agent may read; none where its token does not even let it ask which there are."""
    try:
        return await readable_views(session)
    except Denied:
        return {}


def _slow() -> Transient:
    msg = f"no answer within {ANSWER_SECONDS_MAX:.0f} s"
    return Transient(msg, code="mcp.slow", fix="call again with the same arguments (and the same key)")


def _protocol_error(error: InterlockError) -> MCPError:
    """As a JSON-RPC error, with the code of the one table."""
    return MCPError(ERROR_CODES[error.kind].mcp_code or 0, error.message, error_answer(error))


def _described(tool: AgentTool) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.args.model_json_schema(),
        output_schema=tool.output,
        annotations=ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=not tool.read_only,
            idempotent_hint=True,  # the key makes it so
            open_world_hint=not tool.read_only,
        ),
    )


def _described_view(name: str, view: JsonObject) -> Tool:
    arguments = view["arguments"]
    return Tool(
        name=name,
        description=str(view["summary"]),
        input_schema=arguments if isinstance(arguments, dict) else {"type": "object"},
        output_schema=VIEW_OUTPUT,
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
