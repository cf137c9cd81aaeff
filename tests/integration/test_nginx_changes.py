"""nginx as the data plane: changes that nobody notices, refusals that change nothing, and disasters."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.nginx_site import PROGRAM, Site, keep_alive_load, open_site, without_nginx
from harness.stand_in_service import Answer, ask, free_port, until
from interlock.adapters.nginx import OneNginx
from interlock.adapters.nginx_hosts import OwnNginx
from interlock.bootstrap.kept import own_keeper
from interlock.core.errors import Conflict, Permanent, Transient
from interlock.core.traffic import WHOLE, Arm, Mirror, Routing
from interlock.lib.clock import SystemClock

pytestmark = without_nginx


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.calm()


# Changes.


def test_what_is_acknowledged_is_in_force_for_the_next_request(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    for n in range(40):
        share = WHOLE * (n % 2)
        applied = site.proxy.apply(site.routing(share))
        assert site.ask().version == ("v2.0" if share else "v1.0")
        assert applied.seconds < 2
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
    slow = OneNginx(site.proxy._host, closing_seconds=1.5)
    thread = threading.Thread(target=slow.apply, args=(site.alone(),))
    thread.start()
    until(lambda: site.ask().version == "v1.0")
    assert thread.is_alive(), "the reload comes later"
    thread.join()
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


def test_it_ends_with_its_last_workload_after_what_is_in_flight(site: Site) -> None:
    site.proxy.apply(site.routing(0))
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(site.ask("/wait")))
    waiting.start()
    until(lambda: site.proxy.in_flight("web", "v1.0") == 1)
    threading.Timer(0.3, site.one.release.set).start()
    site.proxy.forget("web")
    waiting.join()
    assert [answer.status for answer in answers] == [200]
    assert site.keeper.states() == (), "nothing goes on that has nothing to serve"
    site.proxy.ensure()
    assert site.keeper.states() == ()
    with pytest.raises(ConnectionRefusedError):
        site.ask()
    site.proxy.apply(site.routing(WHOLE))
    assert site.ask().version == "v2.0"


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
