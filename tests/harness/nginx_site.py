"""A real nginx with two versions of a service and a comparator behind it, and clients that keep their connections."""

from __future__ import annotations

import http.client
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.stand_in_service import Answer, StandIn, ask, free_port, stand_in, until
from interlock.adapters.keeper import OwnKeeper
from interlock.adapters.nginx import PLACES, OneNginx
from interlock.adapters.nginx_hosts import OwnNginx
from interlock.bootstrap.kept import own_keeper
from interlock.core.assignment import arm_of
from interlock.core.traffic import WHOLE, Arm, Routing, Sample, TrafficLog
from interlock.lib.clock import SystemClock

PROGRAM = shutil.which("nginx", path=PLACES)
without_nginx = pytest.mark.skipif(PROGRAM is None, reason="needs nginx: apt-get install nginx-light")
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

    def calm(self) -> None:
        """Both versions are well, and nobody has seen anything."""
        for service in (self.one, self.two, self.comparator):
            service.status, service.drops = 200, False
            service.release.clear()
            service.seen.clear()


@contextmanager
def open_site() -> Iterator[Site]:
    """All of it, running."""
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
        try:
            yield Site(proxy, keeper, folder, free_port(), one, two, comparator)
        finally:
            for state in keeper.states():
                keeper.stop(state.process.name)


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
