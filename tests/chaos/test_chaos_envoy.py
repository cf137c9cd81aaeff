"""Envoy and its keeper are killed and stopped, and the disk is full: users are served again, as they were before."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.kept import end_kept
from harness.stand_in_service import StandIn, ask, free_port, stand_in, until
from interlock.adapters.envoy import EnvoyProxy
from interlock.adapters.keeper import OwnKeeper
from interlock.bootstrap.kept import own_keeper
from interlock.core.assignment import arm_of
from interlock.core.errors import InterlockError, Transient
from interlock.core.traffic import WHOLE, Arm, Routing
from interlock.lib.clock import SystemClock

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

BACK_SECONDS = 1.0
NOBODY = 2**22 + 1  # above pid_max


class Place(NamedTuple):
    """A proxy with two versions behind it, of which each has half of the users."""

    folder: Path
    keeper: OwnKeeper
    proxy: EnvoyProxy
    port: int
    one: StandIn
    two: StandIn

    def routing(self, share: int = 5000) -> Routing:
        arms = (
            Arm(name="v1", address=self.one.address, share=WHOLE - share),
            Arm(name="v2", address=self.two.address, share=share),
        )
        return Routing(workload="web", listen=f"127.0.0.1:{self.port}", arms=arms)

    @property
    def pid(self) -> int:
        (state,) = self.keeper.states()
        assert state.pid is not None
        return state.pid

    def require_in_force(self, share: int) -> None:
        """Everybody has the version that this share gives him."""
        routing = self.routing(share)
        assert self.proxy.current("web") == routing
        for n in range(40):
            assert ask(self.port, cookie=f"interlock-unit={n}").version == arm_of(routing, str(n))


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Place]:
    with stand_in("v1") as one, stand_in("v2") as two:
        keeper = own_keeper(folder, SystemClock())
        proxy = EnvoyProxy(folder / "traffic" / "envoy", folder / "admin.sock", keeper)
        place = Place(folder, keeper, proxy, free_port(), one, two)
        try:
            proxy.apply(place.routing())
            yield place
        finally:
            end_kept(folder)


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder, opened(Path(folder)) as found:
        yield found


def served_again(place: Place, since: float) -> float:
    """Seconds until somebody is answered."""

    def answered() -> bool:
        try:
            return ask(place.port, timeout_seconds=1).status == 200
        except (OSError, http.client.HTTPException):
            return False

    until(answered)
    return time.monotonic() - since


def test_killed_again_and_again_it_serves_within_a_second_as_it_did(place: Place) -> None:
    for share in (5000, 500, 0, WHOLE):
        place.proxy.apply(place.routing(share))
        killed = time.monotonic()
        os.kill(place.pid, signal.SIGKILL)
        assert served_again(place, killed) < BACK_SECONDS
        place.require_in_force(share)
        place.proxy.ensure()


def test_killed_while_weights_change_it_has_the_last_one_that_was_acknowledged(place: Place) -> None:
    enough = threading.Event()

    def kill_now_and_then() -> None:
        for _ in range(5):
            if enough.wait(0.35):
                return
            (state,) = place.keeper.states()
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid or NOBODY, signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    acknowledged = 5000
    for n in range(60):
        share = 1000 + n * 100
        try:
            place.proxy.apply(place.routing(share))
            acknowledged = share
        except InterlockError:
            assert place.proxy.current("web") == place.routing(acknowledged)
        time.sleep(0.02)
    enough.set()
    killer.join()
    until(lambda: _ensured(place.proxy))
    assert acknowledged > 5000
    place.require_in_force(acknowledged)


def _ensured(proxy: EnvoyProxy) -> bool:
    try:
        proxy.ensure()
    except Transient:
        return False
    return True


def test_killed_with_its_keeper_it_comes_back_with_the_next_look(place: Place) -> None:
    keeper = place.keeper._keeper_of("envoy")
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGKILL)
    os.kill(place.pid, signal.SIGKILL)
    place.proxy.ensure()
    place.require_in_force(5000)


def test_while_it_hangs_nothing_is_changed_and_afterwards_everything_works(place: Place) -> None:
    pid = place.pid
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(Transient) as caught:
        place.proxy.apply(place.routing(WHOLE))
    assert time.monotonic() - begun < 20
    assert caught.value.code in {"traffic.proxy_silent", "traffic.unacknowledged"}
    with pytest.raises(Transient):
        place.proxy.in_flight("web", "v1")
    os.kill(pid, signal.SIGCONT)
    until(lambda: _ensured(place.proxy))
    place.require_in_force(5000)
    place.proxy.apply(place.routing(WHOLE))
    place.require_in_force(WHOLE)


def test_stopped_between_writing_and_acknowledging_it_stays_with_what_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, folder = place.pid, place.proxy._folder
    replace = folder.replace

    def stop_then_replace(path: Path, document: dict[str, object]) -> None:
        os.kill(pid, signal.SIGSTOP)
        replace(path, document)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "replace", stop_then_replace)
    with pytest.raises(Transient):
        place.proxy.apply(place.routing(WHOLE))
    monkeypatch.undo()
    os.kill(pid, signal.SIGCONT)
    until(lambda: _ensured(place.proxy))
    place.require_in_force(5000)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root mounts a small disk")
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False)
        if done.returncode != 0:
            pytest.skip("no file system can be mounted here")
        yield Path(folder)
        subprocess.run([umount, "--lazy", folder], check=True)


def test_a_full_disk_changes_nothing_and_users_go_on(small_disk: Path) -> None:
    with opened(small_disk) as place:
        filler = small_disk / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):
            while os.write(descriptor, b"x" * 4096):
                pass
        os.close(descriptor)
        with pytest.raises(Transient) as caught:
            place.proxy.apply(place.routing(WHOLE))
        assert caught.value.code == "traffic.disk"
        assert caught.value.effect_sent is False
        place.require_in_force(5000)
        place.proxy.ensure()
        os.kill(place.pid, signal.SIGKILL)
        assert served_again(place, time.monotonic()) < BACK_SECONDS
        place.require_in_force(5000)
        filler.unlink()
        place.proxy.apply(place.routing(WHOLE))
        place.require_in_force(WHOLE)
