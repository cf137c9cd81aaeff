"""Claims: weights change under load without a failed request, within 10 ms; a killed proxy serves again within 1 s."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Result, figure
from bench.report import run
from bench.traffic_load import Seen, users, version
from interlock.adapters.envoy import NAME, EnvoyProxy
from interlock.adapters.envoy_log import EnvoyLog
from interlock.adapters.keeper import OwnKeeper
from interlock.bootstrap.outside import own_keeper
from interlock.core.traffic import WHOLE, Arm, Routing
from interlock.lib.clock import SystemClock

EFFECT_MS_MAX = 10.0
BACK_MS_MAX = 1000.0
LINE_MICROSECONDS_MAX = 2.0
CONNECTIONS = 8
PAUSE_SECONDS = 0.03
LINE = "A 1795198941.966253 v2 v2 200 144 0 - 1686733568 24081e88209 -\n"
LINES = 200_000
READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Site:
    """A proxy in front of version 1, the stable one, and version 2, the candidate."""

    folder: Path
    keeper: OwnKeeper
    proxy: EnvoyProxy
    port: int
    ports: tuple[int, int]
    candidate: subprocess.Popen[bytes]

    def routing(self, share: int) -> Routing:
        """The candidate has this share."""
        stable, candidate = (f"127.0.0.1:{port}" for port in self.ports)
        arms = (Arm(name="1", address=stable, share=WHOLE - share), Arm(name="2", address=candidate, share=share))
        return Routing(workload="web", listen=f"127.0.0.1:{self.port}", arms=arms)


@dataclass(frozen=True)
class Change:
    """One change of all users to the other version, by CLOCK_MONOTONIC."""

    begun: float
    acknowledged: float
    to: float


@contextlib.contextmanager
def traffic_site() -> Iterator[Site]:
    """Everything that is measured here; for other measurements as well."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name:  # sockets want short paths
        folder, ports = Path(name), (_free_port(), _free_port())
        keeper = own_keeper(folder, SystemClock())
        proxy = EnvoyProxy(folder / "traffic", folder / "admin.sock", keeper)
        with version(1, ports[0]), version(2, ports[1]) as candidate:
            site = Site(folder, keeper, proxy, _free_port(), ports, candidate)
            try:
                proxy.apply(site.routing(0))
                yield site
            finally:
                keeper.stop(NAME)


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Changes under load, what they cost users, and how fast it comes back; then the reader of the log by itself."""
    rounds, count = (2, 50) if quick else (5, 200)
    failed, first, last, acknowledged, rates, back = [], [], [], [], [], []
    with traffic_site() as site:
        for _ in range(rounds):
            changes, seen = _change_under_load(site, count)
            failed.append(float(sum(row.status != 200 for row in seen)))
            first.append(_median_ms(_first_with(change, seen) for change in changes))
            last.append(_median_ms(_last_without(change, seen) for change in changes))
            acknowledged.append(_median_ms(change.acknowledged - change.begun for change in changes))
            rates.append(len(seen) / (seen[-1].ended - seen[0].begun))
            back.append(_killed(site))
        lines = [_microseconds_a_line(site.folder / "bench.log") for _ in range(rounds)]
    return [
        Result(f"requests that failed over {count} changes of all users", "", tuple(failed), 0.0),
        Result("change of weights to the first user who has it, p50", "ms", tuple(first), EFFECT_MS_MAX),
        figure("change of weights to the last request sent by the old ones, p50", "ms", last),
        figure("change of weights to its acknowledgement, p50", "ms", acknowledged),
        figure("requests answered meanwhile", "1/s", rates),
        Result("kill -9 of the proxy to the next answer", "ms", tuple(back), BACK_MS_MAX),
        Result("reading a line of the proxy's log", "us", tuple(lines), LINE_MICROSECONDS_MAX),
    ]


def _change_under_load(site: Site, count: int) -> tuple[list[Change], list[Seen]]:
    """All users go to one version and to the other, again and again."""
    changes = []
    with users(site.port, CONNECTIONS, site.folder / "seen") as asking:
        time.sleep(0.2)
        for number in range(count):
            time.sleep(PAUSE_SECONDS)
            candidate = number % 2 == 0
            begun = time.monotonic()
            site.proxy.apply(site.routing(WHOLE if candidate else 0))
            changes.append(Change(begun, time.monotonic(), 2.0 if candidate else 1.0))
        time.sleep(PAUSE_SECONDS)
        seen = asking.stop()
    return changes, seen


def _first_with(change: Change, seen: list[Seen]) -> float:
    """Seconds until somebody has an answer of the new version."""
    return next(row.ended for row in seen if row.ended > change.begun and row.version == change.to) - change.begun


def _last_without(change: Change, seen: list[Seen]) -> float:
    """Seconds until the last request is begun that the old version answers, before the next change."""
    limit = change.acknowledged + PAUSE_SECONDS / 2
    old = [row.begun for row in seen if change.begun < row.begun < limit and row.version != change.to]
    return max(old, default=change.begun) - change.begun


def _killed(site: Site) -> float:
    """Milliseconds until somebody is answered."""
    state = site.keeper.state(NAME)
    if state is None or state.pid is None:
        msg = "the proxy does not run"
        raise RuntimeError(msg)
    begun = time.monotonic()
    os.kill(state.pid, signal.SIGKILL)
    while not _answered(site.port):
        time.sleep(0.002)
    taken = (time.monotonic() - begun) * 1000
    site.proxy.ensure()
    return taken


def _answered(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as channel:
            channel.sendall(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
            return channel.recv(16).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _microseconds_a_line(path: Path) -> float:
    path.write_text(LINE * LINES)
    log = EnvoyLog(path, from_end=False)
    begun = time.thread_time()
    count = 0
    while found := len(log.read(READ_BYTES)):
        count += found
    taken = time.thread_time() - begun
    log.close()
    return taken / count * 1e6


def _median_ms(seconds: Iterator[float]) -> float:
    return statistics.median(seconds) * 1000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(run((measure,)))
