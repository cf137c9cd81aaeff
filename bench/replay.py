"""Claim: 100,000 recorded Runs are decided again under 200 policies in under 60 s, by one `policy replay`."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

import psycopg

from bench.decisions import KINDS, NOW, PROJECT
from bench.installation import further_policies
from bench.measure import Result, figure
from bench.report import run
from bench.server import BenchDatabase, bench_server
from interlock.adapters.cedar import CedarEngine
from interlock.bootstrap.replaying import Period, Replays
from interlock.core.plan import Plan, Step, Target
from interlock.engine.db import Database, DatabaseAddress, migrate
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader, PolicySet, PolicySource, built_in_sources
from interlock.engine.policy.request import DecisionContext
from interlock.engine.replay_store import ReplayStore

RUNS, RUNS_QUICK = 100_000, 10_000
POLICIES = 200
SECONDS_MAX = 60.0
ACTIONS = ("command.exec", *(f"made.up{number}" for number in range(18)))
YEAR = timedelta(days=365)

_COPY = """copy run (number, state, actor, actor_id, action, summary, risk, changes, plan, digest, decision, targets,
    ask_digest, created_at, closed_at, timeout_seconds) from stdin"""


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """The time from the first read to the report, starting the processes included.

    The quick one has a tenth of the Runs; it tells what they and a tenth of them took, drawn out as a straight line.
    """
    count = RUNS_QUICK if quick else RUNS
    with bench_server() as server:
        seconds, tenth = asyncio.run(_measure(server.database(), count))
    each = (seconds - tenth) / (count - count // 10)
    whole = seconds + each * (RUNS - count)
    name = f"{RUNS:,} Runs replayed, {POLICIES} policies" + (f" (drawn out from {count:,})" if quick else "")
    return [
        Result(name, "s", (whole,), SECONDS_MAX, figures={"seconds": seconds, "seconds_of_a_tenth": tenth}),
        figure("one Run more in a replay, reading included", "us", [each * 1e6]),
    ]


async def _measure(bench: BenchDatabase, count: int) -> tuple[float, float]:
    """Seconds for all Runs, and for the last tenth of them."""
    address = DatabaseAddress(app=bench.app, owner=bench.owner)
    await migrate(address)
    in_force = _set("")
    await asyncio.to_thread(_record, bench.owner, in_force, count)
    # One policy more than was in force, which hits a quarter of the asks.
    proposed = _set(
        '@id("bench.no-firewall") @reason("none") @risk("low") @effect("forbid")'
        ' forbid (principal, action, resource is Plan) when { resource.operations.contains("firewall.change") };'
    )
    database = Database(address)
    await database.open()
    try:
        replays = Replays(ReplayStore(database), lambda: ACTIONS)
        found = []
        for runs in (count, count // 10):
            since = NOW - YEAR * (runs / count) - timedelta(seconds=1)
            began = time.perf_counter()
            report: Any = await replays.replay(proposed, in_force, Period(since, NOW), _silent)
            found.append(time.perf_counter() - began)
            _require(report, runs)
    finally:
        await database.close()
    return found[0], found[1]


def _require(report: Any, runs: int) -> None:
    """Raises AssertionError where the report is not what these Runs must come to."""
    wanted = (runs, 0, runs // len(KINDS))
    found = (report["decided"], report["unreplayable"], report["different"])
    if found != wanted:
        msg = f"decided, unreplayable, different: {found}, not {wanted}"
        raise AssertionError(msg)


async def _silent(_decided: int, _total: int) -> None:
    """Nobody watches."""


def _record(owner: str, policies: PolicySet, count: int) -> None:
    """Runs as the door would have recorded them, over a year, without their evidence."""
    judge = Judge(PolicyBook(lambda: policies, _alarm), _alarm)
    with psycopg.connect(owner, autocommit=True) as connection, connection.cursor() as cursor:
        with cursor.copy(_COPY) as copy:
            for number in range(1, count + 1):
                copy.write_row(_row(judge, number, count))
        cursor.execute("analyze run")


def _row(judge: Judge, number: int, count: int) -> tuple[Any, ...]:
    kind = KINDS[number % len(KINDS)]
    target = Target(kind="unit", id=f"app{number}.service", names=(f"app{number}",))
    step = Step(
        verb="execute",
        summary="systemctl",
        params={"argv": ["systemctl", "restart", target.id]},
        targets=(target,),
        risk="medium" if kind.changes else "none",
        changes=kind.changes,
        operations=kind.operations,
        discloses="nothing" if kind.changes else "content",
    )
    plan = Plan(action="command.exec", args={"argv": ["systemctl"]}, summary="systemctl", steps=(step,))
    at = NOW - YEAR * ((count - number + 1) / count)
    context = DecisionContext(now=at, run=number, digest=plan.digest, frozen=False, agents_paused=False)
    decision = judge.decide(kind.actor, plan, context)
    actor, who = kind.actor.model_dump_json(), kind.actor.id
    texts = (plan.model_dump_json(), plan.digest, decision.model_dump_json(), [target.key], plan.digest)
    return (number, "denied", actor, who, plan.action, plan.summary, plan.risk, plan.changes, *texts, at, at, 60.0)


def _alarm(event: str, fields: object) -> None:
    msg = f"{event}: {fields}"
    raise AssertionError(msg)


def _set(more: str) -> PolicySet:
    """`POLICIES` of them, and what is given."""
    loader = PolicyLoader(CedarEngine(), lambda: ACTIONS, OwnParts(), realpath=str, monotonic=time.monotonic)
    built_in = built_in_sources("small-team")
    missing = POLICIES - len(loader.load_sources(PROJECT, built_in).rules) - bool(more)
    sources = (*built_in, PolicySource("further", "team.cedar", further_policies(missing)))
    return loader.load_sources(PROJECT, (*sources, PolicySource("further", "more.cedar", more)) if more else sources)


if __name__ == "__main__":
    sys.exit(run((measure,)))
