"""`policy.apply`: the policies on disk come into force as they were planned, or not at all."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step
from interlock.core.policy_set import POLICY_SETS, PolicyProposal
from interlock.core.ports import StepContext
from interlock.rules.desk import apply_plan


class ApplyArgs(Frozen):
    """`pinned`: from then on only another `policy.apply` changes the policies; without it whatever lies on disk does,
    at each reload and start. `replay` is the number of a replay of these very policies, for whoever approves."""

    pinned: bool = True
    replay: int | None = Field(default=None, ge=1, le=2**53)


class PolicyApply(Action):
    """Other policies."""

    name: ClassVar[str] = "policy.apply"
    summary: ClassVar[str] = "Put the policies that lie on disk in force, whose decision tables hold."
    example: ClassVar[JsonObject] = {"pinned": True}
    Args: ClassVar[type[Frozen]] = ApplyArgs

    def read_facts(self, args: ApplyArgs) -> JsonObject:
        """The set on disk beside the one in force.

        Raises: Invalid when it is not sound, a row of its tables does not hold, or it would be the last one; Conflict
            when it is in force already; NotFound when there is no such replay.
        """
        found = self.ports.outside[POLICY_SETS].propose()
        if found.digest == found.now.digest and args.pinned == found.now.pinned:
            msg = f"the policies on disk are in force: {found.digest[:12]}"
            raise Conflict(msg, code="policy.in_force", fix="change them first: interlock policy check")
        replayed = None
        if args.replay is not None:
            replayed = self.ports.outside[POLICY_SETS].replayed(args.replay, found.digest)
        return {"proposal": found.model_dump(mode="json"), "replay": replayed}

    def plan(self, args: ApplyArgs, facts: JsonObject) -> Plan:
        """One row of ours."""
        found = PolicyProposal.model_validate(facts["proposal"])
        return apply_plan(
            found.digest,
            found.now,
            pinned=args.pinned,
            args=args.model_dump(mode="json"),
            facts={"proposal": found.model_dump(mode="json", exclude={"diff"}), "replay": facts["replay"]},
            preview=_preview(found, facts["replay"]),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Put one or the other in force."""
        data = context.arrange("policy.put_in_force", step.params)
        return StepResult(ok=True, summary=step.summary, data=data)

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """What the tables say and what the door decides by is the set of the plan."""
        now = self.ports.outside[POLICY_SETS].in_force()
        holds = now.digest == step.params["digest"] and now.pinned == step.params["pinned"]
        told = f"the policies {now.digest[:12]} are in force"
        return StepResult(ok=holds, summary=told, data=now.model_dump(mode="json"))


def _preview(found: PolicyProposal, replay: object) -> str:
    """What a person reads before he says yes."""
    lines = [f"{found.now.digest[:12]} -> {found.digest[:12]}; {found.rows} rows of decision tables hold"]
    for word, names in (("added", found.added), ("changed", found.changed), ("removed", found.removed)):
        lines += [f"{word}: {', '.join(names)}"] if names else []
    lines += [f"warning: {each}" for each in found.warnings]
    if isinstance(replay, dict):
        lines.append(
            f"replayed from {replay['since']} to {replay['until']}: of {replay['decided']} Runs {replay['different']} "
            f"would be answered otherwise; of {replay['unreplayable']} nobody can say"
        )
        groups = replay["groups"]
        lines += [f"  {each}" for each in groups] if isinstance(groups, list) else []
    return "\n".join([*lines, "", found.diff] if found.diff else lines)
