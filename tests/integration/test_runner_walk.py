"""A random walk of two workers over a few Runs, step by step beside a model: states, owners, fences, targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from harness.engine import BOB, SERVICE, Engine, random_of
from interlock.core.evidence import Chain, EvidenceKind
from interlock.core.run import FINAL_STATES, TRANSITIONS, Run, RunState
from interlock.engine.store import LeaseLost

WORKERS = ("one", "two")
TARGETS = ("a", "b", "c")
MOVES = 600
LEAVE_SHARE = 0.5
LEFT = (RunState.QUEUED, RunState.UNRESOLVED, RunState.SUCCEEDED, RunState.FAILED)


@dataclass
class Modelled:
    """What the model believes of a Run; `tokens` are all holds on it that were ever given out, the last one valid."""

    target: str
    state: RunState
    fence: int
    tokens: list[Run]


class Walk:
    """The engine's store and the model, moved together."""

    def __init__(self, engine: Engine, random: Random) -> None:
        self.engine, self.store, self.random = engine, engine.store, random
        self.model: dict[int, Modelled] = {}
        self.moved = 0

    def among(self, *states: RunState) -> list[int]:
        """The Runs in these states."""
        return [number for number, each in self.model.items() if each.state in states]

    async def ask(self) -> None:
        """One more Run."""
        target = self.random.choice(TARGETS)
        run = await self.engine.ask(SERVICE, {"target": target})
        self.model[run.number] = Modelled(target, run.state, run.fence, [])

    async def claim(self) -> None:
        """The oldest whose target nobody holds and nobody older wants."""
        busy = {self.model[number].target for number in self.among(RunState.RUNNING, RunState.UNRESOLVED)}
        claimed = await self.store.claim(self.random.choice(WORKERS), self.engine.runner.limits.caps)
        if claimed is None:
            held = [number for number in self.among(RunState.QUEUED) if self.model[number].tokens]
            assert not held, "a Run that was given back keeps its target and may always be claimed"
            assert {self.model[number].target for number in self.among(RunState.QUEUED)} <= busy
            return
        each = self.model[claimed.run.number]
        assert each.state is RunState.QUEUED
        assert each.target not in busy
        self.take(claimed.run)

    async def take_over(self) -> None:
        """A lease ends and somebody takes what was held."""
        running = self.among(RunState.RUNNING)
        if not running:
            return
        number = self.random.choice(running)
        await self.engine.execute("update run set lease_until = now() - interval '1 s' where number = %s", number)
        taken = await self.store.take_over(self.random.choice(WORKERS), [], held=[], abandoned=[])
        assert taken is not None
        assert taken.run.number == number
        self.take(taken.run)

    def take(self, run: Run) -> None:
        """The fence rises by one with each taking."""
        each = self.model[run.number]
        assert run.fence == each.fence + 1
        each.state, each.fence = RunState.RUNNING, run.fence
        each.tokens.append(run)

    async def write(self) -> None:
        """Somebody who holds a Run, or once held it, adds a row or leaves it."""
        taken = [number for number, each in self.model.items() if each.tokens]
        if not taken:
            return
        number = self.random.choice(taken)
        each = self.model[number]
        token = self.random.choice(each.tokens)
        valid = each.state is RunState.RUNNING and token is each.tokens[-1]
        rows = await self.store.evidence(number)
        state = self.random.choice(LEFT) if self.random.random() < LEAVE_SHARE else None
        closes = state is not None and state.is_final
        data = {"state": str(state), "reason": None, "code": None} if closes else {"note": "walk"}
        kind = EvidenceKind.CLOSED if closes else EvidenceKind.NOTED
        row = Chain.after(number, rows).extend(kind, self.engine.parts.clock.now(), data)
        try:
            if state is None:
                await self.store.append(token, (row,))
            else:
                await self.store.leave(token, state, None, None, (row,), ())
        except LeaseLost:
            assert not valid
            assert await self.store.evidence(number) == rows
            return
        assert valid
        if state is not None:
            assert state in TRANSITIONS[each.state]
            each.state = state

    async def resolve(self) -> None:
        """A person settles one that is unresolved."""
        if unresolved := self.among(RunState.UNRESOLVED):
            number = self.random.choice(unresolved)
            await self.engine.interventions.resolve(BOB, number, "repeat", None)
            self.model[number].state = RunState.QUEUED

    async def compare(self) -> None:
        """The tables say what the model says, and each target is in one hand."""
        rows = await self.engine.query("select number, state, fence, owner from run")
        assert {row["number"]: (row["state"], row["fence"]) for row in rows} == {
            number: (each.state.value, each.fence) for number, each in self.model.items()
        }
        assert all((row["owner"] is not None) == (row["state"] == "running") for row in rows)
        held = await self.engine.query("select target from run_target where holding")
        assert len({row["target"] for row in held}) == len(held)
        wanted = await self.engine.query("select run from run_target")
        assert {row["run"] for row in wanted}.isdisjoint(self.among(*FINAL_STATES))


@pytest.mark.parametrize("seed", range(3))
async def test_two_workers_and_the_tables_agree_with_the_model(opened: Callable[..., Any], seed: int) -> None:
    engine = await opened(work=False, fast=False, project={"limits": {"runs_at_once_per_actor_max": 200}})
    random = random_of(seed)
    walk = Walk(engine, random)
    moves = (walk.ask, walk.claim, walk.claim, walk.take_over, walk.write, walk.write, walk.write, walk.resolve)
    for _ in range(MOVES):
        await random.choice(moves)()
        await walk.compare()
    assert (await engine.verify()).findings == ()
