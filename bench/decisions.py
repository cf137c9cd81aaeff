"""Claim: a decision takes at most 1.3 times as long as the bare policy engine takes to answer the same requests."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import cedarpy

from bench.installation import further_policies
from bench.measure import Result, figure, interleaved, ratio
from bench.report import run
from interlock.adapters.cedar import CedarEngine
from interlock.core.actor import Actor
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.project import Agent, Person, Project
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import (
    PolicyBook,
    PolicyLoader,
    PolicySet,
    PolicySource,
    built_in_sources,
    schema_for,
)
from interlock.engine.policy.request import DecisionContext, with_granted

SIZES = {20: 120, 200: 60, 2000: 16}
"""Number of policies -> plans in one turn."""
ROUNDS, ROUNDS_QUICK = 31, 7
NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
ACTIONS = ("command.exec", "file.write", *(f"made.up{number}" for number in range(18)))
PROJECT = Project(
    folder="/nonexistent",
    people={"alice": Person(), "bob": Person()},
    agents={"claude": Agent(on_behalf_of="alice")},
    protected=("unit:postgresql*", "file:/srv/db/**", "container:db*", "volume:pgdata"),
)
OWN = OwnParts(("file:/etc/interlock", "unit:interlock*"), ("file:/var/lib/interlock",))
AGENT = Actor(kind="agent", name="claude", on_behalf_of="person:alice")
SERVICE = Actor(kind="service", name="ci", roles=("operator",))


@dataclass(frozen=True)
class Kind:
    """A kind of ask: who asks for what."""

    name: str
    actor: Actor
    changes: bool
    operations: tuple[str, ...]


KINDS = (
    Kind("an agent reads", AGENT, changes=False, operations=()),
    Kind("a service reloads", SERVICE, changes=True, operations=("unit.reload",)),
    Kind("an agent restarts", AGENT, changes=True, operations=("unit.restart",)),
    Kind("an agent changes the firewall", AGENT, changes=True, operations=("firewall.change",)),
)


@dataclass(frozen=True)
class Question:
    """A plan to decide on, and what the bare engine is asked in its place."""

    actor: Actor
    plan: Plan
    context: DecisionContext
    requests: list[JsonObject]
    entities: list[JsonObject]


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """Median of the decisions of one turn, each on a plan that was not seen before, beside bare handles.

    The bare engine is asked with every policy; what of them cannot matter is for the product to know.
    """
    found: list[Result] = []
    for size, plans in SIZES.items():
        policies, texts = _policies(size)
        judge = Judge(PolicyBook(lambda policies=policies: policies, _alarm), _alarm)  # type: ignore[misc]
        bare_policies = cedarpy.PolicySet.from_str("\n".join(texts))
        schema = cedarpy.Schema.from_str(schema_for(ACTIONS))
        turns = _Turns(judge, bare_policies, schema, plans)
        seen = interleaved({"ours": turns.ours, "bare": turns.bare}, ROUNDS_QUICK if quick else ROUNDS)
        found += [
            ratio(f"decision / bare cedarpy handles, {size:,} policies, p50", seen, "ours", "bare", limit=1.3),
            figure(f"p50 of a decision, {size:,} policies", "us", [each["ours"] for each in seen]),
        ]
    return found


class _Turns:
    """Gives both the same questions in the same order, new ones in each round."""

    def __init__(self, judge: Judge, policies: cedarpy.PolicySet, schema: cedarpy.Schema, plans: int) -> None:
        self._judge = judge
        self._policies = policies
        self._schema = schema
        self._plans = plans
        self._begun = {"ours": 0, "bare": 0}

    def ours(self) -> float:
        """The median of a decision, in microseconds."""
        return self._median("ours", lambda each: self._judge.decide(each.actor, each.plan, each.context))

    def bare(self) -> float:
        """The median of what the engine itself needs: policies and schema parsed before, entities with the request."""
        return self._median(
            "bare", lambda each: cedarpy.is_authorized_batch(each.requests, self._policies, each.entities, self._schema)
        )

    def _median(self, who: str, answer: Callable[[Question], object]) -> float:
        times = []
        first = self._begun[who]
        self._begun[who] += self._plans
        for kind in KINDS:
            for number in range(first, first + self._plans):
                question = self._question(kind, number)
                began = time.perf_counter()
                answer(question)
                times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6

    def _question(self, kind: Kind, number: int) -> Question:
        """What the bare engine is asked is what a judge of its own asked, so that ours has not seen it."""
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
        context = DecisionContext(now=NOW, run=1, digest=plan.digest, frozen=False, agents_paused=False)
        asked = _SCOUT.decide(kind.actor, plan, context)
        requests = [asked.request]
        if asked.outcome == "needs_approval":
            requests.append(with_granted(asked.request))
        return Question(kind.actor, plan, context, requests, json.loads(json.dumps(asked.entities)))


def _alarm(event: str, fields: JsonObject) -> None:
    msg = f"{event}: {fields}"
    raise AssertionError(msg)


def _policies(size: int) -> tuple[PolicySet, list[str]]:
    loader = PolicyLoader(CedarEngine(), lambda: ACTIONS, OWN, realpath=os.path.realpath, monotonic=time.monotonic)
    built_in = built_in_sources("small-team")
    missing = size - len(loader.load_sources(PROJECT, built_in).rules)
    sources = (*built_in, PolicySource("further", "team.cedar", further_policies(missing))) if missing > 0 else built_in
    return loader.load_sources(PROJECT, sources), [source.text for source in sources]


_SCOUT = Judge(PolicyBook(lambda: _policies(0)[0], _alarm), _alarm)

if __name__ == "__main__":
    sys.exit(run((measure,)))
