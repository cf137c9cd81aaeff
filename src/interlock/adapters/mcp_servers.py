"""The declared MCP servers of others, with sessions that no two credentials share, on a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from interlock.core.errors import InterlockError, Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.mcp_server import McpServer, ToolAnswer, ToolCall, ToolDescription
from interlock.core.secret_reference import Secrets
from interlock.lib.canonical import digest_of

if TYPE_CHECKING:
    from interlock.adapters.mcp_session import ServerSession

SESSIONS_MAX = 32
LOOK_SECONDS = 0.1
MARGIN_SECONDS = 10.0
"""How much longer than its own bounds a call is waited for before its loop is given up."""

Result = TypeVar("Result")
SessionKey = tuple[str, str, str]
"""Server, digest of its declaration, SHA-256 of its credential: another credential is another session."""


class OutsideMcpServers:
    """Implements `core.mcp_server.McpServers`.

    Args:
        declared: The servers of interlock.yaml as it is now.
        secrets: Resolves credentials at the moment of use.
    """

    def __init__(self, declared: Callable[[], Mapping[str, McpServer]], secrets: Secrets) -> None:
        self._declared = declared
        self._secrets = secrets
        self._sessions: dict[SessionKey, ServerSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def describe(self, server: str, tool: str) -> ToolDescription:
        """As the Protocol says."""
        declared, key, secret = self._known(server)

        async def ask() -> ToolDescription:
            return await self._session(declared, key, secret).describe(tool)

        seconds = 2 * declared.connect_timeout_seconds + MARGIN_SECONDS
        try:
            return self._submit(ask()).result(seconds)
        except FutureTimeoutError as error:
            msg = f"the MCP server {server} does not answer"
            raise Transient(msg, code="mcp.unreachable", fix="try again", effect_sent=False) from error

    def call(self, call: ToolCall, *, hold: Callable[[], None], cancelled: Callable[[], bool]) -> ToolAnswer:
        """As the Protocol says; the thread looks up now and then whether it should stop."""
        declared, key, secret = self._known(call.server)
        sent = threading.Event()
        waiting = self._submit(self._call(call, declared, key, secret, (hold, sent)))
        while True:
            try:
                return waiting.result(LOOK_SECONDS)
            except FutureTimeoutError:
                if waiting.done():
                    return waiting.result()
                if cancelled():
                    waiting.cancel()
                    msg = f"the call of {call.tool} of {call.server} was cancelled while it lasted"
                    raise Transient(msg, code="run.cancelled", effect_sent=sent.is_set()) from None

    def close(self) -> None:
        """End all sessions and the thread; it may be used again afterwards."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is None:
            return

        async def end() -> None:
            sessions = list(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                session.close()
            # Those that ended before may still be seeing to their programs.
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            if rest:
                await asyncio.wait(rest, timeout=MARGIN_SECONDS / 2)

        asyncio.run_coroutine_threadsafe(end(), loop).result(MARGIN_SECONDS)
        loop.call_soon_threadsafe(loop.stop)

    def _known(self, server: str) -> tuple[McpServer, SessionKey, str | None]:
        """The declaration and the secret as they are now. Raises NotFound, and as the secret's resolution."""
        declared = self._declared().get(server)
        if declared is None:
            msg = f"interlock.yaml declares no MCP server {server}"
            raise NotFound(msg, code="mcp.server_unknown", fix="declare it under `mcp_servers`")
        secret = self._secrets.read(declared.credential) if declared.credential is not None else None
        mark = hashlib.sha256((secret or "").encode()).hexdigest()
        return declared, (server, digest_of(declared.model_dump(mode="json")), mark), secret

    def _session(self, declared: McpServer, key: SessionKey, secret: str | None) -> ServerSession:
        """The open session of this server and credential, or a new one. On the loop only."""
        from interlock.adapters.mcp_session import ServerSession  # noqa: PLC0415 - it takes half a second to import

        self._sessions = {known: session for known, session in self._sessions.items() if not session.ended}
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= SESSIONS_MAX:
                msg = f"{SESSIONS_MAX} sessions with MCP servers are open, which is all there may be"
                raise Transient(msg, code="mcp.busy", fix="try again later", effect_sent=False)
            session = self._sessions[key] = ServerSession(key[0], declared, secret)
        return session

    async def _call(
        self,
        call: ToolCall,
        declared: McpServer,
        key: SessionKey,
        secret: str | None,
        moment: tuple[Callable[[], None], threading.Event],
    ) -> ToolAnswer:
        from interlock.adapters.mcp_session import answer_of  # noqa: PLC0415 - as above

        hold, sent = moment
        limit = asyncio.timeout(call.timeout_seconds)
        session: ServerSession | None = None
        try:
            async with limit:
                session = self._session(declared, key, secret)
                async with session.places:
                    _require_same(call, (await session.describe(call.tool)).digest)
                    hold()
                    sent.set()
                    return answer_of(await session.call(call.tool, call.args), secret)
        except InterlockError:
            raise
        except TimeoutError as error:
            if session is not None:
                session.close()
            msg = f"{call.tool} of {call.server} gave no answer within {call.timeout_seconds:g} s"
            raise Transient(msg, code="mcp.timed_out", fix=_LOOK, effect_sent=sent.is_set()) from error
        except Exception as error:
            raise _failed(call, error, session) from error

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop of our own thread, which is started when it is first needed."""
        with self._starting:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(loop,), name="mcp-servers", daemon=True).start()
            return self._loop


_LOOK = "look in the outside system whether it happened"


def _run(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.closing(loop):
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())


def _require_same(call: ToolCall, digest: str) -> None:
    """Raises Stale when the tool describes itself otherwise than what was accepted."""
    if digest == call.digest:
        return
    msg = (
        f"{call.tool} of {call.server} describes itself otherwise than what was accepted"
        f" ({digest[:12]} instead of {call.digest[:12]}); nothing was sent"
    )
    fix = f"a person looks at it: interlock do mcp.accept --arg server={call.server} --arg tool={call.tool}"
    raise Stale(msg, code="mcp.tool_changed", fix=fix)


def _failed(call: ToolCall, error: Exception, session: ServerSession | None) -> InterlockError:
    """What the SDK raised after the call was sent; the server's own words are left out."""
    from mcp import MCPError  # noqa: PLC0415 - as above

    where = f"{call.tool} of {call.server}"
    if isinstance(error, MCPError) and error.code in _REFUSALS:
        return Invalid(f"{where} refused the call (error {error.code})", code="mcp.refused", fix=_LOOK)
    if session is not None:
        session.close()
    if isinstance(error, MCPError | OSError | EOFError) or type(error).__module__.startswith("anyio"):
        return Transient(f"the MCP server {call.server} went away during {call.tool}", code="mcp.gone", fix=_LOOK)
    return Permanent(f"{where} answered with something that is no answer", code="mcp.garbage", fix=_LOOK)


_REFUSALS = frozenset({-32600, -32601, -32602})
"""JSON-RPC 2.0, section 5.1: invalid request, method not found, invalid params. Nothing was begun then."""
