"""A file on another machine: its original comes here and is kept before the door over there writes or removes it."""

from __future__ import annotations

import base64
import hashlib

from interlock.core.action import PathClass, StepResult
from interlock.core.errors import Invalid, NotFound, Permanent, Stale
from interlock.core.model import JsonObject
from interlock.core.plan import DISCLOSURES, RISKS, Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.remote_host import CONTENT_CHARACTERS_MAX, DoorRequest, RemoteHosts
from interlock.core.remote_step import MARGIN_SECONDS, ask_there, plan_there, require_same_machine, target_there
from interlock.files.model import ABSENT, RemoveArgs, WriteArgs

WRITE_THERE, REMOVE_THERE, PUT_BACK_THERE = "write_there", "remove_there", "put_back_there"
VERBS = frozenset({WRITE_THERE, REMOVE_THERE, PUT_BACK_THERE})


def request_for(args: WriteArgs | RemoveArgs) -> DoorRequest:
    """The same for the door of another machine. Raises Invalid for more than goes there in one piece."""
    if isinstance(args, RemoveArgs):
        return DoorRequest(id="plan", do="plan", action="file.remove", path=args.path)
    return DoorRequest(id="plan", do="plan", action="file.write", path=args.path, content_base64=_packed(args.body))


def _packed(body: bytes) -> str:
    text = base64.b64encode(body).decode()
    if len(text) > CONTENT_CHARACTERS_MAX:
        most = CONTENT_CHARACTERS_MAX * 3 // 4
        msg = f"{len(body):,} bytes; at most {most:,} are written on another machine in one piece"
        raise Invalid(msg, code="file.size_there", fix="copy it there with a program of its own, such as rsync")
    return text


def step_there(request: DoorRequest, facts: JsonObject, path_class: PathClass) -> Step:
    """The step over there as a step of ours. It counts as the change it is, whatever that machine calls it."""
    host, there = str(facts["host"]), Plan.model_validate(facts["there"])
    (step,) = there.steps
    before, after = _before(step), ABSENT if request.content_base64 is None else _digest(request)
    targets = tuple(target_there(host, target) for target in step.targets) or (Target(kind="host", id=host),)
    shared: JsonObject = {"host": host, "host_keys": facts["host_keys"], "path": request.path}
    shown = "secret" if path_class == "secret" else "content" if before != ABSENT else "nothing"
    undo = Step(
        verb=REMOVE_THERE if before == ABSENT else PUT_BACK_THERE,
        summary=f"on {host}: " + (f"remove {request.path}" if before == ABSENT else f"put {request.path} back"),
        params={**shared, "digest": before},
        targets=targets,
        risk="low",
        operations=("file.remove",) if before == ABSENT else ("file.write",),
        repeatable=True,
        precondition={"sha256": after},
        timeout_seconds=step.timeout_seconds + MARGIN_SECONDS,
    )
    return Step(
        verb=REMOVE_THERE if after == ABSENT else WRITE_THERE,
        summary=f"on {host} ({facts['at']}): {step.summary}"[:1000],
        params={**shared, "digest": after, "content_base64": request.content_base64},
        targets=targets,
        risk=max(step.risk, "low" if before == ABSENT else "medium", key=RISKS.index),
        operations=tuple(sorted({*step.operations, request.action})),
        repeatable=True,
        discloses=max(step.discloses, shown, key=DISCLOSURES.index),
        precondition={"sha256": before},
        undo=undo,
        timeout_seconds=step.timeout_seconds + MARGIN_SECONDS,
    )


def perform_there(hosts: RemoteHosts, step: Step, context: StepContext) -> StepResult:
    """Look once more, keep what is there, then let the door over there do it.

    Raises: Stale when the file is not what it was, and as `plan_there` and `ask_there`.
    """
    host, wanted = str(step.params["host"]), str(step.params["digest"])
    require_same_machine(hosts, host, step.params["host_keys"])
    request = _request(step, context)
    plan = _plan(hosts, host, request)
    before = _before(plan.steps[0]) if plan is not None else ABSENT
    if plan is None or before == wanted:
        return StepResult(ok=True, summary=f"on {host}: it was so already", data={"host": host, "after": wanted})
    same_place = tuple(target_there(host, target) for target in plan.steps[0].targets) == step.targets
    if before != (step.precondition or {}).get("sha256") or not same_place:
        msg = f"{step.params['path']} on {host} is not what it was when the plan was made; nothing was written"
        raise Stale(msg, code="file.changed", fix="ask again to see the new plan")
    _keep_original(hosts, host, request, before, context)
    context.hold()
    asked = request.model_copy(update={"id": context.key, "do": "run", "digest": plan.digest})
    return ask_there(hosts, host, asked, step.timeout_seconds, context)


def _request(step: Step, context: StepContext) -> DoorRequest:
    path = str(step.params["path"])
    if step.verb == REMOVE_THERE:
        return DoorRequest(id="plan", do="plan", action="file.remove", path=path)
    content = step.params.get("content_base64")
    packed = str(content) if content is not None else _packed(context.blobs.get(str(step.params["digest"])))
    return DoorRequest(id="plan", do="plan", action="file.write", path=path, content_base64=packed)


def _plan(hosts: RemoteHosts, host: str, request: DoorRequest) -> Plan | None:
    """What would happen there now; None when there is nothing to remove any more."""
    try:
        return plan_there(hosts, host, request)
    except NotFound:
        if request.action != "file.remove":
            raise
        return None


def _keep_original(hosts: RemoteHosts, host: str, request: DoorRequest, before: str, context: StepContext) -> None:
    if before == ABSENT:
        return
    original = hosts.original(host, request)
    if original is None or hashlib.sha256(original).hexdigest() != before:
        msg = f"{request.path} on {host} changed while it was read; nothing was written"
        raise Stale(msg, code="file.changed", fix="ask again to see the new plan")
    context.blobs.put(original)


def _before(step: Step) -> str:
    """What the door over there says the file holds now. Raises Permanent when it says nothing."""
    found = (step.precondition or {}).get("sha256")
    if not isinstance(found, str):
        msg = "the door over there made a plan without a precondition"
        raise Permanent(msg, code="host.garbage", fix="install the same version of Interlock there")
    return found


def _digest(request: DoorRequest) -> str:
    return hashlib.sha256(base64.b64decode(request.content_base64 or "")).hexdigest()
