"""Bytes to and from an MCP server of others, as a program or over HTTP, with a bound on whatever it sends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from interlock.core.mcp_server import McpServer

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
GRACE_SECONDS = 1.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETPRIV = "/usr/bin/setpriv"
"""setpriv(1): with it the program dies with us, even when we are killed."""

Streams = tuple[Any, Any]
"""What the SDK calls transport streams: messages to read, messages to write."""


class TooLarge(Exception):
    """A message is over `MESSAGE_BYTES_MAX`."""


@asynccontextmanager
async def program_transport(declared: McpServer, secret: str | None) -> AsyncIterator[Streams]:
    """Start the program in a process group of its own; at the end its group is killed.

    Raises: OSError when it cannot be started.
    """
    environment = {"PATH": PATH, **declared.environment}
    if declared.credential_variable is not None and secret is not None:
        environment[declared.credential_variable] = secret
    dies_with_us = [SETPRIV, "--pdeathsig", "KILL", "--"] if await asyncio.to_thread(os.path.exists, SETPRIV) else []
    process = await asyncio.create_subprocess_exec(
        *dies_with_us,
        *declared.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        cwd=declared.folder,
        start_new_session=True,
        limit=MESSAGE_BYTES_MAX,
    )
    to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process, to_us)
            tasks.start_soon(_write, process, from_us, to_us)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()
    finally:
        for stream in (to_us, incoming, outgoing, from_us):
            stream.close()
        # A task of its own, which whoever cancels this one does not stop halfway.
        ending = asyncio.create_task(_end(process))
        with anyio.CancelScope(shield=True):
            await asyncio.shield(ending)


async def _read(process: asyncio.subprocess.Process, to_us: Any) -> None:
    """Line by line, until the program ends or says something that is too long."""
    stdout = process.stdout
    async with to_us:
        with suppress(ValueError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while stdout is not None and (line := await stdout.readline()):
                try:
                    message: SessionMessage | Exception = SessionMessage(
                        jsonrpc_message_adapter.validate_json(line, by_name=False)
                    )
                except ValueError as error:
                    message = error
                await to_us.send(message)


async def _write(process: asyncio.subprocess.Process, from_us: Any, to_us: Any) -> None:
    stdin = process.stdin
    async with from_us:
        try:
            async for sent in from_us:
                if stdin is not None:
                    text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()
        except (OSError, anyio.ClosedResourceError):
            # Nobody reads any more: whoever waits for an answer hears it.
            await to_us.aclose()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, give it a moment, then kill whatever is left of its group."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # Whoever inherited its pipes may hold them open; nothing public lets go of our end.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that fails when it grows too large."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MESSAGE_BYTES_MAX
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                msg = f"an answer is over {MESSAGE_BYTES_MAX:,} bytes"
                raise httpx2.ReadError(msg)
            yield chunk

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._stream.aclose()


class _BoundedHttp(httpx2.AsyncHTTPTransport):
    """HTTP whose answers are bounded, compressed ones too: none is asked for."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange."""
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        response.stream = _BoundedBody(response.stream)
        return response


@asynccontextmanager
async def address_transport(declared: McpServer, secret: str | None) -> AsyncIterator[Streams]:
    """Streamable HTTP to the declared address. A redirect is followed within its origin only, as the SDK sees to.

    The environment's proxies are not asked.
    """
    headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    timeout = httpx2.Timeout(declared.connect_timeout_seconds, read=declared.timeout_seconds + GRACE_SECONDS)
    limits = httpx2.Limits(max_connections=declared.calls_at_once_max + 2)
    async with (
        httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=_BoundedHttp(limits=limits), trust_env=False
        ) as client,
        streamable_http_client(
            declared.url or "", http_client=client, terminate_on_close=False, max_sse_event_size=MESSAGE_BYTES_MAX
        ) as streams,
    ):
        yield streams
