"""A service under real traffic, released by an engine: versions that are told how to behave, and users who count."""

from __future__ import annotations

import asyncio
import http.client
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from harness import shop_service
from harness.engine import ALICE, Engine
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.run import Run, RunState

PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.02
OVER = {"released", "rolled_back", "failed", "aborted"}


class Users:
    """Threads that ask for items over and over; each request is of a user whom nobody has seen before."""

    def __init__(self, address: str, threads: int = 3, per_second: float = 60.0) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._pause = threads / per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[tuple[str, int]] = Counter()
        """(version, status) -> how many; version `-` where no answer came."""
        self._threads = [threading.Thread(target=self._ask, args=(index,), daemon=True) for index in range(threads)]

    @property
    def failed(self) -> int:
        """How many requests did not end well, whoever was to blame."""
        with self._lock:
            return sum(count for (_, status), count in self.answers.items() if not 200 <= status < 400)

    def of(self, version: str) -> int:
        """How many requests a version answered."""
        with self._lock:
            return sum(count for (name, _), count in self.answers.items() if name == version)

    @property
    def total(self) -> int:
        with self._lock:
            return sum(self.answers.values())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self, index: int) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=20)
        item = index
        while not self._stop.wait(self._pause):
            item += 1
            key = ("-", 0)
            try:
                connection.request("GET", f"/items/{item % 50}")
                answer = connection.getresponse()
                answer.read()
                key = (answer.getheader("x-version") or "-", answer.status)
            except (OSError, http.client.HTTPException):
                connection.close()
            with self._lock:
                self.answers[key] += 1
        connection.close()


@dataclass
class ReleaseWorld:
    """A project folder with one or more services."""

    folder: Path
    listen: dict[str, str] = field(default_factory=dict)

    def declare(self, name: str = "web", *, release: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A workload as interlock.yaml has it."""
        self.listen[name] = f"127.0.0.1:{shop_service.free_port()}"
        return {
            "kind": "service",
            "command": ["{source}/start", "{port}"],
            "source": {"folder": str(self.folder / name / "{version}")},
            "health": {"interval_seconds": 0.1, "timeout_seconds": 1.0, "deadline_seconds": 15.0},
            "stop_grace_seconds": 5.0,
            "traffic": {"listen": self.listen[name], "fallback": False},
            "release": release,
            **more,
        }

    def version(self, version: str, *arguments: str, name: str = "web") -> None:
        """Files of a version whose service is started with these arguments."""
        folder = self.folder / name / version
        folder.mkdir(parents=True)
        words = [sys.executable, shop_service.__file__, "--version", version, *arguments]
        start = folder / "start"
        start.write_text(f'#!/bin/sh\nexec {shlex.join(words)} --port "$1"\n')
        start.chmod(0o755)

    @contextmanager
    def users(self, name: str = "web", **options: Any) -> Iterator[Users]:
        """Users of one service, until the end of the block."""
        with Users(self.listen[name], **options) as users:
            yield users


def steps(*weights: float, hold: float = 1.0, until: str = "time", deadline: float = 30.0) -> list[dict[str, Any]]:
    """Canary steps, scaled down."""
    return [
        {"weight_percent": weight, "until": until, "hold_seconds": hold, "deadline_seconds": deadline}
        for weight in weights
    ]


def quick(*weights: float, **more: Any) -> dict[str, Any]:
    """Release settings of seconds instead of minutes.

    A service that answers in a tenth of a millisecond is twice as slow on a busy machine, so latency counts only where
    it is what is tested.
    """
    judge = {"tick_seconds": 0.2, "latency_increase_max": 4.0, **more.pop("judge", {})}
    hold = more.pop("hold", 1.0)
    return {
        "steps": steps(*weights, hold=hold),
        "judge": judge,
        "watch_seconds": 1.0,
        "keep_warm_hours": 1.0,
        "no_traffic_seconds": 1.0,
        **more,
    }


async def ask(engine: Engine, action: str, actor: Actor = ALICE, **args: Any) -> Run:
    """The Run at rest."""
    run = await engine.door.submit(actor, Ask(action=action, args=args, confirmed=True))
    assert isinstance(run, Run), run
    return await engine.rest(run.number)


async def succeed(engine: Engine, action: str, **args: Any) -> Run:
    """The same, which went well; what a person has to confirm a second time is confirmed."""
    run = await ask(engine, action, **args)
    if run.state is RunState.WAITING:
        await engine.approvals.decide(ALICE, run.number, verdict=True, reason="yes, really")
        run = await engine.rest(run.number)
    assert run.state is RunState.SUCCEEDED, (run.state, run.state_reason)
    return run


async def begin(engine: Engine, version: str, name: str = "web") -> int:
    """The number of a release that was started."""
    await succeed(engine, "release.start", workload=name, version=version)
    (row,) = await engine.query("select number from releases where name = %s and closed_at is null", name)
    return int(row["number"])


async def stands(engine: Engine, number: int, *states: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
    """The row of a release once it stands at one of these; says all that happened where it does not."""
    end = time.monotonic() + seconds
    while True:
        (row,) = await engine.query("select * from releases where number = %s", number)
        if row["state"] in states:
            return row
        if row["state"] in OVER or time.monotonic() > end:
            pytest.fail(f"not {states}: {await story(engine, number)}")
        await asyncio.sleep(LOOK_SECONDS)


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that no table tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(LOOK_SECONDS)


async def story(engine: Engine, number: int) -> str:
    """All that is known of a release, for a test that fails."""
    (row,) = await engine.query("select state, step, epoch, settled, reason from releases where number = %s", number)
    query = "select at, word, text, run from release_timeline where release = %s order by id"
    lines = await engine.query(query, number)
    runs = await engine.query(
        "select number, action, state, state_reason from run where state <> 'succeeded' order by number desc limit 10"
    )
    told = [f"{line['at']:%H:%M:%S.%f} {line['word']}: {line['text']} {line['run'] or ''}" for line in lines]
    return "\n".join([str(row), *told, *(str(each) for each in runs)])


async def deployed(engine: Engine, version: str, name: str = "web") -> int:
    """A version that all users have; where nobody comes, the watch over it is ended by hand."""
    number = await begin(engine, version, name)
    row = await stands(engine, number, "watching", "released")
    if row["stable"] is not None:
        await end_watch(engine, number, name)
    await stands(engine, number, "released")
    return number


async def end_watch(engine: Engine, number: int, name: str = "web") -> None:
    """Let a release be over that all users have."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        (row,) = await engine.query("select state, epoch, settled from releases where number = %s", number)
        if row["state"] == "released" or (row["state"] == "watching" and row["settled"] == row["epoch"]):
            break
        assert time.monotonic() < end, await story(engine, number)
        await asyncio.sleep(LOOK_SECONDS)
    if row["state"] == "watching":
        await succeed(engine, "release.promote", workload=name, reason="nobody comes, and it is well")


async def words(engine: Engine, number: int) -> list[str]:
    """The words of its timeline, in order."""
    rows = await engine.query("select word from release_timeline where release = %s order by id", number)
    return [row["word"] for row in rows]
