"""nginx as the data plane: shares, users who stay, testers, copies, fallbacks, reloads, and what its log says."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.stand_in_service import Answer, StandIn, ask, free_port, stand_in, until
from interlock.adapters.keeper import OwnKeeper
from interlock.adapters.nginx import OneNginx
from interlock.adapters.nginx_hosts import IncludedNginx, OwnNginx
from interlock.adapters.nginx_processes import master_of
from interlock.bootstrap.kept import own_keeper
from interlock.core.assignment import arm_of, unit_hash
from interlock.core.errors import Conflict, InterlockError, Permanent, Transient
from interlock.core.traffic import CREDENTIAL_HEADERS, WHOLE, Arm, Mirror, Routing, Sample, Sticky, TrafficLog
from interlock.lib.clock import SystemClock

PROGRAM = shutil.which("nginx", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs nginx: apt-get install nginx-light")
QUICK_CLOSING_SECONDS = 0.05


class Site(NamedTuple):
    """A proxy, two versions of a service, and a comparator."""

    proxy: OneNginx
    keeper: OwnKeeper
    folder: Path
    port: int
    one: StandIn
    two: StandIn
    comparator: StandIn

    def routing(self, share: int, **settings: Any) -> Routing:
        """The candidate, `v2.0`, gets this share."""
        arms = (
            Arm(name="v1.0", address=self.one.address, share=WHOLE - share),
            Arm(name="v2.0", address=self.two.address, share=share),
        )
        return Routing(workload="web", listen=f"127.0.0.1:{self.port}", arms=arms, **settings)

    def alone(self, arm: str = "v1.0", **settings: Any) -> Routing:
        address = self.one.address if arm == "v1.0" else self.two.address
        arms = (Arm(name=arm, address=address, share=WHOLE),)
        return Routing(workload="web", listen=f"127.0.0.1:{self.port}", arms=arms, **settings)

    def ask(self, path: str = "/", method: str = "GET", **headers: Any) -> Answer:
        return ask(self.port, path, method, **headers)

    def candidate_user(self, routing: Routing) -> str:
        """The cookie of somebody who has the candidate."""
        unit = next(str(n) for n in range(10_000) if arm_of(routing, str(n)) == "v2.0")
        return f"interlock-unit={unit}"

    @property
    def master(self) -> int:
        found = self.proxy._host.master()
        assert found is not None
        return found.pid


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name,
        stand_in("v1.0") as one,
        stand_in("v2.0") as two,
        stand_in("comparator") as comparator,
    ):
        folder = Path(name)
        keeper = own_keeper(folder, SystemClock())
        host = OwnNginx(folder / "traffic" / "nginx", keeper, lambda: PROGRAM)
        proxy = OneNginx(host, closing_seconds=QUICK_CLOSING_SECONDS)
        yield Site(proxy, keeper, folder, free_port(), one, two, comparator)
        for state in keeper.states():
            keeper.stop(state.process.name)


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """Both versions are well, and nobody has seen anything."""
    yield running
    for service in (running.one, running.two, running.comparator):
        service.status, service.drops = 200, False
        service.release.clear()
        service.seen.clear()


class Watch(NamedTuple):
    """What happens from now on."""

    log: TrafficLog
    since_seconds: float

    def samples(self, count: int) -> list[Sample]:
        """So many of them, at least."""
        found: list[Sample] = []

        def enough() -> bool:
            found.extend(each for each in self.log.read(1 << 20) if each.at_seconds >= self.since_seconds - 0.001)
            return len(found) >= count

        until(enough)
        return found


@pytest.fixture
def watch(site: Site) -> Iterator[Watch]:
    site.proxy.apply(site.routing(0))
    log = site.proxy.log("web", from_end=True)
    yield Watch(log, time.time())
    assert log.unreadable == 0
    log.close()


@contextmanager
def keep_alive_load(port: int, clients: int = 4) -> Iterator[Counter[str]]:
    """Clients that each use one connection for as long as it is kept, and never ask twice for the same answer."""
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not ended.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                seen[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[type(error).__name__] += 1
                connection.close()
            ended.wait(0.002)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: seen["200"] > clients)
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


# Who gets which version.


def test_everybody_has_the_version_that_the_hash_says(site: Site) -> None:
    for share in (500, 2500, 5000, 33, WHOLE, 0):
        routing = site.routing(share, salt="r1")
        site.proxy.apply(routing)
        for n in range(60):
            assert site.ask(cookie=f"a=b; interlock-unit=u{n}; c=d").version == arm_of(routing, f"u{n}")


def test_over_a_ramp_and_back_nobody_drifts(site: Site) -> None:
    site.proxy.apply(site.routing(0, salt="ramp"))
    cookies = [site.ask().cookie for _ in range(60)]
    assert all(cookie.startswith("interlock-unit=") for cookie in cookies)
    assert len({*cookies}) == 60
    seen = []
    for share in (0, 500, 2500, 5000, WHOLE, 5000, 2500, 500, 0):
        site.proxy.apply(site.routing(share, salt="ramp"))
        seen.append([site.ask(cookie=cookie).version == "v2.0" for cookie in cookies])
    assert seen == seen[::-1]
    for smaller, larger in pairwise(seen[:5]):
        assert all(after or not before for before, after in zip(smaller, larger, strict=True))
    assert not any(seen[0])
    assert all(seen[4])
    assert 0 < sum(seen[3]) < 60


def test_a_new_user_gets_a_cookie_that_scripts_cannot_read_and_keeps_the_version_he_got(site: Site) -> None:
    site.proxy.apply(site.routing(5000))
    for _ in range(30):
        first = site.ask()
        assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= {*first.headers["Set-Cookie"].split("; ")}
        again = site.ask(cookie=first.cookie)
        assert (again.version, again.cookie) == (first.version, "")
    assert "; Secure" in site.ask(x_forwarded_proto="https").headers["Set-Cookie"]


def test_users_are_known_by_a_header_or_by_their_address(site: Site) -> None:
    by_header = site.routing(5000, sticky=Sticky(header="X-User-Id"))
    site.proxy.apply(by_header)
    for n in range(30):
        answer = site.ask(X_User_Id=f"user{n}")
        assert (answer.version, answer.cookie) == (arm_of(by_header, f"user{n}"), "")
    by_address = site.routing(5000, sticky=Sticky(address=True))
    site.proxy.apply(by_address)
    for n in range(30):
        assert site.ask(x_forwarded_for=f"198.51.100.{n}").version == arm_of(by_address, f"198.51.100.{n}")


def test_testers_get_the_version_they_name_whatever_its_share(site: Site) -> None:
    site.proxy.apply(site.routing(0, testers="x-interlock-version", fallback=True))
    named = ("v1.0", "v2.0", "v2x0", "V2.0", "v3")
    assert [site.ask(x_interlock_version=name).version for name in named] == ["v1.0", "v2.0", "v1.0", "v1.0", "v1.0"]


def test_four_arms_lie_one_after_the_other(site: Site) -> None:
    with stand_in("v3.0") as three, stand_in("v4.0") as four:
        parts = ((site.one, 4000), (site.two, 3000), (three, 2000), (four, 1000))
        arms = tuple(Arm(name=service.name, address=service.address, share=share) for service, share in parts)
        routing = Routing(workload="web", listen=f"127.0.0.1:{site.port}", arms=arms)
        site.proxy.apply(routing)
        for n in range(80):
            assert site.ask(cookie=f"interlock-unit=u{n}").version == arm_of(routing, f"u{n}")


def test_a_request_arrives_as_it_was_sent(site: Site) -> None:
    site.proxy.apply(site.alone())
    path = "/a%2Fb//c/../d?x=%20&y=;z#"
    answer = site.ask(path, "POST", body="x" * 3_000_000, under_score="kept", host="shop.example", x_shadow="1")
    method, seen, headers = site.one.seen[-1]
    assert (answer.status, method, seen) == (200, "POST", path)
    assert (headers["host"], headers["content-length"]) == ("shop.example", "3000000")
    assert "x-shadow" not in headers
    assert headers["x-forwarded-for"] == "127.0.0.1"


# Changes.


def test_what_is_acknowledged_is_in_force_for_the_next_request(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    for n in range(40):
        share = WHOLE * (n % 2)
        applied = site.proxy.apply(site.routing(share))
        assert site.ask().version == ("v2.0" if share else "v1.0")
        assert applied.seconds < 0.5
        assert site.proxy.current("web") == applied.routing == site.routing(share)


def test_shares_change_without_a_reload_and_without_a_failed_request(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    workers = site.proxy._host.workers()
    with keep_alive_load(site.port) as seen:
        for n in range(101):
            site.proxy.apply(site.routing(100 * n))
    assert site.proxy._host.workers() == workers
    assert {*seen} == {"200"}


def test_reloads_fail_no_request_of_clients_that_keep_their_connections(site: Site) -> None:
    site.proxy.apply(site.routing(5000))
    with keep_alive_load(site.port) as seen:
        for n in range(12):
            site.proxy.apply(site.routing(5000, timeout_seconds=20 + n))
    assert {*seen} == {"200"}


def test_taking_the_candidate_out_counts_at_once_though_it_takes_a_reload(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE, mirror=Mirror(address=site.comparator.address, share=100)))
    slow = OneNginx(site.proxy._host, closing_seconds=0.6)
    went_back: list[float] = []
    begun = time.monotonic()
    thread = threading.Thread(target=slow.apply, args=(site.alone(),))
    thread.start()
    until(lambda: site.ask().version == "v1.0")
    went_back.append(time.monotonic() - begun)
    thread.join()
    assert went_back[0] < 0.5
    assert time.monotonic() - begun > 0.6
    assert {site.ask().version for _ in range(20)} == {"v1.0"}
    assert site.proxy.current("web") == site.alone()


def test_what_is_being_answered_is_finished_by_the_version_that_began(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(site.ask("/wait"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: site.proxy.in_flight("web", "v1.0") >= 5 and len(site.one.seen) >= 5)
    site.proxy.apply(site.alone("v2.0"))
    until(lambda: site.proxy.in_flight("web", "v1.0") == 5)
    assert site.ask().version == "v2.0"
    site.one.release.set()
    for thread in threads:
        thread.join()
    assert Counter(answer.version for answer in answers) == {"v1.0": 5}
    until(lambda: site.proxy.in_flight("web", "v1.0") == 0)


def test_what_nginx_does_not_want_is_told_in_its_words_and_nothing_changes(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE))
    arms = (site.routing(0).arms[0], Arm(name="v9", address="nowhere.invalid:80", share=0))
    with pytest.raises(Permanent, match="host not found in upstream") as caught:
        site.proxy.apply(site.routing(0).model_copy(update={"arms": arms}))
    assert caught.value.code == "traffic.refused"
    assert site.proxy.current("web") == site.routing(WHOLE)
    assert site.ask().version == "v2.0"
    site.proxy.ensure()
    assert site.ask().version == "v2.0"


def test_a_port_that_is_taken_is_refused_and_nothing_else_changes(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    arms = (Arm(name="v1.0", address=site.one.address, share=WHOLE),)
    other = Routing(workload="other", listen=site.comparator.address, arms=arms)
    with pytest.raises(Permanent, match=r"Address already in use|could not bind"):
        site.proxy.apply(other)
    assert site.proxy.current("other") is None
    with pytest.raises(Conflict) as twice:
        site.proxy.apply(other.model_copy(update={"listen": f"127.0.0.1:{site.port}"}))
    assert twice.value.code == "traffic.listen_taken"
    site.proxy.ensure()
    assert site.ask().version == "v1.0"


def test_a_first_workload_whose_port_is_taken_leaves_nothing_running(site: Site) -> None:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name:
        keeper = own_keeper(Path(name), SystemClock())
        proxy = OneNginx(OwnNginx(Path(name) / "nginx", keeper, lambda: PROGRAM))
        proxy.ensure()
        assert not keeper.states(), "without a routing there is nothing to run"
        arms = (Arm(name="v1.0", address=site.one.address, share=WHOLE),)
        taken = Routing(workload="web", listen=site.comparator.address, arms=arms)
        with pytest.raises(Permanent, match=r"Address already in use|could not bind"):
            proxy.apply(taken)
        assert proxy.current("web") is None
        assert not keeper.states()
        proxy.apply(taken.model_copy(update={"listen": f"127.0.0.1:{free_port()}"}))
        keeper.stop("nginx")


def test_without_nginx_it_is_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Permanent) as absent:
        OneNginx(OwnNginx(tmp_path / "nginx", site.keeper, lambda: None)).apply(site.alone())
    assert absent.value.code == "traffic.no_nginx"


def test_a_workload_is_forgotten_and_the_others_stay(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    port = free_port()
    arms = (Arm(name="a", address=site.two.address.replace("127.0.0.1", "localhost"), share=WHOLE),)
    site.proxy.apply(Routing(workload="other", listen=f"127.0.0.1:{port}", arms=arms))
    assert ask(port).version == "v2.0"
    site.proxy.forget("other")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    assert site.proxy.current("other") is None
    assert site.ask().version == "v1.0"
    site.proxy.forget("other")
    site.proxy.ensure()


# Disasters.


def test_a_master_that_is_killed_is_started_again_with_what_was_in_force(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE))
    before = site.master
    os.kill(before, signal.SIGKILL)
    begun = time.monotonic()
    until(lambda: (found := site.proxy._host.master()) is not None and found.pid != before)
    until(lambda: _answers(site))
    assert time.monotonic() - begun < 2
    assert site.ask().version == "v2.0"


def _answers(site: Site) -> bool:
    try:
        return site.ask().status == 200
    except OSError:
        return False


def test_workers_without_master_and_keeper_serve_on_take_new_shares_and_make_room(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    keeper = site.keeper._keeper_of("nginx")
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGKILL)
    os.kill(site.master, signal.SIGKILL)
    until(lambda: site.proxy._host.master() is None)
    assert site.ask().version == "v1.0"
    site.proxy.apply(site.routing(WHOLE))
    assert site.ask().version == "v2.0"
    site.proxy.ensure()
    assert site.master
    assert site.ask().version == "v2.0"
    site.proxy.apply(site.alone())
    assert site.ask().version == "v1.0"


def test_a_change_that_was_broken_off_before_the_reload_is_finished_by_the_next_look(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.proxy.apply(site.routing(0))

    def die(_master: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as failing:
        failing.setattr(site.proxy._host, "reload", die)
        with pytest.raises(KeyboardInterrupt):
            site.proxy.apply(site.routing(WHOLE, testers="x-tester"))
    assert site.ask(x_tester="v1.0").version == "v2.0"
    site.proxy.ensure()
    assert site.ask(x_tester="v1.0").version == "v1.0"


def test_shares_that_were_deleted_leave_everybody_with_the_stable_version(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE))
    shares = site.folder / "traffic" / "nginx" / "shares"
    shares.rename(shares.with_name("lost"))
    assert site.ask().version == "v1.0"
    with pytest.raises(Permanent) as caught:
        site.proxy.ensure()
    assert caught.value.code == "traffic.record"
    site.proxy.apply(site.routing(WHOLE))
    assert site.ask().version == "v2.0"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system with room for little; only root can have one."""
    folder.mkdir()
    mount = ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=256k,mode=711", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=10).returncode != 0:
        pytest.skip("needs root, and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(folder)], check=True, timeout=10)


def test_on_a_full_disk_users_go_back_and_what_cannot_be_written_is_said(site: Site) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name,
        small_disk(Path(name) / "disk") as disk,
    ):
        keeper = own_keeper(Path(name), SystemClock())
        proxy = OneNginx(OwnNginx(disk, keeper, lambda: PROGRAM))
        port = free_port()
        wanted = [site.routing(share).model_copy(update={"listen": f"127.0.0.1:{port}"}) for share in (2500, 0, 5000)]
        try:
            proxy.apply(wanted[0])
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while filler.write(b"x" * 4096):
                    pass
            for routing in (wanted[2], wanted[1]):
                with pytest.raises(Transient) as full:
                    proxy.apply(routing)
                assert full.value.code == "traffic.disk"
                assert proxy.current("web") == wanted[0]
            assert {ask(port).version for _ in range(40)} == {"v1.0"}, "to take away needs no room"
            (disk / "filler").unlink()
            proxy.apply(wanted[1])
            assert proxy.current("web") == wanted[1]
            proxy.apply(wanted[2])
            assert {ask(port).version for _ in range(60)} == {"v1.0", "v2.0"}
        finally:
            keeper.stop("nginx")


# Failures of the candidate.


def test_a_failing_candidate_is_covered_by_the_stable_version_and_blamed_for_it(site: Site, watch: Watch) -> None:
    site.proxy.apply(site.routing(WHOLE, fallback=True))
    site.two.status = 503
    answers = [site.ask() for _ in range(20)]
    assert {(answer.status, answer.version) for answer in answers} == {(200, "v1.0")}
    found = watch.samples(40)
    failed = [each for each in found if each.arm == "v2.0"]
    covered = [each for each in found if each.arm == "v1.0"]
    assert {each.status for each in failed} == {503}
    assert not any(each.fell_back for each in failed)
    assert len(failed) == len(covered) == 20
    assert all(each.fell_back and each.status == 200 for each in covered)
    assert {each.request for each in failed} == {each.request for each in covered}, "attempts of one request are joined"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_may_not_be_repeated_is_not_repeated(site: Site, method: str) -> None:
    site.proxy.apply(site.routing(WHOLE, fallback=True))
    site.two.status = 503
    assert site.ask("/orders", method, body="x").status in {501, 503}
    assert not site.one.seen


def test_a_tester_sees_what_the_candidate_says(site: Site) -> None:
    site.proxy.apply(site.routing(0, fallback=True, testers="x-interlock-version"))
    site.two.status = 500
    assert site.ask(x_interlock_version="v2.0").status == 500


def test_the_stable_version_is_not_asked_twice(site: Site) -> None:
    site.proxy.apply(site.routing(0, fallback=True))
    site.one.status = 503
    assert site.ask().status == 503
    assert len(site.one.seen) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_way_to_fail_is_told_apart_in_the_log(site: Site, watch: Watch, method: str) -> None:
    routing = site.routing(WHOLE, timeout_seconds=0.3)
    site.proxy.apply(routing)
    user = site.candidate_user(routing)
    site.two.status = 404
    site.ask(method=method, cookie=user)
    site.two.status, site.two.drops = 200, True
    site.ask(method=method, cookie=user)
    site.two.drops = False
    assert site.ask("/wait", method, cookie=user).status == 504
    with pytest.raises(TimeoutError):
        site.ask("/wait", method, cookie=user, timeout_seconds=0.1)
    found = watch.samples(4)
    shown = [(each.arm, each.status, each.client_left) for each in found]
    assert shown == [("v2.0", 404, False), ("v2.0", 0, False), ("v2.0", 0, False), ("v2.0", 0, True)]
    assert found[2].seconds == pytest.approx(0.3, abs=0.1)
    assert {each.unit for each in found} == {str(unit_hash("0", user.partition("=")[2]))}
    assert len({each.request for each in found}) == 4
    assert all(abs(each.at_seconds - time.time()) < 10 for each in found)


def test_a_candidate_that_is_gone_counts_as_failing(site: Site, watch: Watch) -> None:
    gone = Arm(name="v4.0", address=f"127.0.0.1:{free_port()}", share=WHOLE)
    arms = (Arm(name="v1.0", address=site.one.address, share=0), gone)
    site.proxy.apply(Routing(workload="web", listen=f"127.0.0.1:{site.port}", arms=arms))
    assert site.ask().status == 502
    (sample,) = watch.samples(1)
    assert (sample.arm, sample.status, sample.client_left) == ("v4.0", 0, False)


def test_what_a_user_writes_into_his_request_makes_no_line_of_its_own(site: Site, watch: Watch) -> None:
    site.proxy.apply(site.routing(0, sticky=Sticky(header="X-User-Id")))
    site.ask(X_User_Id='a\tb"\\ \x7f')
    (sample,) = watch.samples(1)
    assert (sample.arm, sample.status) == ("v1.0", 200)


def test_a_log_that_grew_too_long_is_begun_anew_and_no_line_is_lost(
    site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.adapters.nginx_hosts.LOG_BYTES_MAX", 1)
    for _ in range(5):
        site.ask()
    site.proxy.ensure()
    until(watch.log.path.exists)
    for _ in range(5):
        site.ask()
    assert len(watch.samples(10)) == 10
    assert watch.log.path.with_name("web.log.1").exists()


# Copies.


def test_copies_of_safe_requests_go_to_the_comparator_without_credentials(site: Site) -> None:
    site.proxy.apply(site.routing(0, mirror=Mirror(address=site.comparator.address, share=WHOLE)))
    secret = {name.replace("-", "_"): "secret" for name in CREDENTIAL_HEADERS}
    assert site.ask("/a?b=c", **{**secret, "x_other": "kept"}).version == "v1.0"
    method, path, headers = until(lambda: site.comparator.seen[:1])[0]
    assert (method, path, headers["x-shadow"], headers["x-other"]) == ("GET", "/a?b=c", "1", "kept")
    assert not {*headers} & {*CREDENTIAL_HEADERS}
    assert site.one.seen[-1][2]["authorization"] == "secret", "users keep theirs"
    assert site.one.seen[-1][2]["x-request-id"] == headers["x-request-id"]
    site.ask("/orders", "POST", body="x")
    site.ask("/b")
    until(lambda: len(site.comparator.seen) == 2)
    assert site.comparator.seen[1][1] == "/b"


def test_a_part_of_the_requests_is_copied(site: Site) -> None:
    site.proxy.apply(site.routing(0, mirror=Mirror(address=site.comparator.address, share=3000)))
    for _ in range(100):
        site.ask()
    site.proxy.apply(site.routing(0, mirror=Mirror(address=site.comparator.address, share=WHOLE)))
    site.ask("/last")
    until(lambda: any(path == "/last" for _, path, _ in site.comparator.seen))
    assert 10 <= len(site.comparator.seen) - 1 <= 55


def test_a_comparator_that_hangs_or_is_gone_is_not_noticed_by_users(site: Site) -> None:
    site.proxy.apply(site.routing(0, mirror=Mirror(address=site.comparator.address, share=WHOLE)))
    site.one.release.set()
    begun = time.monotonic()
    assert {site.ask("/wait").status for _ in range(100)} == {200}, "the comparator waits on; users do not"
    assert time.monotonic() - begun < 5
    workers = len(site.proxy._host.workers())
    assert len([1 for _, path, _ in site.comparator.seen if path == "/wait"]) <= 33 * workers
    gone = Mirror(address=f"127.0.0.1:{free_port()}", share=WHOLE)
    site.proxy.apply(site.routing(0, mirror=gone))
    assert {site.ask().status for _ in range(20)} == {200}


# An operator's own nginx.

OPERATORS = """
daemon on; pid {folder}/operator.pid; error_log {folder}/operator.error.log; worker_processes 2; {user}
events {{ worker_connections 256; }}
http {{
  client_body_temp_path {folder}/temporary; proxy_temp_path {folder}/temporary-proxy;
  fastcgi_temp_path {folder}/t1; uwsgi_temp_path {folder}/t2; scgi_temp_path {folder}/t3;
  access_log off;
  include {folder}/interlock/current/http.*;
  server {{
    listen 127.0.0.1:{port};
    add_header Strict-Transport-Security max-age=1000;
    location = /own {{ return 200 "the operator's"; }}
    {include}
  }}
}}
"""


def write_certificate(path: Path) -> None:
    """A key, and a certificate of its own making beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    unprotected = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, unprotected))
    path.with_name(f"{path.name}.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))


class Operator(NamedTuple):
    """His nginx, and ours to say what it shares."""

    proxy: OneNginx
    folder: Path
    port: int
    rewrite: Callable[[str], None]


@pytest.fixture
def operator() -> Iterator[Operator]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "interlock").mkdir(mode=0o755)
        configuration = folder / "nginx.conf"
        command = [str(PROGRAM), "-c", str(configuration)]

        def rewrite(include: str) -> None:
            user = "user nobody nogroup;" if os.geteuid() == 0 else ""
            configuration.write_text(OPERATORS.format(folder=folder, port=port, include=include, user=user))

        rewrite(f"include {folder}/interlock/current/web.*;")
        subprocess.run(command, check=True, timeout=20)
        until(lambda: (folder / "operator.pid").exists() and (folder / "operator.pid").read_text())
        yield Operator(
            OneNginx(IncludedNginx(folder / "interlock", command), closing_seconds=0.05), folder, port, rewrite
        )
        if (master := master_of(folder / "operator.pid")) is not None:
            os.kill(master.pid, signal.SIGTERM)
            until(lambda: master_of(folder / "operator.pid") is None)


def of_operator(site: Site, operator: Operator, share: int, **settings: Any) -> Routing:
    return site.routing(share, **settings).model_copy(update={"listen": f"127.0.0.1:{operator.port}"})


def test_an_operators_nginx_shares_what_it_includes_and_keeps_the_rest(site: Site, operator: Operator) -> None:
    pid = (operator.folder / "operator.pid").read_text()
    routing = of_operator(site, operator, 5000, salt="o")
    operator.proxy.apply(routing)
    log = operator.proxy.log("web", from_end=True)
    for n in range(30):
        answer = ask(operator.port, cookie=f"interlock-unit=u{n}")
        assert answer.version == arm_of(routing, f"u{n}")
        assert answer.headers["Strict-Transport-Security"] == "max-age=1000"
    assert ask(operator.port).cookie.startswith("interlock-unit=")
    assert len(until(lambda: log.read(1 << 20))) >= 30
    log.close()
    assert operator.proxy.current("web") == routing
    workers = operator.proxy._host.workers()
    operator.proxy.apply(of_operator(site, operator, WHOLE, salt="o"))
    assert operator.proxy._host.workers() == workers, "shares need no reload here either"
    assert {ask(operator.port).version for _ in range(10)} == {"v2.0"}
    connection = http.client.HTTPConnection("127.0.0.1", operator.port)
    connection.request("GET", "/own")
    assert connection.getresponse().read() == b"the operator's"
    connection.close()
    assert (operator.folder / "operator.pid").read_text() == pid
    operator.proxy.ensure()
    operator.proxy.forget("web")
    assert operator.proxy.current("web") is None


def test_an_operators_nginx_keeps_tls_and_copies_and_reloads_fail_nobody(site: Site, operator: Operator) -> None:
    key, port = operator.folder / "key.pem", free_port()
    write_certificate(key)
    include = f"include {operator.folder}/interlock/current/web.*;"
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {key}.crt; ssl_certificate_key {key};"
    operator.rewrite(f"{include} }} server {{ {tls} {include}")
    mirror = Mirror(address=site.comparator.address, share=WHOLE)
    operator.proxy.apply(of_operator(site, operator, WHOLE, mirror=mirror))
    context = ssl._create_unverified_context()  # noqa: S323 - made above
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    connection.request("GET", "/tls", headers={"authorization": "secret"})
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.getheader("x-version")) == (200, "v2.0")
    assert str(answer.getheader("set-cookie")).endswith("; Secure")
    assert site.two.seen[-1][2]["x-forwarded-proto"] == "https"
    connection.close()
    assert until(lambda: [headers for _, path, headers in site.comparator.seen if path == "/tls"])
    assert "authorization" not in site.comparator.seen[-1][2]
    with keep_alive_load(operator.port) as seen:
        for n in range(4):
            operator.proxy.apply(of_operator(site, operator, WHOLE, timeout_seconds=20 + n))
    assert {*seen} == {"200"}


def test_files_that_nobody_includes_are_no_change(site: Site, operator: Operator) -> None:
    operator.rewrite("")
    with pytest.raises(Permanent) as caught:
        operator.proxy.apply(of_operator(site, operator, 0))
    assert caught.value.code == "nginx.not_included"
    assert "current/web.*;" in str(caught.value.fix)
    assert operator.proxy.current("web") is None


def test_a_mistake_of_the_operators_is_told_in_nginxs_words(site: Site, operator: Operator) -> None:
    operator.proxy.apply(of_operator(site, operator, 0))
    operator.rewrite("nonsense;")
    with pytest.raises(Permanent, match='unknown directive "nonsense"'):
        operator.proxy.apply(of_operator(site, operator, 0, testers="x-tester"))
    assert operator.proxy.current("web") == of_operator(site, operator, 0)
    assert ask(operator.port).version == "v1.0"


def test_a_folder_that_workers_cannot_enter_is_refused(site: Site, operator: Operator) -> None:
    operator.folder.chmod(0o700)
    with pytest.raises(Permanent) as caught:
        operator.proxy.apply(of_operator(site, operator, 0))
    operator.folder.chmod(0o755)
    assert caught.value.code == "nginx.closed_folder"


def test_an_operators_nginx_that_does_not_run_is_not_started(site: Site, operator: Operator) -> None:
    routing = of_operator(site, operator, 0)
    operator.proxy.apply(routing)
    master = operator.proxy._host.master()
    assert master is not None
    os.kill(master.pid, signal.SIGQUIT)
    until(lambda: operator.proxy._host.master() is None)
    for attempt in (operator.proxy.ensure, lambda: operator.proxy.apply(of_operator(site, operator, 100))):
        with pytest.raises(Transient) as caught:
            attempt()
        assert isinstance(caught.value, InterlockError)
        assert caught.value.code == "traffic.proxy_silent"
    subprocess.run([str(PROGRAM), "-c", str(operator.folder / "nginx.conf")], check=True, timeout=20)
    until(lambda: operator.proxy._host.master() is not None)
    assert ask(operator.port).version == "v1.0"


def test_the_workers_of_roots_nginx_are_nobody(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    owners = {Path(f"/proc/{worker.pid}").stat().st_uid for worker in site.proxy._host.workers()}
    text = (site.folder / "traffic" / "nginx" / "nginx.conf").read_text()
    assert (os.geteuid() != 0) or 0 not in owners
    assert bool(re.search(r"^user nobody", text, re.MULTILINE)) == (os.geteuid() == 0)
