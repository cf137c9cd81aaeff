"""Builders shared by the policy tests: a loader with the real engine, and plans by what policies see of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from interlock.adapters.cedar import CedarEngine
from interlock.core.actor import Actor
from interlock.core.plan import Plan, Step, Target
from interlock.core.project import Project
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader, PolicySource, built_in_sources
from interlock.engine.policy.request import DecisionContext

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
ACTIONS = ("command.exec", "file.write", "file.restore", "target.hold", "interlock.undo", "interlock.freeze")

CLAUDE = Actor(kind="agent", name="claude", on_behalf_of="person:alice")
ALICE = Actor(kind="person", name="alice", roles=("operator",))


class Alarms(list[tuple[str, dict[str, Any]]]):
    """Every alarm that was raised."""

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Note one."""
        self.append((event, fields))


@pytest.fixture
def alarms() -> Alarms:
    return Alarms()


@pytest.fixture(scope="session")
def loader() -> PolicyLoader:
    return PolicyLoader(CedarEngine(), lambda: ACTIONS, OwnParts(), realpath=os.path.realpath, monotonic=time.monotonic)


@pytest.fixture
def judge_of(loader: PolicyLoader, alarms: Alarms) -> Callable[..., Judge]:
    """A judge by the invariants, the small-team preset and further texts."""

    def build(*further: str, project: Project | None = None, replace: str | None = None) -> Judge:
        used = project or Project(preset="small-team")
        invariants, preset = built_in_sources(used.preset)
        if replace is not None:
            preset = PolicySource("project", "policies/team.cedar", replace)
        texts = [PolicySource("further", f"further-{index}.cedar", text) for index, text in enumerate(further)]
        return Judge(PolicyBook(lambda: loader.load_sources(used, (invariants, preset, *texts)), alarms), alarms)

    return build


def plan_of(*targets: str, changes: bool = True, **step: Any) -> Plan:
    """A plan of one step."""
    found = tuple(Target(kind=kind, id=rest) for kind, _, rest in (text.partition(":") for text in targets))
    fields = {"risk": "medium" if changes else "none", **step}
    one = Step(verb="execute", summary="a step", targets=found, changes=changes, **fields)
    return Plan(action="command.exec", args={"argv": ["true"]}, summary="a plan", steps=(one,))


def context_of(plan: Plan, **fields: Any) -> DecisionContext:
    """A quiet Monday morning."""
    quiet = {"now": NOW, "run": 1, "digest": plan.digest, "frozen": False, "agents_paused": False}
    return DecisionContext(**(quiet | fields))
