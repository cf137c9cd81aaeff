"""Envoy as the data plane: shares, users who stay, testers, copies, fallbacks, and what its log says of them."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.stand_in_service import Answer, StandIn, ask, free_port, stand_in, until
from interlock.adapters.envoy import EnvoyProxy
from interlock.bootstrap.kept import own_keeper
from interlock.core.assignment import arm_of, unit_hash
from interlock.core.errors import Conflict, Permanent
from interlock.core.traffic import CREDENTIAL_HEADERS, WHOLE, Arm, Mirror, Routing, Sample, Sticky, TrafficLog
from interlock.lib.clock import SystemClock


class Site(NamedTuple):
    """A proxy, two versions of a service, and a comparator."""

    proxy: EnvoyProxy
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

    def ask(self, path: str = "/", method: str = "GET", **headers: Any) -> Answer:
        return ask(self.port, path, method, **headers)

    def candidate_user(self, routing: Routing) -> str:
        """The cookie of somebody who has the candidate."""
        unit = next(str(n) for n in range(10_000) if arm_of(routing, str(n)) == "v2.0")
        return f"interlock-unit={unit}"


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
        proxy = EnvoyProxy(folder / "traffic", folder / "admin.sock", keeper)
        yield Site(proxy, folder, free_port(), one, two, comparator)
        proxy.close()
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
    """What happens from now on; lines of what happened before may be written a moment later."""

    log: TrafficLog
    since_seconds: float

    def samples(self, count: int) -> list[Sample]:
        """So many of them, at least."""
        found: list[Sample] = []

        def enough() -> bool:
            found.extend(each for each in self.log.read(1 << 20) if each.at_seconds >= self.since_seconds)
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


# Who gets which version.


def test_everybody_has_the_version_that_the_hash_says(site: Site) -> None:
    for share in (500, 2500, 5000, WHOLE, 0):
        routing = site.routing(share, salt=f"r{share}")
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
        assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= {*first.headers["set-cookie"].split("; ")}
        again = site.ask(cookie=first.cookie)
        assert (again.version, again.cookie) == (first.version, "")
    assert "; Secure" in site.ask(x_forwarded_for="9.9.9.9", x_forwarded_proto="https").headers["set-cookie"]


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


def test_what_a_client_says_of_its_place_on_the_line_does_not_count(site: Site) -> None:
    routing = site.routing(1)
    site.proxy.apply(routing)
    unit = next(str(n) for n in range(100) if arm_of(routing, str(n)) == "v1.0")
    assert site.ask(cookie=f"interlock-unit={unit}", x_interlock_unit="0").version == "v1.0"
    assert site.one.seen[-1][2]["x-interlock-unit"] == str(unit_hash("0", unit))


def test_a_client_cannot_steer_the_proxy(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    threading.Timer(0.2, site.one.release.set).start()
    assert site.ask("/wait", x_envoy_upstream_rq_timeout_ms="20").status == 200


def test_testers_get_the_version_they_name_whatever_its_share(site: Site) -> None:
    site.proxy.apply(site.routing(0, testers="x-interlock-version", fallback=True))
    assert [site.ask(x_interlock_version=name).version for name in ("v1.0", "v2.0", "v3")] == ["v1.0", "v2.0", "v1.0"]


def test_the_log_tells_who_chose_a_version_and_no_client_says_so_himself(site: Site, watch: Watch) -> None:
    site.proxy.apply(site.routing(0, testers="x-interlock-version"))
    for name in ("v2.0", "v1.0", "v3"):
        site.ask(x_interlock_version=name, x_interlock_chosen="chosen")
    found = sorted(watch.samples(3), key=lambda each: each.at_seconds)
    assert [(each.arm, each.chosen) for each in found] == [("v2.0", True), ("v1.0", True), ("v1.0", False)]


# Changes.


def test_what_is_acknowledged_is_in_force_for_the_next_request(site: Site) -> None:
    for n in range(20):
        share = WHOLE * (n % 2)
        applied = site.proxy.apply(site.routing(share))
        assert site.ask().version == ("v2.0" if share else "v1.0")
        assert applied.seconds < 1
        assert site.proxy.current("web") == applied.routing == site.routing(share)


@pytest.mark.parametrize("fallback", [False, True])
def test_what_is_being_answered_is_finished_by_the_version_that_began(site: Site, *, fallback: bool) -> None:
    site.proxy.apply(site.routing(0, fallback=fallback))
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(site.ask("/wait"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: site.proxy.in_flight("web", "v1.0") == 5)
    site.proxy.apply(site.routing(WHOLE, fallback=fallback))
    assert site.ask().version == "v2.0"
    assert site.proxy.in_flight("web", "v2.0") == 0
    threads.append(threading.Thread(target=lambda: answers.append(site.ask("/wait"))))
    threads[-1].start()
    until(lambda: site.proxy.in_flight("web", "v2.0") == 1)
    site.one.release.set()
    site.two.release.set()
    for thread in threads:
        thread.join()
    assert Counter(answer.version for answer in answers) == {"v1.0": 5, "v2.0": 1}
    until(lambda: site.proxy.in_flight("web", "v1.0") + site.proxy.in_flight("web", "v2.0") == 0)


def test_a_version_that_is_routed_no_more_still_finishes_what_it_began(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE))
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(site.ask("/wait")))
    thread.start()
    until(lambda: site.proxy.in_flight("web", "v2.0") == 1)
    alone = Routing(
        workload="web", listen=f"127.0.0.1:{site.port}", arms=(Arm(name="v1.0", address=site.one.address, share=WHOLE),)
    )
    site.proxy.apply(alone)
    site.proxy.ensure()
    assert site.ask().version == "v1.0"
    site.two.release.set()
    thread.join()
    assert [answer.version for answer in answers] == ["v2.0"]
    until(lambda: site.proxy.in_flight("web", "v2.0") == 0)
    site.proxy.ensure()
    assert "v2.0" not in site.proxy._folder.clusters.read_text()


def test_a_port_that_is_taken_is_refused_in_envoys_words_and_nothing_else_changes(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    taken = site.comparator.address
    other = Routing(workload="other", listen=taken, arms=(Arm(name="v1.0", address=site.one.address, share=WHOLE),))
    with pytest.raises(Permanent, match="Address already in use") as caught:
        site.proxy.apply(other)
    assert caught.value.code == "traffic.refused"
    assert site.proxy.current("other") is None
    with pytest.raises(Conflict) as twice:
        site.proxy.apply(other.model_copy(update={"listen": f"127.0.0.1:{site.port}"}))
    assert twice.value.code == "traffic.listen_taken"
    site.proxy.ensure()
    assert site.ask().version == "v1.0"


def test_a_workload_is_forgotten_and_the_others_stay(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    port = free_port()
    other = Routing(
        workload="other",
        listen=f"localhost:{port}",
        arms=(Arm(name="a", address=site.two.address.replace("127.0.0.1", "localhost"), share=WHOLE),),
    )
    site.proxy.apply(other)
    assert ask(port).version == "v2.0"
    site.proxy.forget("other")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    assert site.proxy.current("other") is None
    assert site.ask().version == "v1.0"
    site.proxy.forget("other")
    site.proxy.ensure()


# Failures of the candidate.


def test_a_failing_candidate_is_covered_by_the_stable_version_and_blamed_for_it(site: Site, watch: Watch) -> None:
    routing = site.routing(WHOLE, fallback=True)
    site.proxy.apply(routing)
    site.two.status = 503
    answers = [site.ask() for _ in range(20)]
    assert {(answer.status, answer.version) for answer in answers} == {(200, "v1.0")}
    found = watch.samples(25)
    failed = [each for each in found if each.arm == "v2.0"]
    covered = [each for each in found if each.arm == "v1.0"]
    assert {each.status for each in failed} == {503}
    assert not any(each.fell_back for each in failed)
    assert len(failed) >= 5
    assert len(covered) == 20
    assert all(each.fell_back and each.status == 200 for each in covered)
    assert {each.request for each in failed} <= {each.request for each in covered}, "attempts of one request are joined"


def test_what_may_not_be_repeated_is_not_repeated(site: Site) -> None:
    # Nobody remembers that the candidate of the test before failed: clusters are made anew for another address.
    with stand_in("v3.0") as fresh:
        arms = (
            Arm(name="v1.0", address=site.one.address, share=0),
            Arm(name="v3.0", address=fresh.address, share=WHOLE),
        )
        site.proxy.apply(Routing(workload="web", listen=f"127.0.0.1:{site.port}", arms=arms, fallback=True))
        fresh.status = 503
        statuses = [site.ask("/orders", "POST", body="x").status for _ in range(12)]
        assert statuses == [503] * 5 + [200] * 7, "five failures in a row; then nobody is sent there any more"
        assert len(fresh.seen) == 5


def test_without_fallback_users_see_what_the_candidate_says(site: Site) -> None:
    site.proxy.apply(site.routing(WHOLE))
    site.two.status = 500
    assert [site.ask().status for _ in range(8)] == [500] * 8


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
    arms = (
        Arm(name="v1.0", address=site.one.address, share=0),
        Arm(name="v4.0", address=f"127.0.0.1:{free_port()}", share=WHOLE),
    )
    site.proxy.apply(Routing(workload="web", listen=f"127.0.0.1:{site.port}", arms=arms))
    assert site.ask().status == 503
    (sample,) = watch.samples(1)
    assert (sample.arm, sample.status, sample.client_left) == ("v4.0", 0, False)


# Copies.


def test_copies_of_safe_requests_go_to_the_comparator_without_credentials(site: Site) -> None:
    site.proxy.apply(site.routing(0, mirror=Mirror(address=site.comparator.address, share=WHOLE)))
    secret = {name.replace("-", "_"): "secret" for name in CREDENTIAL_HEADERS}
    assert site.ask("/a?b=c", **{**secret, "x_other": "kept"}).version == "v1.0"
    method, path, headers = until(lambda: site.comparator.seen[:1])[0]
    assert (method, path, headers["x-shadow"], headers["x-other"]) == ("GET", "/a?b=c", "1", "kept")
    assert not {*headers} & {*CREDENTIAL_HEADERS}
    assert site.one.seen[-1][2]["authorization"] == "secret", "users keep theirs"
    assert site.one.seen[-1][2]["x-interlock-request"] == headers["x-interlock-request"]
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
    begun = time.monotonic()
    assert {site.ask("/wait-not").status for _ in range(10)} == {200}
    site.one.release.set()
    assert {site.ask("/wait").status for _ in range(100)} == {200}, "the comparator waits on; users do not"
    assert time.monotonic() - begun < 5
    assert len([1 for _, path, _ in site.comparator.seen if path == "/wait"]) <= 33
    gone = Mirror(address=f"127.0.0.1:{free_port()}", share=WHOLE)
    site.proxy.apply(site.routing(0, mirror=gone))
    assert {site.ask().status for _ in range(20)} == {200}
