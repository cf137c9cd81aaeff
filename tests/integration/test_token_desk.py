"""A token is looked up in real tables: what is revoked, expired, wrong or unknown is refused in the same words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.engine import Engine
from interlock.core.actor import Actor
from interlock.core.errors import Denied, Transient
from interlock.core.evidence import EvidenceKind
from interlock.core.token import ENTROPY_BYTES, Token, WrittenToken, make_token
from interlock.engine.token_store import TokenStore
from interlock.engine.tokens import FAILURES_MAX, TokenDesk

PROJECT = {"people": {"alice": {"roles": ["operator"]}}, "services": {"deploy": {"roles": ["operator"]}}}


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds


class Tokens:
    """A desk on its own clock, and how to keep a token there."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = SetClock()
        self.store = TokenStore(engine.database)
        self.desk = self.another()

    def another(self) -> TokenDesk:
        """As another process has it."""
        return TokenDesk(self.store, self.engine.parts.project, self.clock)

    async def keep(self, kind: Any = "service", actor: str = "deploy", **fields: Any) -> WrittenToken:
        made = make_token(os.urandom(ENTROPY_BYTES))
        token = Token(
            id=made.id,
            name="ci",
            kind=kind,
            actor=actor,
            sha256=made.sha256,
            created_by="person:alice",
            created_at=self.clock.wall,
            expires_at=fields.pop("expires_at", self.clock.wall + timedelta(days=30)),
            **fields,
        )
        assert await self.store.add(token, 1)
        return made

    async def refusal(self, text: str, desk: TokenDesk | None = None) -> dict[str, object]:
        with pytest.raises(Denied) as caught:
            await (desk or self.desk).actor_of(text)
        return caught.value.to_json()


@pytest.fixture
async def tokens(opened: Callable[..., Any]) -> Tokens:
    return Tokens(await opened(project=PROJECT, work=False))


async def test_a_good_token_is_its_actor(tokens: Tokens) -> None:
    made = await tokens.keep(scopes=("run:test.*",))
    actor = await tokens.desk.actor_of(made.text)
    assert actor == Actor(kind="service", name="deploy", roles=("operator",), via=made.id, scopes=("run:test.*",))


async def test_whatever_is_wrong_with_a_token_is_told_in_the_same_words(tokens: Tokens) -> None:
    good, other = await tokens.keep(), await tokens.keep()
    expired = await tokens.keep(expires_at=tokens.clock.wall)
    revoked = await tokens.keep()
    await tokens.store.revoke(revoked.id, "person:alice")
    unknown = make_token(os.urandom(ENTROPY_BYTES))
    wrong = WrittenToken(good.id, other.secret)
    cut = good.text[:-1]
    told = [
        await tokens.refusal(text)
        for text in (expired.text, revoked.text, unknown.text, wrong.text, cut, "", "x" * 100_000)
    ]
    assert told[0]["code"] == "token.refused"
    assert all(each == told[0] for each in told)
    assert (await tokens.desk.actor_of(good.text)).name == "deploy"


async def test_what_is_revoked_here_is_refused_at_once_and_elsewhere_after_a_second(tokens: Tokens) -> None:
    made, elsewhere = await tokens.keep(), tokens.another()
    for desk in (tokens.desk, elsewhere):
        await desk.actor_of(made.text)
    assert await tokens.store.revoke(made.id, "person:alice") == 1
    tokens.desk.forget(made.id)
    await tokens.refusal(made.text)
    await elsewhere.actor_of(made.text)
    tokens.clock.seconds += 1.0
    await tokens.refusal(made.text, elsewhere)
    assert await tokens.store.revoke(made.id, "person:alice") == 0


async def test_what_was_read_before_it_was_revoked_is_not_believed_after(tokens: Tokens) -> None:
    made = await tokens.keep()
    read, go_on = asyncio.Event(), asyncio.Event()
    by_id = tokens.store.by_id

    async def slow(identity: str) -> Token | None:
        found = await by_id(identity)
        read.set()
        await go_on.wait()
        return found

    tokens.store.by_id = slow  # type: ignore[method-assign]
    asking = asyncio.create_task(tokens.desk.actor_of(made.text))
    await read.wait()
    await tokens.store.revoke(made.id, "person:alice")
    tokens.desk.forget(made.id)
    go_on.set()
    with pytest.raises(Denied):
        await asking


async def test_it_expires_while_it_is_remembered(tokens: Tokens) -> None:
    made = await tokens.keep(expires_at=tokens.clock.wall + timedelta(milliseconds=10))
    await tokens.desk.actor_of(made.text)
    tokens.clock.wall += timedelta(milliseconds=10)
    await tokens.refusal(made.text)


async def test_use_is_noted_by_the_hour(tokens: Tokens) -> None:
    made = await tokens.keep()
    for _ in range(3):
        await tokens.desk.actor_of(made.text)
    kept = await tokens.store.by_id(made.id)
    assert kept is not None
    hour = tokens.clock.wall.replace(minute=0, second=0, microsecond=0)
    assert kept.last_used_at == hour
    tokens.clock.wall += timedelta(hours=1)
    await tokens.desk.actor_of(made.text)
    kept = await tokens.store.by_id(made.id)
    assert kept is not None
    assert kept.last_used_at == hour + timedelta(hours=1)


async def test_who_guesses_is_slowed_down_and_locks_out_nobody_who_came_before(tokens: Tokens) -> None:
    made, later = await tokens.keep(), await tokens.keep()
    await tokens.desk.actor_of(made.text, "front")
    tokens.clock.seconds += 10
    for _ in range(FAILURES_MAX):
        with pytest.raises(Denied):
            await tokens.desk.actor_of(make_token(os.urandom(ENTROPY_BYTES)).text, "front")
    with pytest.raises(Transient) as caught:
        await tokens.desk.actor_of(later.text, "front")
    assert caught.value.code == "token.too_many_failures"
    assert (await tokens.desk.actor_of(made.text, "front")).via == made.id
    assert (await tokens.desk.actor_of(later.text, "another")).via == later.id


async def test_an_actor_that_is_no_longer_declared_is_refused(tokens: Tokens) -> None:
    made = await tokens.keep(actor="gone")
    assert (await tokens.refusal(made.text))["code"] == "actor.undeclared"


async def test_evidence_tells_by_which_token_it_was_asked(opened: Callable[..., Any]) -> None:
    engine = await opened(project=PROJECT)
    made = await Tokens(engine).keep()
    actor = await engine.parts.tokens.actor_of(made.text)
    run = await engine.ask(actor, {})
    await engine.rest(run.number)
    (asked,) = await engine.data(run.number, EvidenceKind.ASKED)
    assert (asked["actor"], asked["via"]) == ("service:deploy", made.id)
    assert (await engine.verify()).intact
