"""`interlock.*` and `target.hold`: each changes Interlock's own tables, or takes back what another action did."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, Permanent, Stale
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.run import Run, RunState
from interlock.engine.actors import require_declared_agents

KINDS = {"targets": "freeze", "agents": "pause", "glass": "glass"}
MINUTES_MAX = 30 * 24 * 60
PATTERN = r"^(\*|[a-z*][a-z0-9_*-]*:.{1,1000})$"


class FreezeArgs(Frozen):
    """`pattern` is `*` (everything) or KIND:PATTERN as under `protected`; without `minutes` it lasts until lifted."""

    pattern: str = Field(default="*", pattern=PATTERN)
    reason: str = Field(min_length=1, max_length=500)
    minutes: int | None = Field(default=None, ge=1, le=MINUTES_MAX)


class UnfreezeArgs(Frozen):
    """Lifts the freezes of exactly this pattern."""

    pattern: str = Field(default="*", pattern=PATTERN)


class PauseArgs(Frozen):
    """`name` is an agent's name, or a pattern of names."""

    name: str = Field(default="*", pattern=r"^[A-Za-z0-9_.*-]{1,100}$")
    reason: str = Field(min_length=1, max_length=500)
    minutes: int | None = Field(default=None, ge=1, le=MINUTES_MAX)


class ResumeArgs(Frozen):
    """`name` as it was paused."""

    name: str = Field(default="*", pattern=r"^[A-Za-z0-9_.*-]{1,100}$")


class GlassArgs(Frozen):
    """`pattern` is KIND:PATTERN and names what is meant, never everything; it ends by itself."""

    pattern: str = Field(pattern=r"^[a-z][a-z0-9_-]*:/?[^*?/].{0,1000}$")
    reason: str = Field(min_length=10, max_length=500)
    minutes: int = Field(default=15, ge=1, le=240)


class UndoArgs(Frozen):
    """The number of the Run to take back."""

    run: int = Field(ge=1)


class HoldArgs(Frozen):
    """`target` is KIND:NAME. `command` is written down; the person runs it himself, with his own rights."""

    target: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}:.{1,1000}$")
    command: tuple[str, ...] = Field(min_length=1, max_length=256)
    minutes: int = Field(default=24 * 60, ge=1, le=24 * 60)


class _Order(Action):
    """An order that stands in Interlock's own tables: set or lifted in one repeatable step."""

    lifts: ClassVar[bool]

    def read_facts(self, args: Any) -> JsonObject:
        """The pattern as decisions will see it: a path is absolute and without links."""
        pattern = str(getattr(args, "pattern", "*"))
        kind, _, name = pattern.partition(":")
        if kind == "file" and not name.startswith("*"):
            folder = self.ports.project().folder
            plain = name[: min((name.find(mark) for mark in "*?" if mark in name), default=len(name))]
            stem = name if plain == name else plain[: plain.rfind("/") + 1]
            real = os.path.realpath(Path(folder, stem))
            between = "" if plain == name or real == "/" else "/"
            pattern = f"file:{real}{between}{name[len(stem) :]}"
        return {"pattern": pattern}

    def _plan(self, args: Frozen, summary: str, scope: str, pattern: str, **details: str | int | None) -> Plan:
        payload: JsonObject = {"scope": scope, "pattern": pattern, **details}
        # The order is about a pattern; it does not itself touch what the pattern names.
        target = Target(kind=KINDS[scope], id=pattern.replace(":", " ", 1))
        step = Step(
            verb="lift" if self.lifts else "set",
            summary=summary,
            params=payload,
            targets=(target,),
            risk="high" if scope == "glass" else "low",
            operations=(f"interlock.{self.name.removeprefix('interlock.')}",),
            repeatable=True,
            undo=None
            if self.lifts
            else Step(
                verb="lift",
                summary=f"take back: {summary}",
                # Only what was set for this reason: others may have ordered the same, and theirs stays in force.
                params={"scope": scope, "pattern": pattern, "reason": payload["reason"]},
                targets=(target,),
                risk="low",
                operations=("interlock.unfreeze",),
                repeatable=True,
            ),
            irreversible="set it again with its reason" if self.lifts else None,
        )
        return Plan(action=self.name, args=args.model_dump(mode="json"), summary=summary, steps=(step,))

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write the order, or its end."""
        data = context.arrange(f"freeze.{step.verb}", step.params)
        if step.verb == "lift" and data["count"] == 0:
            return StepResult(ok=True, summary="nothing of the kind was in force", data=data)
        return StepResult(ok=True, summary=step.summary, data=data)


def _until(minutes: int | None) -> str:
    return f" for {_minutes(minutes)}" if minutes is not None else " until it is lifted"


def _minutes(count: int) -> str:
    return "1 minute" if count == 1 else f"{count} minutes"


class Freeze(_Order):
    """No changes for a while."""

    name: ClassVar[str] = "interlock.freeze"
    summary: ClassVar[str] = "Let nothing change the targets that match a pattern; what runs stops between two steps."
    example: ClassVar[JsonObject] = {"pattern": "unit:*", "reason": "release weekend", "minutes": 120}
    Args: ClassVar[type[Frozen]] = FreezeArgs
    lifts: ClassVar[bool] = False

    def plan(self, args: FreezeArgs, facts: JsonObject) -> Plan:
        """One step."""
        pattern = str(facts["pattern"])
        what = "everything" if pattern == "*" else pattern
        summary = f"freeze {what}{_until(args.minutes)}"
        return self._plan(args, summary, "targets", pattern, reason=args.reason, minutes=args.minutes)


class Unfreeze(_Order):
    """Changes again."""

    name: ClassVar[str] = "interlock.unfreeze"
    summary: ClassVar[str] = "Lift a freeze."
    example: ClassVar[JsonObject] = {"pattern": "unit:*"}
    Args: ClassVar[type[Frozen]] = UnfreezeArgs
    lifts: ClassVar[bool] = True

    def plan(self, args: UnfreezeArgs, facts: JsonObject) -> Plan:
        """One step."""
        pattern = str(facts["pattern"])
        return self._plan(args, f"lift the freeze of {pattern}", "targets", pattern)


class PauseAgents(_Order):
    """Agents may look and not touch."""

    name: ClassVar[str] = "interlock.pause_agents"
    summary: ClassVar[str] = "Let agents read and change nothing."
    example: ClassVar[JsonObject] = {"reason": "looking into a strange change", "minutes": 60}
    Args: ClassVar[type[Frozen]] = PauseArgs
    lifts: ClassVar[bool] = False

    def read_facts(self, args: PauseArgs) -> JsonObject:
        """A name that means nobody would stop nobody. Raises NotFound where it matches no declared agent."""
        require_declared_agents(self.ports.project(), args.name)
        return super().read_facts(args)

    def plan(self, args: PauseArgs, facts: JsonObject) -> Plan:  # noqa: ARG002
        """One step."""
        who = "all agents" if args.name == "*" else f"agent {args.name}"
        summary = f"pause {who}{_until(args.minutes)}"
        return self._plan(args, summary, "agents", args.name, reason=args.reason, minutes=args.minutes)


class ResumeAgents(_Order):
    """Agents may ask again."""

    name: ClassVar[str] = "interlock.resume_agents"
    summary: ClassVar[str] = "Let agents ask for changes again."
    example: ClassVar[JsonObject] = {}
    Args: ClassVar[type[Frozen]] = ResumeArgs
    lifts: ClassVar[bool] = True

    def plan(self, args: ResumeArgs, facts: JsonObject) -> Plan:  # noqa: ARG002
        """One step."""
        who = "all agents" if args.name == "*" else f"agent {args.name}"
        return self._plan(args, f"resume {who}", "agents", args.name)


class BreakGlass(_Order):
    """The one exception to what is protected."""

    name: ClassVar[str] = "interlock.break_glass"
    summary: ClassVar[str] = "Let yourself change protected targets for a few minutes; everybody sees it."
    example: ClassVar[JsonObject] = {
        "pattern": "unit:postgresql*",
        "reason": "disk failure, moving the data",
        "minutes": 15,
    }
    Args: ClassVar[type[Frozen]] = GlassArgs
    lifts: ClassVar[bool] = False

    def plan(self, args: GlassArgs, facts: JsonObject) -> Plan:
        """One step."""
        pattern = str(facts["pattern"])
        summary = f"break the glass over {pattern} for {_minutes(args.minutes)}: {args.reason}"
        return self._plan(args, summary[:500], "glass", pattern, reason=args.reason, minutes=args.minutes)


def require_same_targets(run: Run, action: Action) -> None:
    """A name may stand for something else since a Run. Raises Stale where its undo would touch what it did not."""
    touched = {target.key for step in run.plan.steps for each in (step, step.undo) if each for target in each.targets}
    for step in run.plan.steps:
        for target in action.targets_now(step.undo) if step.changes and step.undo is not None else ():
            if target.key not in touched:
                msg = f"to undo Run {run.number} would now touch {target.key}, which it did not"
                fix = f"see what it did (interlock show {run.number}) and ask for what mends it"
                raise Stale(msg, code="undo.other_target", fix=fix)


class Undo(Action):
    """Takes a succeeded Run back by its own undo steps, in reverse."""

    name: ClassVar[str] = "interlock.undo"
    summary: ClassVar[str] = "Take back what a Run did, by the undo steps of its plan, last step first."
    example: ClassVar[JsonObject] = {"run": 1}
    Args: ClassVar[type[Frozen]] = UndoArgs

    def read_facts(self, args: UndoArgs) -> JsonObject:
        """The plan to take back.

        Raises: Conflict, Invalid when there is nothing to take back; Stale when that would touch something else now.
        """
        run = self.ports.records.run(args.run)
        if run.state is not RunState.SUCCEEDED:
            msg = f"Run {args.run} is {run.state}: only what succeeded can be taken back"
            raise Conflict(msg, code="run.not_undoable", fix=f"interlock show {args.run}")
        if not run.plan.changes:
            msg = f"Run {args.run} changed nothing"
            raise Invalid(msg, code="run.nothing_to_undo", fix=f"interlock show {args.run}")
        for number, step in enumerate(run.plan.steps, 1):
            if step.changes and step.undo is None:
                msg = f"step {number} of Run {args.run} cannot be taken back: {step.irreversible or 'it has no undo'}"
                # Where the Action knows a way it is a command behind a colon.
                _, _, command = (step.irreversible or "").rpartition(": ")
                way = command if command.startswith("interlock ") else None
                fix = way or f"see what it did (interlock show {args.run}) and ask for what mends it"
                raise Invalid(msg, code="step.no_undo", fix=fix)
        require_same_targets(run, self.ports.action(run.action))
        return {
            "digest": run.digest,
            "summary": run.plan.summary,
            "action": run.action,
            "plan": run.plan.model_dump(mode="json"),
        }

    def plan(self, args: UndoArgs, facts: JsonObject) -> Plan:
        """The undo steps of the other plan, reversed; each says which action performs it."""
        other = Plan.model_validate(facts["plan"])
        numbered = reversed([*enumerate(other.steps)])
        undo = [(index, step.undo) for index, step in numbered if step.undo is not None and step.changes]
        steps = tuple(
            step.model_copy(
                update={
                    "verb": "undo",
                    "params": {
                        "action": other.action,
                        "effect": f"{args.run}:{index}",
                        "step": step.model_dump(mode="json"),
                    },
                    "irreversible": step.irreversible or (None if step.undo else "it takes something back itself"),
                }
            )
            for index, step in undo
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=f"undo Run {args.run}: {'; '.join(step.summary for _, step in undo)}"[:500],
            steps=steps,
            facts={"digest": facts["digest"], "action": facts["action"]},
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Let the action that did it take it back."""
        return self._of(step).perform(_inner(step), context)

    def check(self, step: Step, context: StepContext) -> StepResult:
        """Let the action that did it look."""
        return self._of(step).check(_inner(step), context)

    def _of(self, step: Step) -> Action:
        return self.ports.action(str(step.params["action"]))


def _inner(step: Step) -> Step:
    """The undo step of the other plan. Its `effect` is the key (`run:step`) of what it takes back, which within its own
    Run would be its own."""
    inner = Step.model_validate(step.params["step"])
    return inner.model_copy(update={"params": {**inner.params, "effect": step.params["effect"]}})


class Hold(Action):
    """A person's own work on a target, while nothing else may touch it."""

    name: ClassVar[str] = "target.hold"
    summary: ClassVar[str] = "Keep a target for a person's own work, which he runs himself, until that ends."
    example: ClassVar[JsonObject] = {"target": "database:shop", "command": ["./migrate.sh"]}
    Args: ClassVar[type[Frozen]] = HoldArgs

    def read_facts(self, args: HoldArgs) -> JsonObject:
        """What the target's name stands for."""
        kind, _, name = args.target.partition(":")
        found = self.ports.resolvers.resolve(kind, name, {"folder": self.ports.project().folder})
        return {"targets": [target.model_dump(mode="json") for target in found]}

    def plan(self, args: HoldArgs, facts: JsonObject) -> Plan:
        """One step that lasts as long as the person's work."""
        listed = facts["targets"]
        targets = tuple(Target.model_validate(target) for target in (listed if isinstance(listed, list) else []))
        step = Step(
            verb="hold",
            summary=f"hold {args.target} while a person runs: {' '.join(args.command)}"[:500],
            targets=targets,
            risk="medium",
            operations=("target.hold",),
            repeatable=False,
            irreversible="it is the person's own work",
            timeout_seconds=args.minutes * 60.0,
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Wait until the person's work has ended."""
        begun = self.ports.clock.monotonic()
        while True:
            context.hold()
            waited = self.ports.clock.monotonic() - begun
            data = context.arrange("hold.look", {"waited_seconds": waited})
            code = data["exit_code"]
            if code is not None:
                return StepResult(ok=code == 0, summary=f"the person's command ended with {code}", data=data)
            if data["lost"]:
                msg = "the terminal that ran the person's command is gone; nobody knows how far it came"
                raise Permanent(msg, code="hold.lost")
            if context.cancelled or waited > step.timeout_seconds:
                msg = "the hold was ended while the person's command ran"
                raise Permanent(msg, code="run.cancelled" if context.cancelled else "step.timed_out")
