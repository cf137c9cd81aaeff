"""A command on another machine: planned over there, decided on here and there, performed over there."""

from __future__ import annotations

from interlock.commands.library import Library
from interlock.commands.model import Operation, Refused, Unknown
from interlock.core.action import StepResult
from interlock.core.errors import Denied
from interlock.core.model import JsonObject
from interlock.core.plan import DISCLOSURES, RISKS, Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import DoorRequest, RemoteHosts
from interlock.core.remote_step import MARGIN_SECONDS, ask_there, facts_there, require_same_machine, target_there


def remote_facts(hosts: RemoteHosts, host: str, request: DoorRequest, library: Library) -> JsonObject:
    """What the door over there would do, and what our own library says of it.

    Raises: Denied for what is never run through the door, and as `facts_there`.
    """
    here = library.match(request.argv)
    if isinstance(here, Refused):
        msg = f"{here.program} is never run through the door: {here.why}"
        raise Denied(msg, code="command.refused", fix=here.instead)
    return {**facts_there(hosts, host, request), "here": _judged(here)}


def _judged(here: Operation | Unknown) -> JsonObject:
    """What our own library says of the command: the other machine's word never makes it more harmless."""
    if isinstance(here, Unknown):
        return {"changes": True, "opaque": True, "risk": "high", "discloses": "content", "repeatable": False}
    return {
        "changes": here.changes,
        "opaque": False,
        "risk": here.risk,
        "discloses": here.discloses,
        "repeatable": here.repeatable,
    }


def remote_step(request: DoorRequest, facts: JsonObject) -> Step:
    """The step over there as a step of ours: everything it touches is known by its host."""
    host = str(facts["host"])
    there = Plan.model_validate(facts["there"])
    (step,) = there.steps
    here = facts["here"] if isinstance(facts["here"], dict) else {}
    changes = step.changes or here["changes"] is True
    asked = request.model_copy(update={"do": "run", "digest": there.digest})
    machine = Target(kind="host", id=host)
    return Step(
        verb="execute_there",
        summary=f"on {host} ({facts['at']}): {step.summary}"[:1000],
        params={"host": host, "request": asked.model_dump(mode="json"), "host_keys": facts["host_keys"]},
        targets=tuple(target_there(host, target) for target in step.targets) or (machine,),
        risk=max(step.risk, here["risk"], key=RISKS.index),
        changes=changes,
        opaque=step.opaque or here["opaque"] is True,
        operations=step.operations or (("program.run",) if changes else ()),
        repeatable=step.repeatable and here["repeatable"] is True,
        discloses=max(step.discloses, here["discloses"], key=DISCLOSURES.index),
        precondition={"digest": there.digest},
        irreversible=f"it is not taken back from here; ask {host} for what takes it back" if changes else None,
        timeout_seconds=step.timeout_seconds + MARGIN_SECONDS,
    )


def remote_perform(hosts: RemoteHosts, step: Step, context: StepContext) -> StepResult:
    """Ask the door over there. Raises as `require_same_machine` and `ask_there`."""
    host = str(step.params["host"])
    require_same_machine(hosts, host, step.params["host_keys"])
    request = DoorRequest.model_validate(step.params["request"]).model_copy(update={"id": context.key})
    return ask_there(hosts, host, request, step.timeout_seconds, context)
