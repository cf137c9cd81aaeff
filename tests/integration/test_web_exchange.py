"""HTTP services as they are met: honest, slow, broken, hostile ones, and names that lead astray."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.resident import Resident
from harness.web_server import WebServer, make_certificate, web_server
from interlock.adapters.secret_files import SecretFiles
from interlock.adapters.web import OutsideWeb
from interlock.core.errors import Denied, Invalid, Permanent, Transient
from interlock.core.web import WebAnswer, WebRequest

until = Resident.until


class Caller:
    """Our adapter with a resolver of the test's own, which counts how often it is asked."""

    def __init__(self, credentials: Path) -> None:
        self.credentials = credentials
        self.names: dict[str, Sequence[str]] = {}
        self.asked: list[str] = []
        self.held = 0
        self.web = OutsideWeb(SecretFiles(credentials), self._resolve)

    def _resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError(host)
        return self.names[host]

    def hold(self) -> None:
        self.held += 1

    def secret(self, text: str) -> str:
        path = self.credentials / "billing"
        path.write_text(text)
        path.chmod(0o600)
        return "credential:billing"

    def exchange(self, url: str, **fields: Any) -> WebAnswer:
        hold, cancelled = fields.pop("hold", self.hold), fields.pop("cancelled", lambda: False)
        given = {
            "method": "GET",
            "private": True,
            "timeout_seconds": 5.0,
            "connect_timeout_seconds": 2.0,
            "response_bytes_max": 10_000,
            "credential_header": "Authorization: Bearer {secret}",
            **fields,
        }
        return self.web.exchange(WebRequest(url=url, **given), hold=hold, cancelled=cancelled)


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    found = Caller(tmp_path)
    found.names["127.0.0.1"] = ("127.0.0.1",)
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebServer, str]]:
    """A server that proves to be api.test, and the certificates to trust."""
    authority, context = make_certificate(tmp_path_factory.mktemp("tls"), "api.test")
    with web_server(context) as running:
        yield running, str(authority)


def test_what_is_sent_is_what_was_said_and_nothing_of_the_environment(
    caller: Caller, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answer = caller.exchange(f"{server.url}/echo?a=b", method="POST", body=b"hi", headers=(("x-request-id", "7"),))
    said = json.loads(answer.body)
    assert (answer.status, answer.address, caller.held) == (200, "127.0.0.1", 1)
    assert (said["method"], said["target"], said["body"]) == ("POST", "/echo?a=b", "hi")
    assert said["headers"] == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "user-agent": "interlock",
        "connection": "close",
        "x-request-id": "7",
        "content-length": "2",
    }


def test_a_head_has_no_body(caller: Caller, server: WebServer) -> None:
    assert caller.exchange(f"{server.url}/echo", method="HEAD").body == b""


# Addresses.


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("::ffff:127.0.0.1",), ("169.254.169.254",), ("::",)]
)
def test_a_name_that_leads_inside_is_not_called_even_once(
    caller: Caller, server: WebServer, addresses: tuple[str, ...]
) -> None:
    caller.names["public.test"] = addresses
    before = len(server.seen)
    with pytest.raises(Denied) as caught:
        caller.exchange(f"http://public.test:{server.port}/echo", private=False)
    assert caught.value.code == "http.address"
    assert (caller.held, len(server.seen)) == (0, before)


def test_metadata_is_not_called_because_a_private_network_was_declared(caller: Caller) -> None:
    caller.names["inside.test"] = ("169.254.169.254",)
    with pytest.raises(Denied):
        caller.exchange("http://inside.test/latest/meta-data/")


def test_a_name_that_changes_its_mind_is_asked_once_and_called_where_it_was_looked_at(
    caller: Caller, server: WebServer
) -> None:
    """DNS rebinding: the second answer would be another machine."""
    with web_server(host="127.0.0.2") as other:
        answers = iter([("127.0.0.1",), ("127.0.0.2",)])
        web = OutsideWeb(SecretFiles(caller.credentials), lambda host, port: next(answers))
        request = WebRequest(
            method="GET",
            url=f"http://rebind.test:{server.port}/echo",
            private=True,
            timeout_seconds=5,
            connect_timeout_seconds=2,
            response_bytes_max=1000,
        )
        answer = web.exchange(request, hold=lambda: None, cancelled=lambda: False)
        assert answer.address == "127.0.0.1"
        assert json.loads(answer.body)["headers"]["host"] == f"rebind.test:{server.port}"
        assert next(answers) == ("127.0.0.2",), "it was asked once"
        assert other.seen == []


def test_the_next_address_is_tried_when_one_takes_no_connection(caller: Caller, server: WebServer) -> None:
    caller.names["two.test"] = ("127.0.0.3", "127.0.0.1")
    assert caller.exchange(f"http://two.test:{server.port}/echo").address == "127.0.0.1"


def test_what_cannot_be_reached_had_no_effect(caller: Caller) -> None:
    with web_server() as gone:
        url = gone.url
    for address, code in ((f"{url}/echo", "http.unreachable"), ("http://nobody.test/", "http.unresolved")):
        with pytest.raises(Transient) as caught:
            caller.exchange(address, method="POST")
        assert (caught.value.code, caught.value.effect_sent) == (code, False)
    assert caller.held == 0


# TLS.


def test_a_server_proves_its_name_although_it_is_called_by_address(caller: Caller, tls: tuple[WebServer, str]) -> None:
    server, authority = tls
    caller.names["api.test"] = ("127.0.0.1",)
    answer = caller.exchange(f"https://api.test:{server.port}/echo", certificate_authority=authority)
    assert json.loads(answer.body)["headers"]["host"] == f"api.test:{server.port}"


def test_a_server_that_proves_another_name_is_told_nothing(caller: Caller, tls: tuple[WebServer, str]) -> None:
    server, authority = tls
    caller.names["other.test"] = caller.names["api.test"] = ("127.0.0.1",)
    before = len(server.seen)
    for url, trusted in (("https://other.test", authority), ("https://api.test", None)):
        with pytest.raises(Denied) as caught:
            caller.exchange(f"{url}:{server.port}/echo", method="POST", body=b"x", certificate_authority=trusted)
        assert caught.value.code == "http.certificate"
    assert (len(server.seen), caller.held) == (before, 0)


def test_what_speaks_no_tls_had_no_effect(caller: Caller, server: WebServer) -> None:
    with pytest.raises(Transient) as caught:
        caller.exchange(f"https://127.0.0.1:{server.port}/echo", method="POST")
    assert caught.value.effect_sent is False


def test_no_session_key_is_written_where_the_environment_says(
    caller: Caller, tls: tuple[WebServer, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, authority = tls
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert ssl.create_default_context().keylog_filename == str(tmp_path / "keys")
    (tmp_path / "keys").unlink(missing_ok=True)
    caller.names["api.test"] = ("127.0.0.1",)
    caller.exchange(f"https://api.test:{server.port}/echo", certificate_authority=authority)
    assert not (tmp_path / "keys").exists()


# Secrets.


def test_a_credential_is_sent_and_blotted_out_of_what_comes_back(caller: Caller, server: WebServer) -> None:
    answer = caller.exchange(f"{server.url}/credential", credential=caller.secret("s3cr3t-of-billing\n"))
    assert server.seen[-1].headers["authorization"] == "Bearer s3cr3t-of-billing"
    assert answer.body == b"you are Bearer [redacted]!"
    assert "s3cr3t" not in repr(answer)


@pytest.mark.parametrize("bytes_max", range(8, 30))
def test_no_part_of_a_credential_is_left_on_the_edge(caller: Caller, server: WebServer, bytes_max: int) -> None:
    reference = caller.secret("s3cr3t-of-billing")
    answer = caller.exchange(f"{server.url}/credential", credential=reference, response_bytes_max=bytes_max)
    assert len(answer.body) <= bytes_max
    assert b"s3" not in answer.body


def test_a_secret_that_would_end_its_header_is_not_sent(caller: Caller, server: WebServer) -> None:
    before = len(server.seen)
    with pytest.raises(Invalid):
        caller.exchange(f"{server.url}/credential", credential=caller.secret("x\r\nHost: evil"))
    assert len(server.seen) == before


# Bounds.


def test_a_bomb_goes_off_a_spoonful_at_a_time(caller: Caller, server: WebServer) -> None:
    began = time.monotonic()
    answer = caller.exchange(f"{server.url}/bomb", response_bytes_max=20_000)
    assert (len(answer.body), answer.truncated) == (20_000, True)
    assert time.monotonic() - began < 4.0


def test_a_flood_is_cut(caller: Caller, server: WebServer) -> None:
    answer = caller.exchange(f"{server.url}/flood")
    assert (len(answer.body), answer.truncated) == (10_000, True)


def test_what_is_packed_is_unpacked_or_said_to_be_unreadable(caller: Caller, server: WebServer) -> None:
    assert caller.exchange(f"{server.url}/packed").body == b"packed well"
    assert "nobody asked for" in (caller.exchange(f"{server.url}/packed?as=br").unreadable or "")
    assert "is not" in (caller.exchange(f"{server.url}/packed?as=br&say=gzip").unreadable or "")


@pytest.mark.parametrize("path", ["hang", "trickle", "trickled_head"])
def test_whoever_is_slow_has_one_deadline(caller: Caller, server: WebServer, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(Transient) as caught:
        caller.exchange(f"{server.url}/{path}", method="POST", timeout_seconds=0.6, response_bytes_max=1_000_000)
    assert (caught.value.code, caught.value.effect_sent) == ("http.timed_out", True)
    assert 0.5 < time.monotonic() - began < 3.0


@pytest.mark.parametrize("path", ["half", "gone"])
def test_whoever_hangs_up_leaves_open_what_happened(caller: Caller, server: WebServer, path: str) -> None:
    with pytest.raises(Transient) as caught:
        caller.exchange(f"{server.url}/{path}", method="POST")
    assert (caught.value.code, caught.value.effect_sent) == ("http.gone", True)


@pytest.mark.parametrize("path", ["garbage", "headers?many=201"])
def test_an_answer_that_is_none_is_permanent(caller: Caller, server: WebServer, path: str) -> None:
    with pytest.raises(Permanent) as caught:
        caller.exchange(f"{server.url}/{path}")
    assert caught.value.code == "http.garbage"
    assert "}}}" not in caught.value.message


def test_a_cancel_ends_the_wait(caller: Caller, server: WebServer) -> None:
    cancelled = threading.Event()
    before = server.count("hang")

    def cancel() -> None:
        until(lambda: server.count("hang") > before)
        cancelled.set()

    threading.Thread(target=cancel).start()
    with pytest.raises(Transient) as caught:
        caller.exchange(f"{server.url}/hang", cancelled=cancelled.is_set)
    assert (caught.value.code, caught.value.effect_sent) == ("run.cancelled", True)


def test_whoever_lost_the_run_sends_nothing(caller: Caller, server: WebServer) -> None:
    before = len(server.seen)

    def lost() -> None:
        msg = "lost"
        raise Transient(msg, effect_sent=False)

    hold: Callable[[], None] = lost
    with pytest.raises(Transient, match="lost") as caught:
        caller.exchange(f"{server.url}/echo", method="POST", body=b"x", hold=hold)
    assert caught.value.effect_sent is False
    assert len(server.seen) == before
