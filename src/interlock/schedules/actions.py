"""`schedule.*`: ask once at a moment, take that back, pause a schedule and resume it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import AwareDatetime, Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.schedule import NAME_PATTERN, SCHEDULES, CatchUp, ScheduleState
from interlock.engine.planner import validate
from interlock.lib.clock import rfc3339

MINUTES_MAX = 366 * 24 * 60
AHEAD_DAYS_MAX = 366
NESTED = "schedule."


class OnceArgs(Frozen):
    """What is asked for, and when: `at` with its offset, 2027-06-01T03:00:00+08:00.

    It goes through the door then, as whoever asked for this, with the rights that he has by then. Later than
    `grace_seconds` after `at` it was missed; with `catch_up: once` it is asked for all the same.
    """

    name: str = Field(pattern=NAME_PATTERN)
    action: str = Field(min_length=1, max_length=100)
    args: JsonObject = {}
    at: AwareDatetime
    reason: str | None = Field(default=None, max_length=500)
    grace_seconds: int = Field(default=60, ge=1, le=24 * 3600)
    catch_up: CatchUp = "skip"
    timeout_seconds: float | None = Field(default=None, gt=0, le=24 * 3600)


class CancelArgs(Frozen):
    """A one-off by its name."""

    name: str = Field(pattern=NAME_PATTERN)


class PauseArgs(Frozen):
    """A schedule by its name; without `minutes` the pause lasts until somebody resumes it."""

    name: str = Field(pattern=NAME_PATTERN)
    reason: str = Field(min_length=1, max_length=500)
    minutes: int | None = Field(default=None, ge=1, le=MINUTES_MAX)


class ResumeArgs(Frozen):
    """A schedule by its name."""

    name: str = Field(pattern=NAME_PATTERN)


class _OfSchedule(Action):
    """A change of Interlock's own tables of schedules, in one repeatable step."""

    def _find(self, name: str) -> ScheduleState:
        """Raises NotFound."""
        found = self.ports.outside[SCHEDULES].find(name)
        if found is None:
            msg = f"there is no schedule {name!r}"
            raise NotFound(msg, code="schedule.unknown", fix="interlock schedules list")
        return found

    def _plan(self, args: Frozen, facts: JsonObject, step: Step) -> Plan:
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write it."""
        data = context.arrange(f"schedule.{step.verb}", step.params)
        if data.get("count") == 0:
            return StepResult(ok=True, summary="nothing was left to change", data=data)
        return StepResult(ok=True, summary=step.summary, data=data)


def _step(verb: str, summary: str, name: str, params: JsonObject, **more: Any) -> Step:
    return Step(
        verb=verb,
        summary=summary,
        params={"name": name, **params},
        targets=(Target(kind="schedule", id=name),),
        operations=(f"schedule.{verb}",),
        repeatable=True,
        **{"risk": "low", **more},
    )


class Once(_OfSchedule):
    """Later, once."""

    name: ClassVar[str] = "schedule.once"
    summary: ClassVar[str] = "Ask for an action once, at a moment in the future."
    example: ClassVar[JsonObject] = {
        "name": "quiet-reload",
        "action": "command.exec",
        "args": {"argv": ["systemctl", "reload", "nginx"]},
        "at": "2027-06-01T03:00:00+08:00",
    }
    Args: ClassVar[type[Frozen]] = OnceArgs

    def read_facts(self, args: OnceArgs) -> JsonObject:
        """What would be planned if it were asked for now. Raises Invalid, Conflict, and whatever that raises."""
        now = self.ports.clock.now()
        days = (args.at - now).total_seconds() / 86400
        if days <= 0:
            msg = f"{_moment(args.at)} has passed"
            raise Invalid(msg, code="schedule.past", fix="name a moment in the future, with its offset")
        if days > AHEAD_DAYS_MAX:
            msg = f"{_moment(args.at)} is more than {AHEAD_DAYS_MAX} days ahead"
            raise Invalid(msg, code="schedule.far", fix="declare it under `schedules` in interlock.yaml")
        if args.action.startswith(NESTED):
            msg = "a schedule does not ask for schedules"
            raise Invalid(msg, code="schedule.nested", fix="ask for that action now")
        found = self.ports.outside[SCHEDULES].find(args.name)
        if found is not None:
            msg = f"there is a schedule {args.name!r} already"
            raise Conflict(msg, code="schedule.name", fix="choose another name, or: interlock schedules list")
        inner = self.ports.action(args.action)
        asked = validate(inner.Args, args.args, args.action)
        plan = inner.plan(asked, inner.read_facts(asked))
        keys = [target.key for target in plan.targets]
        return {"summary": plan.summary, "risk": plan.risk, "changes": plan.changes, "targets": [*keys]}

    def plan(self, args: OnceArgs, facts: JsonObject) -> Plan:
        """One step, as bad as what it will ask for."""
        summary = f"at {_moment(args.at)} ask for: {facts['summary']}"[:500]
        spec = args.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        risk = facts["risk"] if facts["risk"] != "none" else "low"
        undo = _step("cancel", f"cancel the one-off {args.name}", args.name, {})
        return self._plan(args, facts, _step("once", summary, args.name, {"spec": spec}, risk=risk, undo=undo))


class Cancel(_OfSchedule):
    """Not after all."""

    name: ClassVar[str] = "schedule.cancel"
    summary: ClassVar[str] = "Take back a one-off that was not asked for yet."
    example: ClassVar[JsonObject] = {"name": "quiet-reload"}
    Args: ClassVar[type[Frozen]] = CancelArgs

    def read_facts(self, args: CancelArgs) -> JsonObject:
        """When it would be. Raises NotFound, Invalid."""
        found = self._find(args.name)
        if not found.one_off:
            msg = f"{args.name} is declared in interlock.yaml, which is where it is removed"
            raise Invalid(msg, code="schedule.declared", fix=f"interlock schedules pause {args.name}")
        return {"at": _text(found.at)}

    def plan(self, args: CancelArgs, facts: JsonObject) -> Plan:
        """One step."""
        summary = f"cancel the one-off {args.name} of {facts['at']}"
        step = _step("cancel", summary, args.name, {}, irreversible="ask for it again: schedule.once")
        return self._plan(args, facts, step)


class Pause(_OfSchedule):
    """Not for a while."""

    name: ClassVar[str] = "schedule.pause"
    summary: ClassVar[str] = "Let a schedule ask for nothing until somebody resumes it."
    example: ClassVar[JsonObject] = {"name": "nightly-report", "reason": "the disk is full", "minutes": 600}
    Args: ClassVar[type[Frozen]] = PauseArgs

    def read_facts(self, args: PauseArgs) -> JsonObject:
        """Who paused it already. Raises NotFound."""
        return {"paused_by": self._find(args.name).paused_by}

    def plan(self, args: PauseArgs, facts: JsonObject) -> Plan:
        """One step."""
        minutes = "1 minute" if args.minutes == 1 else f"{args.minutes} minutes"
        until = f" for {minutes}" if args.minutes is not None else " until somebody resumes it"
        before = f" (paused by {facts['paused_by']} already)" if facts["paused_by"] else ""
        params: JsonObject = {"reason": args.reason, "minutes": args.minutes}
        more: dict[str, Any] = {"undo": _step("resume", f"resume the schedule {args.name}", args.name, {})}
        if before:
            more = {"irreversible": "it was paused before; resume it when both reasons are gone"}
        step = _step("pause", f"pause the schedule {args.name}{until}{before}", args.name, params, **more)
        return self._plan(args, facts, step)


class Resume(_OfSchedule):
    """Again."""

    name: ClassVar[str] = "schedule.resume"
    summary: ClassVar[str] = "Let a paused schedule ask again from now on; what fell into the pause is left out."
    example: ClassVar[JsonObject] = {"name": "nightly-report"}
    Args: ClassVar[type[Frozen]] = ResumeArgs

    def read_facts(self, args: ResumeArgs) -> JsonObject:
        """Who paused it. Raises NotFound, Conflict."""
        found = self._find(args.name)
        if found.paused_by is None:
            msg = f"the schedule {args.name} is not paused"
            raise Conflict(msg, code="schedule.not_paused", fix=f"interlock schedules show {args.name}")
        return {"paused_by": found.paused_by}

    def plan(self, args: ResumeArgs, facts: JsonObject) -> Plan:
        """One step."""
        summary = f"resume the schedule {args.name}, which {facts['paused_by']} paused"
        step = _step("resume", summary, args.name, {}, irreversible="pause it again with its reason")
        return self._plan(args, facts, step)


def _moment(at: datetime) -> str:
    """To the second, with the offset it was named with."""
    return at.isoformat(timespec="seconds")


def _text(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None
