"""Copies of real users' requests, from Envoy to the comparator under the keeper: users never notice any of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.kept import end_kept
from harness.shop_service import RunningShop, free_port, shop_service
from interlock.adapters.envoy import EnvoyProxy
from interlock.bootstrap.kept import own_keeper
from interlock.comparison.shadow import (
    ComparatorTask,
    ShadowSummary,
    comparator_process,
    read_summary,
    write_task,
)
from interlock.core.comparison import ComparisonRules, FieldRule
from interlock.core.traffic import WHOLE, Arm, Mirror, Routing
from interlock.lib.clock import SystemClock

RULES = ComparisonRules(
    rules=(FieldRule(path="$.served_at", grade="ignore", reason="a clock"),), key_fields=("$.price",)
)
PATIENCE_SECONDS = 20.0


class _Shadow:
    """An installation that mirrors everything."""

    def __init__(self, folder: Path, stable: RunningShop, candidate: RunningShop) -> None:
        self.folder = folder
        self.port = free_port()
        self.keeper = own_keeper(folder, SystemClock())
        self.task = ComparatorTask(
            release=1,
            workload="shop",
            listen=f"127.0.0.1:{free_port()}",
            stable=stable.address,
            stable_version="v1",
            candidate=candidate.address,
            candidate_version="v2",
            rules=RULES,
        )
        self.process = comparator_process(self.task, write_task(folder, self.task), sys.executable)
        self.keeper.ensure(self.process)
        EnvoyProxy(folder / "traffic" / "envoy", folder / "admin.sock", self.keeper).apply(
            Routing(
                workload="shop",
                listen=f"127.0.0.1:{self.port}",
                arms=(Arm(name="v1", address=stable.address, share=WHOLE),),
                mirror=Mirror(address=self.task.listen, share=WHOLE),
            )
        )
        self.await_summary(lambda _: True)

    def await_summary(self, holds: Callable[[ShadowSummary], bool]) -> ShadowSummary:
        end = time.monotonic() + PATIENCE_SECONDS
        while (summary := read_summary(self.folder)) is None or not holds(summary):
            assert time.monotonic() < end, summary
            time.sleep(0.02)
        return summary

    def users(self, count: int, method: str = "GET") -> Counter[int]:
        """What users get: the statuses, by how often."""
        statuses: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            for number in range(count):
                connection.request(method, f"/items/{number}", headers={"cookie": "sid=1", "authorization": "Basic x"})
                answer = connection.getresponse()
                answer.read()
                statuses[answer.status] += 1
        return statuses


@pytest.fixture(scope="module")
def shops() -> Iterator[tuple[RunningShop, RunningShop]]:
    with shop_service(version="v1") as stable, shop_service(version="v2") as candidate:
        yield stable, candidate


@pytest.fixture
def shadow(shops: tuple[RunningShop, RunningShop]) -> Iterator[_Shadow]:
    for shop in shops:
        shop.control(hang=False, wrong_field="")
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as folder:
        try:
            yield _Shadow(Path(folder), *shops)
        finally:
            end_kept(Path(folder))


def test_what_users_read_is_compared_and_what_they_change_is_not(
    shadow: _Shadow, shops: tuple[RunningShop, RunningShop]
) -> None:
    shops[1].control(wrong_field="price")
    orders = shops[1].control()["orders"]
    assert shadow.users(20, "POST") == {201: 20}
    assert shadow.users(20) == {200: 20}
    summary = shadow.await_summary(lambda summary: summary.pairs == 20)
    assert [row.field for row in summary.blocking] == ["$.price"]
    assert summary.shed == {}
    assert shops[1].control()["orders"] == orders


def test_users_do_not_notice_a_candidate_that_hangs_nor_a_comparator_that_is_killed(
    shadow: _Shadow, shops: tuple[RunningShop, RunningShop]
) -> None:
    shops[1].control(hang=True)
    seen: list[Counter[int]] = []
    users = [threading.Thread(target=lambda: seen.append(shadow.users(300))) for _ in range(3)]
    for user in users:
        user.start()
    before = shadow.await_summary(lambda summary: summary.received > 0)
    os.kill(before.pid, signal.SIGKILL)
    for user in users:
        user.join()
    assert sum(seen, Counter()) == {200: 900}
    shadow.await_summary(lambda summary: summary.pid != before.pid)
    assert shadow.users(30) == {200: 30}
    after = shadow.await_summary(lambda summary: bool(summary.blocking))
    assert [row.field for row in after.blocking] == ["$status"]
    assert after.started_at == before.started_at
