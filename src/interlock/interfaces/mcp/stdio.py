"""MCP over standard input and output: one agent, who is the account that started this program, narrowed by --as."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import anyio
from mcp.server.stdio import stdio_server
from pydantic_core import from_json

from interlock.core.errors import Invalid
from interlock.interfaces.local.async_client import AsyncClient
from interlock.interfaces.mcp.server import make_server
from interlock.interfaces.mcp.session import CALLS_PER_AGENT_MAX, KnownAgents, Places, Session

LINE_BYTES_MAX = 16 * 1024 * 1024
NUMBER_WITHIN_BYTES = 4096

_NUMBER = re.compile(rb'"id"\s*:\s*([0-9]{1,15}|"[A-Za-z0-9_-]{1,100}")')


class BoundedLines:
    """Lines of UTF-8 text from a binary file; one that is longer than `LINE_BYTES_MAX` ends the input."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.too_long = False

    def readline(self) -> str:
        """The next line with its end; the empty text at the end of input."""
        line = self._file.readline(LINE_BYTES_MAX + 1)
        self.too_long = len(line) > LINE_BYTES_MAX
        if self.too_long or not line:
            return ""
        return line.decode("utf-8", "replace") if _is_json(line) else _unreadable(line)


def _is_json(line: bytes) -> bool:
    try:
        from_json(line)
    except ValueError:
        return False
    return True


def _unreadable(line: bytes) -> str:
    """What stands for a line that is no JSON, or is nested too deeply: a request that is refused under the same number,
    so that its sender need not wait for an answer that never comes; without a number, a line that is passed over."""
    found = _NUMBER.search(line[:NUMBER_WITHIN_BYTES])
    if found is None:
        return "{}\n"
    return f'{{"jsonrpc":"2.0","id":{found[1].decode("ascii")},"method":"interlock/unreadable"}}\n'


async def serve_stdio(door: Path, trusted_uids: frozenset[int], acting_as: str | None) -> None:
    """Serve until standard input ends.

    Raises:
        Denied: Whoever started this is no agent, and was not narrowed to one.
        Invalid: A message was over `LINE_BYTES_MAX`.
        InterlockError: The resident process does not answer.
    """
    async with AsyncClient(door, trusted_uids=trusted_uids, connections_max=CALLS_PER_AGENT_MAX) as client:
        session = Session(client, token=None, acting_as=acting_as, known=KnownAgents(), places=Places())
        async with session.admitted():
            pass  # who may not be served hears it before the client waits for an answer
        server = make_server(lambda _: session)
        lines = BoundedLines(sys.stdin.buffer)
        given = anyio.wrap_file(cast("TextIO", lines))
        async with stdio_server(stdin=given) as (read, write):
            await server.run(read, write, server.create_initialization_options())
    if lines.too_long:
        msg = f"a message was over {LINE_BYTES_MAX:,} bytes"
        raise Invalid(msg, code="protocol.size", fix="put large content into a file and name the file")
