"""Who an MCP session serves, and how much at once; the resident process is played by a small one of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from interlock.core.errors import Denied, Transient
from interlock.interfaces.local.protocol import JsonMapping
from interlock.interfaces.mcp.session import KNOWN_MAX, KnownAgents, Places, Session
from interlock.interfaces.mcp.stdio import BoundedLines
from interlock.interfaces.mcp.view_tools import tool_name_of


class Resident:
    """Says who the caller is, and counts how often it was asked."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.asked: list[str] = []

    async def call(
        self,
        method: str,
        params: JsonMapping | None = None,
        *,
        token: str | None = None,
        acting_as: str | None = None,
        on_progress: Callable[[JsonMapping], Awaitable[None]] | None = None,
        timeout_seconds: float | None = 0,
    ) -> JsonMapping:
        self.asked.append(method)
        return {"actor": {"kind": self.kind, "name": "x"}}


def session(resident: Resident, token: str | None = None, **options: object) -> Session:
    known, places = options.get("known", KnownAgents()), options.get("places", Places())
    assert isinstance(known, KnownAgents)
    assert isinstance(places, Places)
    return Session(resident, token=token, acting_as=None, known=known, places=places)


@pytest.mark.parametrize("kind", ["person", "service", "system", ""])
async def test_only_an_agent_is_served(kind: str) -> None:
    with pytest.raises(Denied) as caught:
        async with session(Resident(kind)).admitted():
            pass
    assert caught.value.code == "mcp.not_agent"


async def test_who_a_token_belongs_to_is_asked_once_and_for_each_token() -> None:
    resident, known = Resident("agent"), KnownAgents()
    for token in ("one", "one", "two"):
        async with session(resident, token, known=known).admitted():
            pass
    assert resident.asked == ["hello", "hello"]


async def test_whoever_was_refused_is_not_remembered_as_an_agent() -> None:
    resident, known = Resident("person"), KnownAgents()
    for _ in range(2):
        with pytest.raises(Denied):
            async with session(resident, known=known).admitted():
                pass
    assert resident.asked == ["hello", "hello"]


def test_what_is_remembered_is_bounded() -> None:
    known = KnownAgents()
    for number in range(KNOWN_MAX + 1):
        known.add(str(number))
    assert "0" not in known
    assert str(KNOWN_MAX) in known


async def test_one_agent_cannot_take_all_places_nor_all_together_more_than_there_are() -> None:
    places = Places(per_agent_max=2, calls_max=3)
    async with places.taken("a"), places.taken("a"):
        with pytest.raises(Transient) as caught:
            async with places.taken("a"):
                pass
        assert caught.value.code == "mcp.busy"
        async with places.taken("b"):
            with pytest.raises(Transient):
                async with places.taken("c"):
                    pass
    async with places.taken("a"):
        pass


async def test_a_place_is_given_back_when_a_call_is_cancelled() -> None:
    places = Places(per_agent_max=1, calls_max=1)

    async def wait() -> None:
        async with places.taken("a"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    async with places.taken("b"):
        pass


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b'{"a": 1}\n', '{"a": 1}\n'),
        (b"", ""),
        (b"garbage\n", "{}\n"),
        (b'{"id": 7, "params": ' + b"[" * 5000 + b"\n", '{"jsonrpc":"2.0","id":7,"method":"interlock/unreadable"}\n'),
        (b'{"id":"ab-1", ]\n', '{"jsonrpc":"2.0","id":"ab-1","method":"interlock/unreadable"}\n'),
        (b'{"id":"a\\"b", ]\n', "{}\n"),
    ],
)
def test_a_line_that_is_no_message_is_refused_under_its_own_number(line: bytes, read: str) -> None:
    class Lines:
        def readline(self, size: int) -> bytes:
            return line[:size]

    assert BoundedLines(Lines()).readline() == read  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("view", "tool"), [("runs", "view_runs"), ("audit.findings", "view_audit_findings"), ("a-b", "view_a_b")]
)
def test_a_views_tool_has_a_name_that_every_client_takes(view: str, tool: str) -> None:
    assert tool_name_of(view) == tool
