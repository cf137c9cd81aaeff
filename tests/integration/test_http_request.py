"""`http.request` through the door: what is open, what an answer means for the Run, and where redirects end."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.databases import database
from harness.engine import ALICE, CLAUDE, Engine, open_engine, write_project
from harness.web_server import Seen, WebServer, answer, web_server
from interlock.core.ask import Ask
from interlock.core.errors import Invalid, NotFound, Stale
from interlock.core.evidence import EvidenceKind
from interlock.core.run import Run, RunState
from interlock.engine.proposal import Proposal

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def other() -> Iterator[WebServer]:
    with web_server() as running:
        yield running


class Shop:
    """An engine that permits everything, with one service, another one, and one that may be asked twice."""

    def __init__(self, engine: Engine, server: WebServer, other: WebServer) -> None:
        self.engine, self.server, self.other = engine, server, other

    async def propose(self, url: str, **args: Any) -> Proposal:
        ask = Ask(action="http.request", args={"url": url, **args})
        found = await self.engine.door.propose(ALICE, ask)
        assert isinstance(found, Proposal)
        return found

    async def run(self, path: str, **args: Any) -> Run:
        """At a path of its own: an unresolved Run keeps its targets."""
        name, mark, query = path.partition("?")
        url = f"{self.server.url}{name}/{secrets.token_hex(4)}{mark}{query}"
        args.setdefault("destination", "billing")
        ask = Ask(action="http.request", args={"url": url, **args}, confirmed=True)
        run = await self.engine.door.submit(ALICE, ask)
        assert isinstance(run, Run)
        return await self.engine.rest(run.number)

    async def output(self, run: Run) -> str:
        return "".join(piece.text for piece in await self.engine.parts.outputs.read(run.number))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(postgres_endpoint: Any, migrated: str, server: WebServer, other: WebServer) -> AsyncIterator[Engine]:
    """One engine for all tests: they differ in what they ask."""

    def billing() -> dict[str, Any]:
        return {"url": server.url, "private": True, "methods": [*ALL], "paths": ["/**"], "timeout_seconds": 1.5}

    destinations = {
        "billing": {**billing(), "credential": "credential:billing"},
        "steady": {**billing(), "repeatable_methods": ["PUT"], "idempotency_key": True, "headers": ["X-Tenant"]},
        "other": {"url": other.url, "private": True, "paths": ["/echo", "/credential", "/redirect"]},
        "public": {"url": "https://api.example.com", "methods": ["GET", "POST"], "paths": ["/v1/invoices/*"]},
        "guarded": {"url": "https://secret.example.com", "discloses": "secret", "paths": ["/**"]},
    }
    with (
        database(postgres_endpoint, template=migrated) as (_, owner, app),
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder,
    ):
        locations = write_project(
            Path(folder), http_destinations=destinations, limits={"step_attempts_max": 2, "runs_at_once_max": 16}
        )
        credentials = locations.state_folder / "credentials"
        credentials.mkdir(mode=0o700, parents=True)
        (credentials / "billing").write_text("s3cr3t-of-billing")
        (credentials / "billing").chmod(0o600)
        async with open_engine(app, owner, locations) as engine:
            yield engine


@pytest.fixture
def shop(opened: Engine, server: WebServer, other: WebServer) -> Shop:
    server.answers.clear()
    server.seen.clear()
    other.seen.clear()
    return Shop(opened, server, other)


# What is planned.


async def test_a_plan_shows_the_request_and_names_its_credential(shop: Shop) -> None:
    found = await shop.propose(
        f"{shop.server.url}/echo?x=y", method="POST", data={"a": 1}, query={"q": "a b&c"}, destination="billing"
    )
    (step,) = found.plan.steps
    assert found.plan.preview is not None
    assert found.plan.preview.splitlines() == [
        f"POST {shop.server.url}/echo?x=y&q=a%20b%26c",
        "content-type: application/json",
        "Authorization: [credential:billing]",
        "",
        '{"a":1}',
    ]
    assert [target.key for target in step.targets] == ["http:billing/echo"]
    assert (step.changes, step.risk, step.repeatable, step.operations) == (True, "high", False, ("http.post",))
    assert "s3cr3t" not in found.plan.model_dump_json()
    assert shop.server.seen == [], "to plan sends nothing"


async def test_reading_changes_nothing_and_discloses(shop: Shop) -> None:
    found = await shop.propose("https://api.example.com/v1/invoices/7")
    (step,) = found.plan.steps
    assert (step.changes, step.risk, step.repeatable, step.discloses) == (False, "none", True, "content")
    found = await shop.propose("https://secret.example.com/")
    assert found.plan.discloses == "secret"


@pytest.mark.parametrize(
    ("url", "args", "code"),
    [
        ("https://evil.example.com/v1/invoices/7", {}, "http.destination_unknown"),
        ("https://api.example.com:8443/v1/invoices/7", {}, "http.destination_unknown"),
        ("http://api.example.com/v1/invoices/7", {}, "http.destination_unknown"),
        ("https://api.example.com/v1/invoices/7", {"destination": "guarded"}, "http.destination_unknown"),
        ("https://api.example.com/v1/invoices/7/lines", {}, "http.not_open"),
        ("https://api.example.com/v1/invoices/7", {"method": "DELETE"}, "http.not_open"),
        ("https://api.example.com/v1/invoices/7", {"headers": {"X-HTTP-Method-Override": "DELETE"}}, "http.header"),
        ("https://api.example.com/v1/invoices/7", {"headers": {"Host": "evil"}}, "http.header"),
        ("https://api.example.com/v1/invoices/7", {"headers": {"Accept": "a\r\nHost: b"}}, "args.invalid"),
        ("https://api.example.com@evil.example.com/", {}, "args.invalid"),
        ("https://api.example.com/v1/invoices/%2e%2e", {}, "args.invalid"),
        ("https://api.example.com/v1/invoices/7", {"body": "x"}, "args.invalid"),
        ("https://api.example.com/v1/invoices/7", {"method": "CONNECT"}, "args.invalid"),
        ("https://api.example.com/v1/invoices/7", {"method": "POST", "body": "x" * 262_145}, "args.invalid"),
        ("https://api.example.com/v1/invoices/7", {"query": {"a": "x" * 5000}}, "http.url"),
    ],
)
async def test_what_is_not_open_is_refused_and_nothing_is_sent(
    shop: Shop, url: str, args: dict[str, Any], code: str
) -> None:
    with pytest.raises((Invalid, NotFound)) as caught:
        await shop.propose(url, **args)
    assert caught.value.code == code
    assert caught.value.fix


async def test_two_destinations_that_fit_are_told_apart_by_name(shop: Shop) -> None:
    with pytest.raises(Invalid) as caught:
        await shop.propose(f"{shop.server.url}/echo")
    assert caught.value.code == "http.ambiguous"


async def test_an_address_that_is_none_is_refused_with_its_place(shop: Shop) -> None:
    with pytest.raises(Invalid, match="character 24: a user before the host"):
        await shop.propose("https://api.example.com@evil.example.com/")


# What is sent and what comes back.


async def test_the_credential_is_sent_and_nowhere_else(shop: Shop) -> None:
    run = await shop.run("/credential")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert shop.server.seen[-1].headers["authorization"] == "Bearer s3cr3t-of-billing"
    assert "you are Bearer [redacted]!" in await shop.output(run)
    rows = [row.line for row in await shop.engine.store.evidence(run.number)]
    assert "s3cr3t" not in "".join(rows) + await shop.output(run) + run.plan.model_dump_json()


async def test_what_an_answer_says_is_in_the_output_and_its_digest_in_the_evidence(shop: Shop) -> None:
    run = await shop.run("/echo", method="PATCH", data={"name": "ä"}, headers={"Accept": "text/plain"})
    assert run.state is RunState.SUCCEEDED
    (done,) = await shop.engine.data(run.number, EvidenceKind.DONE)
    assert done["data"]["status"] == 200
    assert done["data"]["hosts"] == ["127.0.0.1"]
    said = json.loads((await shop.output(run)).partition("\n")[2])
    assert (said["method"], said["body"], said["headers"]["accept"]) == ("PATCH", '{"name":"ä"}', "text/plain")


async def test_what_was_declared_anew_since_the_plan_is_stale(shop: Shop, server: WebServer) -> None:
    found = await shop.propose(f"{server.url}/echo", method="POST", destination="billing")
    source = shop.engine.parts.project
    declared = source.current.http_destinations
    wider = declared["billing"].model_copy(update={"timeout_seconds": 3.0})
    source.current = source.current.model_copy(update={"http_destinations": {**declared, "billing": wider}})
    action = shop.engine.parts.catalog.action("http.request")
    with pytest.raises(Stale):
        action.perform(found.plan.steps[0], StillHolding())
    source.current = source.current.model_copy(update={"http_destinations": declared})
    assert server.seen == []


class StillHolding:
    """A context that has lost nothing yet."""

    run, key, attempt, cancelled = 1, "1:0", 1, False
    blobs: Any = None

    def hold(self) -> None:
        return

    def execute(self, spec: Any) -> Any:
        raise AssertionError(spec)

    def write_output(self, text: str) -> None:
        raise AssertionError(text)

    def arrange(self, name: str, payload: Any) -> Any:
        raise AssertionError((name, payload))


async def test_a_key_goes_with_what_may_be_repeated_by_it_and_is_the_same_each_time(shop: Shop) -> None:
    run = await shop.run("/flaky?how=503", method="POST", destination="steady", body="x")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    keys = [seen.headers["idempotency-key"] for seen in shop.server.seen]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert keys[0].startswith(f"{run.number}:0:")
    await shop.run("/echo", method="POST", destination="steady", body="x", headers={"X-Tenant": "7"})
    assert shop.server.seen[-1].headers["idempotency-key"] != keys[0]
    await shop.run("/echo", method="POST", body="x")
    assert "idempotency-key" not in shop.server.seen[-1].headers


# What an answer means.


@pytest.mark.parametrize(
    ("path", "args", "state", "code", "sent"),
    [
        ("/status?is=404", {}, RunState.FAILED, "http.refused", 1),
        ("/status?is=404", {"expect": [404]}, RunState.SUCCEEDED, None, 1),
        ("/status?is=200", {"expect": [201]}, RunState.FAILED, "http.unexpected", 1),
        ("/status?is=404", {"method": "POST"}, RunState.FAILED, "http.refused", 1),
        ("/status?is=500", {}, RunState.FAILED, "http.failed", 2),
        ("/status?is=500", {"method": "POST"}, RunState.UNRESOLVED, "http.failed", 1),
        ("/status?is=503&after=0", {}, RunState.FAILED, "http.unavailable", 2),
        ("/status?is=503&after=0", {"method": "POST"}, RunState.UNRESOLVED, "http.unavailable", 1),
        ("/status?is=429&after=0", {"method": "POST"}, RunState.FAILED, "http.limited", 2),
        ("/status?is=429&after=3600", {"method": "POST"}, RunState.FAILED, "http.limited", 1),
        ("/status?is=503", {"method": "PUT", "destination": "steady"}, RunState.FAILED, "http.unavailable", 2),
        ("/flaky?how=503", {}, RunState.SUCCEEDED, None, 2),
        ("/flaky?how=429", {"method": "POST"}, RunState.SUCCEEDED, None, 2),
        ("/flaky?how=gone", {}, RunState.SUCCEEDED, None, 2),
        ("/flaky?how=gone", {"method": "POST"}, RunState.UNRESOLVED, "http.gone", 1),
        ("/flaky?how=gone", {"method": "PUT", "destination": "steady"}, RunState.SUCCEEDED, None, 2),
        ("/hang", {"method": "POST"}, RunState.UNRESOLVED, "http.timed_out", 1),
        ("/half", {"method": "DELETE"}, RunState.UNRESOLVED, "http.gone", 1),
        ("/garbage", {"method": "POST"}, RunState.UNRESOLVED, "http.garbage", 1),
        ("/garbage", {}, RunState.FAILED, "http.garbage", 1),
        ("/redirect?is=303&to=/echo", {"method": "POST"}, RunState.UNRESOLVED, "http.unexpected", 1),
        ("/redirect?is=303&to=/echo", {"method": "POST", "expect": [303]}, RunState.SUCCEEDED, None, 1),
        ("/redirect?is=302&to=/echo", {"method": "POST"}, RunState.UNRESOLVED, "http.unexpected", 1),
    ],
)
async def test_an_answer_means_one_thing(
    shop: Shop, path: str, args: dict[str, Any], state: RunState, code: str | None, sent: int
) -> None:
    run = await shop.run(path, **args)
    assert (run.state, run.state_code) == (state, code), run.state_reason
    assert len(shop.server.seen) == sent
    assert "IGNORE" not in (run.state_reason or "")


# Redirects.


async def test_reading_follows_within_what_is_declared(shop: Shop) -> None:
    run = await shop.run("/redirect?to=/credential")
    assert "Bearer [redacted]" in await shop.output(run), "the same service is told who asks"


async def test_another_host_is_not_told_the_credential(shop: Shop) -> None:
    run = await shop.run(f"/redirect?to={shop.other.url}/credential")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert "you are nobody!" in await shop.output(run)
    assert "authorization" not in shop.other.seen[-1].headers


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/echo",
        "https://api.example.com/v2",
        "https://secret.example.com/x",
        "http://169.254.169.254/latest/meta-data/",
        "//127.0.0.1/echo",
        "http://user@127.0.0.1/echo",
        "http://2130706433/echo",
        "file:///etc/passwd",
        "/a/../b",
    ],
)
async def test_a_redirect_to_what_nobody_declared_is_refused(shop: Shop, location: str) -> None:
    shop.server.answers["astray"] = lambda _: answer(302, b"", f"Location: {location}")
    run = await shop.run("/astray")
    assert (run.state, run.state_code) == (RunState.FAILED, "http.redirect"), run.state_reason
    assert len(shop.server.seen) == 1
    assert shop.other.seen == []


async def test_the_path_is_checked_on_every_redirect(shop: Shop) -> None:
    run = await shop.run(f"/redirect?to={shop.other.url}/status")
    assert (run.state, run.state_code) == (RunState.FAILED, "http.redirect")
    assert shop.other.seen == []


async def test_a_loop_ends(shop: Shop) -> None:
    run = await shop.run("/loop")
    assert (run.state, run.state_code) == (RunState.FAILED, "http.redirect")
    assert shop.server.count("loop") == 6


async def test_a_change_stays_where_it_was_decided_on(shop: Shop) -> None:
    run = await shop.run(f"/redirect?is=307&to={shop.other.url}/echo", method="POST", body="x")
    assert (run.state, run.state_code) == (RunState.FAILED, "http.redirect")
    assert shop.other.seen == []
    run = await shop.run("/redirect?is=308&to=/echo", method="POST", body="x")
    assert run.state is RunState.SUCCEEDED, run.state_reason
    assert [(seen.method, seen.body) for seen in shop.server.seen[-2:]] == [("POST", b"x")] * 2


async def test_a_cancel_while_it_lasts_leaves_open_what_happened(shop: Shop) -> None:
    def hold_on(_: Seen) -> bytes:
        shop.server.stopped.wait(1.0)
        return answer(200)

    shop.server.answers["slow"] = hold_on
    ask = Ask(action="http.request", confirmed=True, args={"url": f"{shop.server.url}/slow", "method": "POST"})
    ask = ask.model_copy(update={"args": {**ask.args, "destination": "billing"}})
    run = await shop.engine.door.submit(CLAUDE, ask)
    assert isinstance(run, Run)
    while not shop.server.seen:
        await shop.engine.door.wait(run.number, 0.05)
    await shop.engine.interventions.cancel(ALICE, run.number, None)
    assert (await shop.engine.rest(run.number)).state is RunState.UNRESOLVED
