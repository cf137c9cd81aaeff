"""nginx as the data plane: shares, users who stay, testers, copies, fallbacks, and what its log says."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from harness.nginx_site import Site, Watch, open_site, without_nginx
from harness.stand_in_service import free_port, stand_in, until
from interlock.core.assignment import arm_of, unit_hash
from interlock.core.traffic import CREDENTIAL_HEADERS, WHOLE, Arm, Mirror, Routing, Sticky, TrafficLog

pytestmark = without_nginx


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.calm()


@pytest.fixture
def watch(site: Site) -> Iterator[Watch]:
    site.proxy.apply(site.routing(0))
    log = site.proxy.log("web", from_end=True)
    yield Watch(log, time.time())
    assert log.unreadable == 0
    log.close()


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


def test_the_log_tells_who_chose_a_version_and_no_client_says_so_himself(site: Site, watch: Watch) -> None:
    site.proxy.apply(site.routing(0, testers="x-interlock-version"))
    for name in ("v2.0", "v1.0", "v3"):
        site.ask(x_interlock_version=name, x_interlock_chosen="chosen")
    found = sorted(watch.samples(3), key=lambda each: each.at_seconds)
    assert [(each.arm, each.chosen) for each in found] == [("v2.0", True), ("v1.0", True), ("v1.0", False)]


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


@pytest.mark.parametrize("beside", [False, True])
def test_a_log_that_somebody_took_away_is_begun_anew(site: Site, *, beside: bool) -> None:
    site.proxy.apply(site.routing(0))
    path = site.proxy._log_path("web")
    path.rename(path.with_name("taken.log"))
    if beside:
        path.touch()
    site.proxy.ensure()
    log = site.proxy.log("web", from_end=False)
    until(lambda: _is_logged(site, log))
    log.close()


def _is_logged(site: Site, log: TrafficLog) -> bool:
    site.ask()
    return len(log.read(1 << 20)) > 0


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


def test_the_workers_of_roots_nginx_are_nobody(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    owners = {Path(f"/proc/{worker.pid}").stat().st_uid for worker in site.proxy._host.workers()}
    text = (site.folder / "traffic" / "nginx" / "nginx.conf").read_text()
    assert (os.geteuid() != 0) or 0 not in owners
    assert bool(re.search(r"^user nobody", text, re.MULTILINE)) == (os.geteuid() == 0)
