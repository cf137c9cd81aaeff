"""The product as it ships, with one more action that does nothing and a project with 200 policies."""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from bench.server import BenchDatabase
from interlock.bootstrap import Installation, open_installation
from interlock.core.action import Action, StepResult
from interlock.core.actor import Actor
from interlock.core.ask import Ask
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.run import Run
from interlock.engine.logging import configure_logging
from interlock.engine.policy.load import built_in_text
from interlock.lib.redact import Redactor
from interlock.settings import Locations

SLOTS = 16
POLICIES = 200
WAIT_SECONDS = 60.0

SERVICE = Actor(kind="service", name="ci", roles=("operator",))
"""May change what is of low risk without asking anybody."""
PERSON = Actor(kind="person", name="alice", roles=("operator",))
"""Confirms his own change, which is recorded as evidence of its own."""
AGENT = Actor(kind="agent", name="claude", on_behalf_of="person:alice")
"""May look without asking anybody."""

_PROJECT = f"""version: 1
name: bench
preset: small-team
people:
  alice: {{roles: [operator], user: {pwd.getpwuid(os.geteuid()).pw_name}}}
protected: ["unit:postgresql*", "file:/srv/db/**", "container:db*"]
limits: {{runs_at_once_max: {SLOTS}, runs_at_once_per_actor_max: {SLOTS}}}
"""


class NoOperation(Action):
    """Changes nothing but says that it does: what is measured is the door, not what goes through it."""

    name = "bench.nothing"
    summary = "do nothing"
    example: ClassVar[JsonObject] = {"target": "a"}

    class Args(Frozen):
        """`target` makes each Run one of its own."""

        target: str

    def plan(self, args: Any, facts: JsonObject) -> Plan:  # noqa: ARG002 - the shape of them all
        """One step, of low risk, on one target."""
        step = Step(
            verb="nothing",
            summary=f"do nothing to {args.target}",
            params={"target": args.target},
            targets=(Target(kind="service", id=args.target),),
            risk="low",
            operations=("service.touch",),
            repeatable=True,
        )
        return Plan(action=self.name, args={"target": args.target}, summary=step.summary, steps=(step,))

    def perform(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002 - as above
        """Do nothing, when this worker may still act."""
        context.hold()
        return StepResult(ok=True, summary="nothing was done")


class Look(NoOperation):
    """The same without a change: what an agent may do without asking anybody."""

    name = "bench.look"
    summary = "look at nothing"

    def plan(self, args: Any, facts: JsonObject) -> Plan:
        """One step that changes nothing."""
        plan = super().plan(args, facts)
        step = plan.steps[0].model_copy(update={"changes": False, "risk": "none", "operations": ()})
        return plan.model_copy(update={"action": self.name, "steps": (step,)})


@asynccontextmanager
async def bench_installation(
    database: BenchDatabase, folder: Path, *, fast_path: bool, work: bool = True, further_project: str = ""
) -> AsyncIterator[Installation]:
    """Open the product on a database. `work` False: Runs are recorded, and nobody performs them.

    `further_project` stands at the end of interlock.yaml.
    """
    configure_logging(Redactor())
    _write_project(folder, further_project)
    locations = Locations(folder / "interlock.yaml", folder / "state", folder / "run")
    async with open_installation(
        locations, database.app, database.owner, work=work, further_actions=(NoOperation, Look)
    ) as installation:
        assert len(installation.book.current.rules) == POLICIES
        if not fast_path:
            installation.door.attach(installation.runner, fast_path=False)
        yield installation


async def ask(installation: Installation, actor: Actor, target: str) -> Run:
    """Record one Run; it may be running, or over, when this returns."""
    # An agent's ask always carries a key, as the tool `run` wants it.
    action, key = (Look.name, target) if actor.kind == "agent" else (NoOperation.name, None)
    run = await installation.door.submit(actor, Ask(action=action, args={"target": target}, key=key, confirmed=True))
    assert isinstance(run, Run)
    return run


async def ask_and_wait(installation: Installation, actor: Actor, target: str) -> None:
    """One Run from the ask to its end."""
    run = await ask(installation, actor, target)
    ended = await installation.door.wait(run.number, WAIT_SECONDS)
    assert ended.state == "succeeded", ended.state_reason


def _write_project(folder: Path, further: str) -> None:
    """A small team's policies, and as many of a kind that a team adds as make 200."""
    policies = folder / "policies"
    policies.mkdir(mode=0o755, parents=True, exist_ok=True)
    (folder / "interlock.yaml").write_text(_PROJECT + further, encoding="utf-8")
    preset = built_in_text("presets/small-team.cedar")
    (policies / "small-team.cedar").write_text(preset, encoding="utf-8")
    there = sum(text.count("\n@id(") + text.startswith("@id(") for text in (preset, built_in_text("invariants.cedar")))
    (policies / "team.cedar").write_text(further_policies(POLICIES - there), encoding="utf-8")


def further_policies(count: int) -> str:
    """Forbids as a team writes them: by effect or by target."""
    return "\n".join(
        f'@id("team.rule-{number}") @reason("made for the benchmark") @risk("low") @effect("forbid") '
        "forbid (principal, action, resource is Plan) "
        f'when {{ resource.operations.contains("op{number}.stop") || '
        f'resource.targets.contains("unit:app{number}.service") }};'
        for number in range(count)
    )
