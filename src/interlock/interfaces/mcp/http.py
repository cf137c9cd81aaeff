"""MCP over streamable HTTP, without sessions: each request stands alone and carries its bearer's token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from interlock.core.errors import Denied
from interlock.interfaces.mcp.results import error_answer
from interlock.interfaces.mcp.server import make_server
from interlock.interfaces.mcp.session import ClientFactory, KnownAgents, Places, Session

BODY_BYTES_MAX = 4 * 1024 * 1024
TOKEN = re.compile(r"ilk_[a-z2-7]{12}_[A-Za-z0-9_-]{43,128}")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class McpApp:
    """An ASGI application to be mounted at one path; `running` surrounds the time in which it serves."""

    def __init__(self, client_factory: ClientFactory) -> None:
        self._client_factory = client_factory
        self._known = KnownAgents()
        self._places = Places()
        self._manager = self._make_manager()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enter it in the lifespan of the application that it is mounted in; it may be entered again afterwards."""
        self._manager = self._make_manager()
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Without a bearer's token it is answered by 401; what is no POST by 405, as there are neither
        sessions to end nor messages of ours to listen for."""
        if scope["method"] != "POST":
            await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
            return
        if token_of(Request(scope)) is None:
            msg = "a request without `Authorization: Bearer TOKEN`"
            refused = Denied(msg, code="token.missing", fix="interlock tokens create, for an agent")
            answer = JSONResponse(error_answer(refused), 401, {"WWW-Authenticate": 'Bearer realm="interlock"'})
            await answer(scope, receive, send)
            return
        await self._manager.handle_request(scope, receive, send)

    def _make_manager(self) -> StreamableHTTPSessionManager:
        # Without a token nothing is answered, and a page in a browser has none: a forged Host header gains nothing.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        return StreamableHTTPSessionManager(
            make_server(self._session_of),
            json_response=True,
            stateless=True,
            security_settings=security,
            max_request_body_size=BODY_BYTES_MAX,
        )

    def _session_of(self, request: Request) -> Session:
        return Session(
            self._client_factory(),
            token=token_of(request),
            acting_as=request.headers.get("interlock-as"),
            known=self._known,
            places=self._places,
        )


def token_of(request: Request) -> str | None:
    """The bearer's token (RFC 6750, section 2.1), or None where there is none that could be one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and TOKEN.fullmatch(token) else None


def mcp_app(client_factory: ClientFactory) -> McpApp:
    """The application; `client_factory` returns the pool of connections of this process."""
    return McpApp(client_factory)
