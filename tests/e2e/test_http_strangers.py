"""Whoever guesses at tokens is slowed down wherever he tries them, and locks nobody out; a narrow token reads nothing
of others by a way around."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.http_front import PREFIX, PROJECT, HttpFront, http_front

RUNS = f"{PREFIX}/runs"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}
GUESSES = 40
ROLES = {"narrow": {"codes": ["run:command.exec", "run:interlock.undo"]}, "operator": {"codes": ["*"]}}


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    people = {**PROJECT["people"], "carl": {"user": "carl", "roles": ["narrow"]}}
    agents = {**PROJECT["agents"], "shared": {}}
    services = {"ci": {"roles": ["narrow"]}}
    with http_front(postgres_endpoint, people=people, agents=agents, services=services, roles=ROLES) as made:
        yield made


def _guess() -> str:
    letters = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12))
    return f"ilk_{letters}_{secrets.token_urlsafe(32)}"


def _from(front: HttpFront, address: str, token: str) -> httpx.Client:
    """Another machine: every address of 127.0.0.0/8 is one of ours."""
    transport = httpx.HTTPTransport(local_address=address)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=front.url, transport=transport, headers=headers, timeout=30.0)


@pytest.mark.parametrize("way", ["/readyz", f"{PREFIX}/openapi.json", "/mcp"])
def test_guesses_are_counted_wherever_they_are_tried_and_lock_nobody_out(front: HttpFront, way: str) -> None:
    place = f"127.0.1.{1 + len(way)}"
    answered = []
    for _ in range(GUESSES):
        with _from(front, place, _guess()) as client:
            answer = client.post(way, json=LIST, headers=ACCEPT) if way == "/mcp" else client.get(way)
            answered.append(answer.status_code)
            assert "resident" not in answer.text
    if way != "/readyz":
        assert set(answered) == {401, 429}, "nobody is answered as if he were known"
        assert answered[-1] == 429
    with _from(front, place, _guess()) as client:
        assert client.get(f"{PREFIX}/status").status_code == 429, "they all count together"
    with _from(front, "127.0.2.1", front.token("person:alice")) as client:
        assert client.get(f"{PREFIX}/status").status_code == 200, "others are let in for the first time"


def test_many_who_guess_from_many_places_keep_no_new_token_out(front: HttpFront) -> None:
    for number in range(10):
        for _ in range(5):
            with _from(front, f"127.0.3.{number + 1}", _guess()) as client:
                assert client.get(f"{PREFIX}/status").status_code == 401
    with _from(front, "127.0.2.2", front.token("person:alice")) as client:
        assert client.get(f"{PREFIX}/status").status_code == 200


def test_a_token_that_is_revoked_is_turned_away_at_the_agents_path_as_well(front: HttpFront) -> None:
    token = _guess()
    with _from(front, "127.0.2.3", token) as client:
        assert client.post("/mcp", json=HELLO, headers=ACCEPT).status_code == 401
    with _from(front, "127.0.2.3", front.token("agent:claude")) as client:
        assert client.post("/mcp", json=HELLO, headers=ACCEPT).status_code == 200


def test_what_others_asked_is_not_read_by_asking_it_again(front: HttpFront) -> None:
    ask = {
        "action": "command.exec",
        "args": {"argv": [str(front.resident.folder / "private-needle")]},
        "confirmed": True,
    }
    with front.client("agent:claude") as claude, front.client("service:ci") as narrow:
        path = front.resident.folder / "private-needle"
        path.write_text("#!/bin/sh\ntrue\n", encoding="utf-8")
        path.chmod(0o755)
        run = claude.post(RUNS, json=ask).json()["run"]
        assert narrow.get(f"{RUNS}/{run['number']}").status_code == 403
        for state in ("waiting", "cancelled"):
            for way in ("retry", "undo"):
                answer = narrow.post(f"{RUNS}/{run['number']}/{way}", json={})
                assert answer.status_code == 403, (state, way, answer.text)
                assert "private-needle" not in answer.text
            claude.post(f"{RUNS}/{run['number']}/cancel", json={})


def test_an_agent_that_several_people_have_shows_nobody_what_it_did_for_another(front: HttpFront) -> None:
    ask = {"action": "command.exec", "args": {"argv": ["uptime"]}, "confirmed": True, "wait": 20}
    agent = {"Interlock-As": "shared"}
    with front.client("person:bob", headers=agent) as of_bob, front.client("person:carl", headers=agent) as of_carl:
        number = of_bob.post(RUNS, json=ask).json()["run"]["number"]
        assert of_bob.get(f"{RUNS}/{number}/events").status_code == 200
        assert of_carl.get(f"{RUNS}/{number}").status_code == 403
        assert of_carl.get(f"{RUNS}/{number}/events").status_code == 403
        assert of_carl.post(f"{RUNS}/{number}/retry", json={}).status_code == 403
        own = of_carl.post(RUNS, json=ask).json()["run"]["number"]
        assert of_carl.get(f"{RUNS}/{own}/events").status_code == 200
