"""A step on another machine: what its door planned as a plan of ours, asked for under the guard, its answer read."""

from __future__ import annotations

import json

from pydantic import ValidationError

from interlock.core.action import StepResult
from interlock.core.errors import ERRORS, InterlockError, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import LOST, NOT_SENT, DoorRequest, RemoteHosts

MARGIN_SECONDS = 60.0
"""On top of what a step may take over there: to get there and back."""

WORDS_MAX = 500


def facts_there(hosts: RemoteHosts, host: str, request: DoorRequest) -> JsonObject:
    """What the door over there would do, and which machine it is.

    Raises: NotFound (no such host), Transient (it does not answer), as it says over there, Permanent (garbage).
    """
    known = hosts.find(host)
    plan = plan_there(hosts, host, request)
    return {
        "host": host,
        "at": f"{known.user}@{known.address}:{known.port}",
        "host_keys": [*known.host_keys],
        "there": plan.model_dump(mode="json"),
    }


def plan_there(hosts: RemoteHosts, host: str, request: DoorRequest) -> Plan:
    """A plan of one step that another machine made. Raises Permanent for anything else, and as `hosts.plan`."""
    given = hosts.plan(host, request)
    try:
        plan = Plan.model_validate_json(json.dumps(given))
    except ValidationError as error:
        msg = f"the door of {host} made a plan that cannot be read"
        raise Permanent(msg, code="host.garbage", fix="install the same version of Interlock there") from error
    if len(plan.steps) != 1 or plan.action != request.action:
        msg = f"the door of {host} made another plan than was asked for"
        raise Permanent(msg, code="host.garbage", fix="install the same version of Interlock there")
    return plan


def target_there(host: str, target: Target) -> Target:
    """`host:NAME/unit:nginx.service`. Its own key and names stay names, so that what protects them here counts too."""
    others = tuple(name if ":" in name else f"{target.kind}:{name}" for name in target.names)
    return Target(kind="host", id=f"{host}/{target.key}", names=(target.key, *others))


def require_same_machine(hosts: RemoteHosts, host: str, host_keys: object) -> None:
    """Raises Permanent when another machine has its name since the plan was made, NotFound when none has."""
    if [*hosts.find(host).host_keys] != host_keys:
        msg = f"{host} is another machine than when the plan was made"
        raise Permanent(msg, code="host.changed", fix="ask again to see the new plan")


def ask_there(
    hosts: RemoteHosts, host: str, request: DoorRequest, timeout_seconds: float, context: StepContext
) -> StepResult:
    """Ask the door over there to perform `request`, under the guard.

    Raises: Transient with effect_sent False (nothing was asked) or True (it fell silent), and as it says over there.
    """
    result = context.execute(hosts.relay(host, request, timeout_seconds))
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
        raise refusal_there(host, error if isinstance(error, dict) else {}, f"look on {host} for what happened")
    return StepResult(ok=found.ok, summary=f"on {host}: {found.summary}", data={**found.data, "host": host})


def refusal_there(host: str, told: JsonObject, otherwise: str) -> InterlockError:
    """What another machine refused, as an error of ours. `otherwise` is the way out where it names none.

    What is refused over there was not begun; only what went wrong over there leaves something open.
    """
    kinds = {str(kind): cls for kind, cls in ERRORS.items()}
    cls = kinds.get(str(told.get("kind")), Permanent)
    message = f"{host} says: {_printable(told.get('message') or 'nothing that is an answer')}"
    if told.get("code") == "file.outside_roots":
        # The advice over there speaks of the interlock.yaml that a whole Interlock has; a door has its own file.
        otherwise = f"on {host}, declare the folder under `roots.write` in its own door.yaml"
        return cls(message, code="host.refused", fix=otherwise)
    return cls(message, code="host.refused", fix=_printable(told.get("fix") or otherwise))


def _printable(words: object) -> str:
    """Cut short, and without what would move a terminal's cursor."""
    return "".join(each if each.isprintable() else " " for each in str(words)[:WORDS_MAX])
