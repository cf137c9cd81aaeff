"""A plain client of MCP over streamable HTTP that keeps its connection, and a plain server with one tool: the peers."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from bench.installation import PERSON, Look
from interlock.bootstrap import Installation
from interlock.core.http import Http, HttpLimits
from interlock.core.token import ENTROPY_BYTES, make_token
from interlock.interfaces.http.supervisor import Listening, http_front

READY_SECONDS = 30
_INSERT = """insert into token (id, name, kind, actor, scopes, sha256, created_by, created_at, expires_at, run)
    values (%s, 'bench mcp', 'person', %s, '{}', %s, 'person:alice', now(), %s, 1)"""


class McpClient:
    """Posts one call after another; the server hangs up on who is silent for long, and then a new one is made."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-06-18",
            **headers,
        }

    def call(self, tool: str, arguments: dict[str, object]) -> dict[str, object]:
        """The structured answer of a tool."""
        params = {"name": tool, "arguments": arguments}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        try:
            answered = self._post(body)
        except (ConnectionError, http.client.HTTPException):
            self._connection.close()
            answered = self._post(body)
        answer: dict[str, object] = answered["result"]["structuredContent"]  # type: ignore[assignment]
        return answer

    def run(self) -> None:
        """One Run from the ask to its end."""
        key = secrets.token_hex(8)
        answer = self.call("run", {"action": Look.name, "args": {"target": key}, "key": key, "wait_seconds": 50})
        assert answer["run"]["state"] == "succeeded", answer  # type: ignore[index]

    def nothing(self) -> None:
        """The plain tool."""
        assert self.call("nothing", {"target": secrets.token_hex(8)}) == {"result": "nothing was done"}

    def _post(self, body: str) -> dict[str, dict[str, object]]:
        self._connection.request("POST", "/mcp", body, self._headers)
        answered: dict[str, dict[str, object]] = json.loads(self._connection.getresponse().read())
        return answered


@asynccontextmanager
async def agent_client(installation: Installation, owner: str) -> AsyncIterator[McpClient]:
    """The front as it ships beside a resident process that is there already, and an agent of the person's."""
    written = make_token(secrets.token_bytes(ENTROPY_BYTES))
    with psycopg.connect(owner, autocommit=True) as connection:
        expires = datetime.now(UTC) + timedelta(days=1)
        connection.execute(_INSERT, (written.id, PERSON.name, written.sha256, expires))
    port = _free_port()
    limits = HttpLimits(requests_per_second=100_000)
    listening = Listening(f"127.0.0.1:{port}", Http(limits=limits))
    async with http_front(installation.locations, listening, installation.telemetry.meter):
        yield McpClient(port, {"Authorization": f"Bearer {written.text}", "Interlock-As": "claude"})


@contextmanager
def plain_client() -> Iterator[McpClient]:
    """A server made of the official SDK alone, in a process of its own, whose one tool does nothing."""
    port = _free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.mcp_client", str(port)], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + READY_SECONDS
        while not _listens(port):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield McpClient(port, {})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve_plain(port: int) -> None:
    """As the SDK serves by itself, without sessions."""
    from mcp.server import MCPServer  # noqa: PLC0415 - the client must not pay for it

    server = MCPServer("plain", log_level="ERROR")

    @server.tool()
    def nothing(target: str) -> str:  # noqa: ARG001 - as the other tool has one
        """Do nothing."""
        return "nothing was done"

    server.run("streamable-http", port=port, stateless_http=True, json_response=True)


if __name__ == "__main__":
    _serve_plain(int(sys.argv[1]))
