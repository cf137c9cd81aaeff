"""A command on another machine: planned over there, decided on here and there, performed over there."""

from __future__ import annotations

import json

from pydantic import ValidationError

from interlock.commands.library import Library
from interlock.commands.model import Operation, Refused, Unknown
from interlock.core.action import StepResult
from interlock.core.errors import ERRORS, Denied, InterlockError, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import DISCLOSURES, RISKS, Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import LOST, NOT_SENT, DoorRequest, RemoteHosts


def remote_facts(hosts: RemoteHosts, host: str, request: DoorRequest, library: Library) -> JsonObject:
    """What the door over there would do, and which machine it is.

    Raises: NotFound (no such host), Transient (it does not answer), as it says over there, Permanent (garbage).
    """
    known = hosts.find(host)
    here = library.match(request.argv)
    if isinstance(here, Refused):
        msg = f"{here.program} is never run through the door: {here.why}"
        raise Denied(msg, code="command.refused", fix=here.instead)
    plan = read_plan(host, hosts.plan(host, request))
    return {
        "host": host,
        "at": f"{known.user}@{known.address}:{known.port}",
        "host_keys": [*known.host_keys],
        "there": plan.model_dump(mode="json"),
        "here": _judged(here),
    }


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


def read_plan(host: str, given: JsonObject) -> Plan:
    """A plan of one step that another machine made. Raises Permanent for anything else."""
    try:
        plan = Plan.model_validate_json(json.dumps(given))
    except ValidationError as error:
        msg = f"the door of {host} made a plan that cannot be read"
        raise Permanent(msg, code="host.garbage", fix="install the same version of Interlock there") from error
    if len(plan.steps) != 1 or plan.action != "command.exec":
        msg = f"the door of {host} made another plan than was asked for"
        raise Permanent(msg, code="host.garbage", fix="install the same version of Interlock there")
    return plan


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
        targets=tuple(_on(host, target) for target in step.targets) or (machine,),
        risk=max(step.risk, here["risk"], key=RISKS.index),
        changes=changes,
        opaque=step.opaque or here["opaque"] is True,
        operations=step.operations or (("program.run",) if changes else ()),
        repeatable=step.repeatable and here["repeatable"] is True,
        discloses=max(step.discloses, here["discloses"], key=DISCLOSURES.index),
        precondition={"digest": there.digest},
        irreversible=f"it is not taken back from here; ask {host} for what takes it back" if changes else None,
        timeout_seconds=step.timeout_seconds + 60.0,
    )


def _on(host: str, target: Target) -> Target:
    """`host:NAME/unit:nginx.service`. Its own key and names stay names, so that what protects them here counts too."""
    others = tuple(name if ":" in name else f"{target.kind}:{name}" for name in target.names)
    return Target(kind="host", id=f"{host}/{target.key}", names=(target.key, *others))


def remote_perform(hosts: RemoteHosts, step: Step, context: StepContext) -> StepResult:
    """Ask the door over there, under the guard.

    Raises: Transient with effect_sent False (nothing was asked) or True (it fell silent), and as it says over there.
    """
    host = str(step.params["host"])
    request = DoorRequest.model_validate(step.params["request"]).model_copy(update={"id": context.key})
    if [*hosts.find(host).host_keys] != step.params["host_keys"]:
        msg = f"{host} is another machine than when the plan was made"
        raise Permanent(msg, code="host.changed", fix="ask again to see the new plan")
    result = context.execute(hosts.relay(host, request, step.timeout_seconds))
    if result.exit_code == NOT_SENT:
        msg = f"the host {host} does not answer; nothing was run there"
        raise Transient(msg, code="host.unreachable", fix=f"interlock host check {host}", effect_sent=False)
    if result.exit_code != 0:
        how = "fell silent" if result.exit_code == LOST else "was not heard to the end"
        msg = f"the host {host} {how} after it was asked; what runs there is ended when the connection is"
        raise Transient(msg, code="host.lost", fix=f"look on {host} whether it happened")
    return _read_answer(host, hosts.answer(host, request))


def _read_answer(host: str, frame: JsonObject) -> StepResult:
    try:
        found = StepResult.model_validate(frame["result"]) if "result" in frame else None
        error = frame.get("error")
    except ValueError as fault:
        msg = f"the door of {host} said something that is no answer"
        raise Permanent(msg, code="host.garbage", fix=f"look on {host} whether it happened") from fault
    if found is None:
        raise _error_there(host, error)
    return StepResult(ok=found.ok, summary=f"on {host}: {found.summary}", data={**found.data, "host": host})


def _error_there(host: str, error: object) -> InterlockError:
    """What is refused over there was not begun; only what went wrong over there leaves something open."""
    told = error if isinstance(error, dict) else {}
    message = f"{host} says: {str(told.get('message', 'nothing that is an answer'))[:500]}"
    kinds = {str(kind): cls for kind, cls in ERRORS.items()}
    cls = kinds.get(str(told.get("kind")), Permanent)
    return cls(message, code="host.refused", fix=str(told.get("fix") or f"look on {host} whether it happened")[:500])
