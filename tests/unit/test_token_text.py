"""How a token is written, what is kept of it, and whom it stands for."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock.core.actor import Actor
from interlock.core.errors import Denied
from interlock.core.project import Agent, Person, Project, Service
from interlock.core.token import ENTROPY_BYTES, Token, WrittenToken, make_token, read_token
from interlock.engine.actors import actor_of_account, as_agent, declared_actor
from interlock.engine.tokens import FAILURE_SECONDS, FAILURES_MAX, PEERS_MAX, Failures
from interlock.lib.redact import Redactor

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TEAM = Project(
    people={"ann": Person(roles=("operator",)), "bob": Person()},
    agents={"claude": Agent(on_behalf_of="ann", roles=("viewer",)), "free": Agent()},
    services={"deploy": Service(roles=("operator",)), "nightly": Service(user="nightly", roles=("asker",))},
)


def token(kind: str, actor: str, **fields: Any) -> Token:
    return Token(
        **{
            "id": "a" * 12,
            "name": "ci",
            "kind": kind,
            "actor": actor,
            "sha256": "0" * 64,
            "created_by": "person:ann",
            "created_at": NOW,
            "expires_at": NOW + timedelta(days=1),
            **fields,
        }
    )


def test_a_new_token_reads_back_and_only_the_digest_of_its_secret_is_kept() -> None:
    made = make_token(os.urandom(ENTROPY_BYTES))
    assert read_token(made.text) == made
    assert made.sha256 == hashlib.sha256(made.secret.encode()).hexdigest()
    assert len(made.secret) >= 43, "32 bytes"
    assert make_token(os.urandom(ENTROPY_BYTES)) != made


def test_a_token_of_too_little_chance_is_not_made() -> None:
    with pytest.raises(ValueError, match="random bytes"):
        make_token(b"short")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ilk_",
        "ilk_aaaaaaaaaaaa",
        "ilk_aaaaaaaaaaaa_",
        "ilk_aaaaaaaaaaaa_" + "x" * 42,
        "ilk_aaaaaaaaaaaa_" + "x" * 129,
        "ilk_AAAAAAAAAAAA_" + "x" * 43,
        "ilk_aaaaaaaaaaa1_" + "x" * 43,
        "ilk_aaaaaaaaaaaa_" + "x" * 43 + "\n",
        " ilk_aaaaaaaaaaaa_" + "x" * 43,
        "ilk_aaaaaaaaaaaa_" + "x" * 42 + "é",
        "ilk_aaaaaaaaaaaa_" + "x" * 42 + "\0",
        "Bearer ilk_aaaaaaaaaaaa_" + "x" * 43,
    ],
)
def test_what_is_not_written_like_a_token_is_none(text: str) -> None:
    assert read_token(text) is None


def test_a_token_ends_when_it_expires_or_is_revoked() -> None:
    assert token("person", "ann").is_good_at(NOW)
    assert not token("person", "ann").is_good_at(NOW + timedelta(days=1))
    assert not token("person", "ann", revoked_at=NOW).is_good_at(NOW)


def test_a_token_in_arguments_or_output_is_known_for_a_secret() -> None:
    text = WrittenToken("a" * 12, "x" * 43).text
    assert Redactor().find(text) == "Interlock token"
    assert text not in Redactor().redact(f"curl -H 'X: {text}'")


def test_the_digest_of_a_secret_under_its_name_is_no_secret() -> None:
    assert Redactor().find(f"hash={hashlib.sha256(b'x').hexdigest()}") is None
    assert Redactor().find(f"secret={hashlib.sha256(b'x').hexdigest()}") is not None


@pytest.mark.parametrize(
    ("kind", "name", "roles", "owner"),
    [
        ("person", "ann", ("operator",), None),
        ("service", "deploy", ("operator",), None),
        ("agent", "claude", ("viewer",), "person:ann"),
    ],
)
def test_a_token_stands_for_its_actor_with_the_roles_of_this_moment(
    kind: str, name: str, roles: tuple[str, ...], owner: str | None
) -> None:
    actor = declared_actor(TEAM, token(kind, name, scopes=("view:*",)))
    assert (actor.kind, actor.name, actor.roles, actor.on_behalf_of) == (kind, name, roles, owner)
    assert (actor.via, actor.scopes) == ("a" * 12, ("view:*",))


def test_a_token_without_scopes_is_kept_to_none() -> None:
    assert declared_actor(TEAM, token("person", "ann")).scopes is None


@pytest.mark.parametrize(
    "gone",
    [
        token("person", "carol"),
        token("person", "deploy"),
        token("service", "ann"),
        token("agent", "helper"),
        token("agent", "claude", on_behalf_of="person:bob"),
        token("service", "deploy", on_behalf_of="person:carol"),
    ],
    ids=lambda each: f"{each.kind}-{each.actor}-{each.on_behalf_of}",
)
def test_a_token_of_whom_nobody_declares_any_more_opens_nothing(gone: Token) -> None:
    with pytest.raises(Denied) as caught:
        declared_actor(TEAM, gone)
    assert caught.value.code == "actor.undeclared"


def test_who_declares_nobody_has_no_tokens_of_people() -> None:
    with pytest.raises(Denied):
        declared_actor(Project(), token("person", "ann"))


def test_an_agent_of_a_bearer_is_kept_to_his_scopes() -> None:
    ann = declared_actor(TEAM, token("person", "ann", scopes=("view:*",)))
    agent = as_agent(TEAM, ann, "claude")
    assert (agent.via, agent.scopes, agent.roles) == (ann.via, ann.scopes, ("viewer",))


def test_a_service_may_have_an_account_of_its_own_and_acts_as_nobody() -> None:
    nightly = actor_of_account(TEAM, 3000, "nightly", 0)
    assert nightly == Actor(kind="service", name="nightly", roles=("asker",))
    with pytest.raises(Denied):
        as_agent(TEAM, nightly, "claude")


def test_failures_are_counted_for_each_peer_and_forgotten_after_a_while() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(FAILURES_MAX):
        assert not failures.too_many("a")
        failures.add("a")
    assert failures.too_many("a")
    assert not failures.too_many("b")
    now[0] = FAILURE_SECONDS
    assert not failures.too_many("a")
    for number in range(PEERS_MAX + 1):
        failures.add(str(number))
    assert len(failures._of) == PEERS_MAX
