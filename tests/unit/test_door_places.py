"""The door has a place for everybody: bounds on connections of an account, and on lines that do not come."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from interlock.core.errors import Transient
from interlock.interfaces.local.server import (
    CONNECTIONS_MAX,
    CONNECTIONS_OF_OPERATOR,
    CONNECTIONS_OF_OWN_ACCOUNT_MAX,
    CONNECTIONS_PER_ACCOUNT_MAX,
    Places,
    read_line,
)

OWN_UID = 900


def _fill(places: Places, stack: ExitStack, uid: int) -> int:
    """How many places an account gets when it takes all it can."""
    for count in range(CONNECTIONS_MAX + CONNECTIONS_OF_OWN_ACCOUNT_MAX + 1):
        try:
            stack.enter_context(places.taken(uid))
        except Transient:
            return count
    msg = "there was no bound"
    raise AssertionError(msg)


def test_one_account_takes_no_more_than_its_part() -> None:
    places = Places(OWN_UID)
    with ExitStack() as stack:
        for uid in (0, 1000, 1001):
            assert _fill(places, stack, uid) == CONNECTIONS_PER_ACCOUNT_MAX
        assert _fill(places, stack, OWN_UID) == CONNECTIONS_OF_OWN_ACCOUNT_MAX


def test_all_accounts_together_leave_room_for_root_and_for_the_own_account() -> None:
    places = Places(OWN_UID)
    with ExitStack() as stack:
        assert sum(_fill(places, stack, uid) for uid in range(1000, 1020)) == CONNECTIONS_MAX
        assert _fill(places, stack, 0) == CONNECTIONS_OF_OPERATOR
        assert _fill(places, stack, OWN_UID) == CONNECTIONS_OF_OWN_ACCOUNT_MAX
        assert _fill(places, stack, 2000) == 0
    with ExitStack() as stack:
        assert _fill(places, stack, 2000) == CONNECTIONS_PER_ACCOUNT_MAX, "who hangs up leaves his place"


def test_the_own_account_takes_no_places_from_others() -> None:
    places = Places(OWN_UID)
    with ExitStack() as stack:
        _fill(places, stack, OWN_UID)
        assert sum(_fill(places, stack, uid) for uid in range(1000, 1020)) == CONNECTIONS_MAX


async def _read(*pieces: bytes, end: bool = False, limit: int = 2**16) -> list[bytes]:
    reader = asyncio.StreamReader(limit=limit)
    for piece in pieces:
        reader.feed_data(piece)
    if end:
        reader.feed_eof()
    lines = []
    while not lines or lines[-1]:
        lines.append(await read_line(reader, idle_seconds=0.05, line_seconds=0.02))
    return lines


async def test_lines_come_one_after_another() -> None:
    assert await _read(b'{"a": 1}\n\n', b'{"b"', b": 2}\n{", end=True) == [
        b'{"a": 1}\n',
        b"\n",
        b'{"b": 2}\n',
        b"{",
        b"",
    ]


async def test_whoever_asks_nothing_is_hung_up_on() -> None:
    with pytest.raises(Transient, match="nothing was asked") as caught:
        await _read()
    assert caught.value.code == "door.idle"


async def test_whoever_does_not_finish_a_line_is_hung_up_on() -> None:
    with pytest.raises(Transient, match="no end") as caught:
        await _read(b'{"id": 1, "method": "subm')
    assert caught.value.code == "door.slow"


async def test_a_line_over_the_limit_is_refused_before_it_is_read_to_its_end() -> None:
    with pytest.raises(ValueError, match="limit"):
        await _read(b"x" * 1000, limit=100)
