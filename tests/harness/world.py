"""What a chaos test plays in: an engine that asks, workers that die, a ledger that counts, and the final account."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from harness.engine import BOB, Engine, open_engine, write_project
from harness.ledger import Ledger
from harness.nursery import Nursery, is_alive
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Transient
from interlock.core.run import Run
from interlock.engine.audit.verify import Verification
from interlock.engine.db import DatabaseAddress, migrate
from interlock.engine.progress import read_progress
from interlock.settings import Locations

RUNS, STEPS = 200, (False, True, False)
"""Each Run has three steps, of which the middle one may be repeated."""
LIMITS = {"runs_at_once_max": 8, "runs_at_once_per_actor_max": 64, "retry_budget_seconds": 20.0}
LOOK_SECONDS = 0.1
QUICK_RUNS = 20
LATENCY_FLOOR_SECONDS = 0.02
LATENCY_LOOKS = 5
"""Below this a machine that does other things as well says nothing about us."""
ACTORS = tuple(Actor(kind="service", name=f"service-{number}") for number in range(8))


@dataclass
class World:
    """One chaos test's surroundings."""

    app: str
    owner: str
    folder: Path
    locations: Locations
    engine: Engine
    ledger: Ledger
    nursery: Nursery
    numbers: list[int] = field(default_factory=list)
    resolved: Counter[str] = field(default_factory=Counter)

    def args(self, index: int, **further: Any) -> dict[str, Any]:
        """The ask number `index`: 40 targets, so that five Runs share one."""
        return {"fifo": str(self.ledger.fifo), "target": f"t{index % 40}", "repeatable": list(STEPS), **further}

    async def submit(self, count: int = RUNS, **further: Any) -> None:
        """Ask for Runs through the queue."""
        for index in range(count):
            ask = Ask(action="test.ledger", args=self.args(index, **further), key=f"ask-{index}", confirmed=True)
            run = await self.engine.door.submit(ACTORS[index % len(ACTORS)], ask)
            assert isinstance(run, Run)
            self.numbers.append(run.number)

    async def states(self) -> Counter[str]:
        """How many Runs are in each state."""
        rows = await self.engine.query("select state, count(*) as n from run group by state")
        return Counter({row["state"]: row["n"] for row in rows})

    async def until(self, done: int, seconds: float = 60.0) -> None:
        """Wait until so many Runs have succeeded."""
        end = time.monotonic() + seconds
        states: Counter[str] = Counter()
        while states["succeeded"] < done:
            assert time.monotonic() < end, states
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(Transient):  # a database that was killed leaves broken connections behind
                states = await self.states()

    async def settle(self, seconds: float = 90.0, workers: int = 2) -> None:
        """Keep workers alive and say, for each unresolved Run, what the ledger says, until every Run is closed."""
        end = time.monotonic() + seconds
        while True:
            try:
                states = await self.states()
                if not set(states) & {"waiting", "queued", "running", "unresolved"}:
                    return
                await self._resolve()
            except Transient:
                states = Counter()  # the database is away
            while len(self.nursery.alive()) < workers:
                self.nursery.worker()
            assert time.monotonic() < end, (states, await self._stuck())
            await asyncio.sleep(LOOK_SECONDS)

    async def _resolve(self) -> None:
        """A person looks into the ledger: what happened is skipped, what did not is repeated."""
        rows = await self.engine.query("select number from run where state = 'unresolved'")
        counts = self.ledger.counts()
        for row in rows:
            number = row["number"]
            step = read_progress(await self.engine.store.evidence(number)).disputed(len(STEPS))
            word = "skip" if counts.get(f"{number}:{step}") else "repeat"
            try:
                await self.engine.interventions.resolve(BOB, number, word, "as the ledger says")
            except Conflict:
                continue  # it moved meanwhile
            self.resolved[word] += 1

    async def _stuck(self) -> list[dict[str, Any]]:
        query = "select number, state, state_reason, owner, fence from run where closed_at is null limit 5"
        return await self.engine.query(query)

    async def latency(self) -> float:
        """The median of quick Runs through the door of an engine that works, in seconds."""
        async with open_engine(self.app, self.owner, self.locations) as engine:
            taken = []
            for _ in range(QUICK_RUNS):
                begun = time.perf_counter()
                ask = Ask(action="test.unchecked", args={"journal": str(engine.journal)}, confirmed=True)
                run = await engine.door.submit(BOB, ask)
                assert isinstance(run, Run)
                await engine.rest(run.number)
                taken.append(time.perf_counter() - begun)
        return median(taken)

    async def sealed(self, seconds: float = 30.0) -> Verification:
        """The log verified, once nobody who was killed keeps the sealer waiting: his session may end a moment later."""
        end = time.monotonic() + seconds
        while (verified := await self.engine.verify()).unsealed and time.monotonic() < end:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_SECONDS)
        return verified

    async def as_quick_as(self, before: float) -> None:
        """Runs take no longer than before. Other tests use the same processors, so one slow moment is no answer."""
        seen: list[float] = []
        while len(seen) < LATENCY_LOOKS and min(seen, default=inf) >= max(3 * before, LATENCY_FLOOR_SECONDS):
            seen.append(await self.latency())
        assert min(seen) < max(3 * before, LATENCY_FLOOR_SECONDS), (before, seen)

    async def account(self, *, before: float, steps: tuple[bool, ...] = STEPS) -> None:
        """Nothing lost, nothing twice, nothing broken, nothing slower."""
        rows = await self.engine.query("select number, state from run where action = 'test.ledger'")
        assert {row["state"] for row in rows} == {"succeeded"}
        assert {row["number"] for row in rows} >= set(self.numbers)
        counts = self.ledger.counts()
        for row in rows:
            for index, repeatable in enumerate(steps):
                count = counts.get(f"{row['number']}:{index}", 0)
                assert count >= 1, f"step {row['number']}:{index} never happened"
                assert count == 1 or repeatable, f"step {row['number']}:{index} happened {count} times"
        assert await self._done_twice() == []
        assert await self.engine.query("select * from run_target") == []
        verified = await self.sealed()
        assert verified.findings == ()
        assert verified.intact
        assert verified.unsealed == 0
        await self.as_quick_as(before)

    async def _done_twice(self) -> list[tuple[int, int]]:
        rows = await self.engine.query("select run, line from evidence where kind = 'done'")
        ends = [(row["run"], json.loads(row["line"])["data"]) for row in rows]
        done = Counter((run, data["step"]) for run, data in ends if data["ok"])
        return [key for key, count in done.items() if count > 1]


@asynccontextmanager
async def open_world(app: str, owner: str, folder: Path, **asks: Any) -> AsyncIterator[World]:
    """A world on a database, which is migrated first. `asks` is added to what workers ask themselves."""
    await migrate(DatabaseAddress(app=app, owner=owner))
    locations = write_project(folder, limits=LIMITS)
    locations.make_folders()
    ledger = Ledger(folder)
    try:
        async with open_engine(app, owner, locations, work=False, fast=False) as engine:
            bodies = [
                {"fifo": str(ledger.fifo), "target": f"w{index}", "repeatable": list(STEPS), **asks}
                for index in range(40)
            ]
            config = {
                "app": app,
                "owner": owner,
                "project_file": str(locations.project_file),
                "state_folder": str(locations.state_folder),
                "runtime_folder": str(locations.runtime_folder),
                "asks": bodies,
            }
            nursery = Nursery(config, folder / "workers.log")
            try:
                yield World(app, owner, folder, locations, engine, ledger, nursery)
            finally:
                nursery.close()
    finally:
        ledger.close()


async def gone(pid: int, seconds: float = 20.0) -> None:
    """Wait until a process has died."""
    end = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} lives"
        await asyncio.sleep(0.02)


__all__ = ["RUNS", "World", "gone", "open_world"]
