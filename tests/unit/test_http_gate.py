"""What stands before every HTTP request: rates, strangers, bodies, hosts and tokens, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.datastructures import Headers

from interlock.core.errors import Invalid, Transient
from interlock.core.http import Http, HttpLimits, Tls
from interlock.core.token import make_token
from interlock.interfaces.http.events import Places, Seen
from interlock.interfaces.http.gate import (
    GOOD_SECONDS,
    REFUSED_MAX,
    REFUSED_SECONDS,
    Body,
    Rates,
    Strangers,
    bearer_of,
)
from interlock.interfaces.http.options import FrontOptions, split_address
from interlock.interfaces.http.supervisor import chosen_listening

TOKEN = make_token(bytes(40)).text


def test_a_bucket_fills_again_with_time_and_is_its_tokens_own() -> None:
    rates = Rates(5.0)
    for _ in range(10):
        rates.take(b"a", 0.0)
    with pytest.raises(Transient) as caught:
        rates.take(b"a", 0.0)
    assert caught.value.details == {"retry_after_seconds": 1}
    rates.take(b"b", 0.0)
    rates.take(b"a", 0.3)
    with pytest.raises(Transient):
        rates.take(b"a", 0.3)


def test_guesses_hold_up_their_own_address_and_no_token_that_was_good() -> None:
    strangers = Strangers()
    strangers.note_good(b"good", 0.0)
    for _ in range(REFUSED_MAX):
        strangers.require_few("10.0.0.1", b"guess", 0.0)
        strangers.note_refused("10.0.0.1", b"guess", 0.0)
    with pytest.raises(Transient) as caught:
        strangers.require_few("10.0.0.1", b"another guess", 1.0)
    assert caught.value.code == "token.too_many_failures"
    strangers.require_few("10.0.0.1", b"good", 1.0)
    strangers.require_few("10.0.0.2", b"new", 1.0)
    strangers.require_few("10.0.0.1", b"new", REFUSED_SECONDS)


def test_a_token_that_was_good_and_is_refused_is_a_stranger_again() -> None:
    strangers = Strangers()
    strangers.note_good(b"a", 0.0)
    assert strangers.is_good(b"a", 1.0)
    assert not strangers.is_good(b"a", GOOD_SECONDS), "whether it still is, is asked now and then"
    for _ in range(REFUSED_MAX):
        strangers.note_refused("::1", b"a", 0.0)
    with pytest.raises(Transient):
        strangers.require_few("::1", b"a", 0.0)


def _messages(*bodies: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = [{"type": "http.request", "body": each, "more_body": True} for each in bodies]

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


async def test_a_body_is_counted_as_it_comes() -> None:
    body = Body(_messages(b"x" * 1000, b"x" * 1000), HttpLimits(body_bytes_max=1024))
    await body()
    with pytest.raises(Invalid) as caught:
        await body()
    assert caught.value.code == "api.body_size"


async def test_a_body_that_does_not_end_is_given_up() -> None:
    limits = HttpLimits().model_copy(update={"body_seconds_max": 0.05})
    body = Body(_messages(b"x"), limits)
    await body()
    with pytest.raises(Invalid) as caught:
        await body()
    assert caught.value.code == "api.body_slow"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x y", "Bearer ilk_"]
)
def test_what_cannot_be_a_token_is_none(value: str) -> None:
    assert bearer_of(Headers({"authorization": value})) is None


def test_a_token_is_found_and_two_are_none() -> None:
    header = (b"authorization", f"Bearer {TOKEN}".encode())
    assert bearer_of(Headers(raw=[header])) == TOKEN
    assert bearer_of(Headers(raw=[header, header])) is None


@pytest.mark.parametrize("event_id", ["x", "1", "1.", ".running", "1.gone", "-1.running", "1.running.x", "1e3.running"])
def test_what_is_no_event_of_ours_is_refused(event_id: str) -> None:
    with pytest.raises(Invalid):
        Seen.of(event_id)


@pytest.mark.parametrize("seen", [Seen(), Seen(7, "running"), Seen(0, "succeeded")])
def test_an_event_id_says_what_was_seen(seen: Seen) -> None:
    assert Seen.of(seen.event_id) == seen


async def test_streams_are_bounded_in_all_and_for_one_bearer() -> None:
    places = Places(4)
    with places.taken(b"a"), places.taken(b"a"):
        with pytest.raises(Transient), places.taken(b"a"):
            pass
        with places.taken(b"b"), places.taken(b"b"), pytest.raises(Transient), places.taken(b"c"):
            pass
    with places.taken(b"a"):
        pass


def test_an_address_is_parted() -> None:
    assert split_address("127.0.0.1:7410") == ("127.0.0.1", 7410)
    assert split_address("[::1]:80") == ("::1", 80)


def test_where_it_listens_is_what_was_asked_for_then_what_is_declared_then_the_default() -> None:
    declared = Http(listen="127.0.0.1:1")
    assert chosen_listening(declared, "127.0.0.1:2", default=True).listen == "127.0.0.1:2"  # type: ignore[union-attr]
    assert chosen_listening(declared, None, default=True).listen == "127.0.0.1:1"  # type: ignore[union-attr]
    assert chosen_listening(Http(), None, default=True).listen == "127.0.0.1:7410"  # type: ignore[union-attr]
    assert chosen_listening(Http(), None, default=False) is None


def test_what_others_can_reach_is_not_served_in_plain_text_unasked() -> None:
    for address in ("0.0.0.0:80", "[::]:80", "192.0.2.1:80", "door.example.org:80"):
        with pytest.raises(Invalid) as caught:
            chosen_listening(Http(), address, default=True)
        assert caught.value.code == "serve.plain"
        assert chosen_listening(Http(plain=True), address, default=True)
        assert chosen_listening(Http(tls=Tls(certificate="/c", key="/k")), address, default=True)


def test_what_the_front_is_told_comes_back_and_is_nobody_elses_business(tmp_path: Any) -> None:
    options = FrontOptions(
        door=tmp_path / "door.sock", trusted_uids=frozenset({0}), descriptor=7, address="[::1]:80", lock=tmp_path / "l"
    )
    options.write(tmp_path / "front.json")
    assert FrontOptions.read(tmp_path / "front.json") == options
    assert (tmp_path / "front.json").stat().st_mode & 0o777 == 0o600
