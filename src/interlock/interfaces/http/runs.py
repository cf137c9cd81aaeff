"""The routes that ask, decide and take back."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from interlock.core.errors import Invalid
from interlock.core.run import RunState
from interlock.engine.view_store import RUNS_MAX
from interlock.interfaces.http.asking import Asker, Asking
from interlock.interfaces.http.bodies import (
    NUMBER_MAX,
    PROBLEM,
    AgainBody,
    AskBody,
    CancelBody,
    DataAnswer,
    DecisionBody,
    ProposalAnswer,
    ReceiptAnswer,
    ResolutionBody,
    RunAnswer,
    RunBody,
    RunsAnswer,
)
from interlock.interfaces.http.problems import answer_problem, answer_run, at
from interlock.interfaces.http.routing import JsonRoute, answer
from interlock.interfaces.local.protocol import JsonMapping

HELD_SECONDS = 1.0
"""How long a request keeps a connection to the resident process to itself while it waits; then it shares one."""

OUTPUT_BYTES_MAX = 16 * 1024 * 1024
RANGE = re.compile(r"bytes=(?:(\d{1,12})-(\d{1,12})?|-(\d{1,12}))")

NO_REASON = CancelBody()
NOTHING_FURTHER = AgainBody()

router = APIRouter(route_class=JsonRoute, tags=["Runs"])

Number = Annotated[int, Path(ge=1, le=NUMBER_MAX, description="A Run's number.", examples=[1])]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="A word of yours for this ask. Sent again it is the same Run; with another ask it is refused.",
        examples=["deploy-2026-11-20"],
    ),
]
_MAY_RUN: dict[int | str, dict[str, Any]] = {
    200: {"model": RunAnswer, "description": "It came to rest."},
    202: {"model": RunAnswer | ProposalAnswer, "description": "It goes on or waits; or it is only a plan so far."},
}


@router.post("/runs", operation_id="ask", summary="Ask for something to be done", responses=_MAY_RUN)
async def ask(asking: Asker, body: RunBody, key: Key = None) -> Response:
    """What changes nothing runs at once. What changes something is shown as a plan (202 with `proposal`) until it is
    asked for with `confirmed: true`; then it runs, or waits for approval. What policy forbids is recorded as a denied
    Run and answered with 403."""
    asked = body.model_dump(mode="json", exclude={"wait"}, exclude_unset=True)
    return await _asked(asking, "submit", {"ask": {**asked, "key": key} if key else asked}, body.wait)


@router.post(
    "/proposals",
    operation_id="propose",
    summary="Show the plan and the decision",
    responses={200: {"model": ProposalAnswer}},
)
async def propose(asking: Asker, body: AskBody) -> Response:
    """Nothing is recorded and nothing is done."""
    return answer(await asking.call("propose", {"ask": body.model_dump(mode="json", exclude_unset=True)}))


@router.get(
    "/runs", operation_id="list_runs", summary="List Runs, newest first", responses={200: {"model": RunsAnswer}}
)
async def list_runs(
    asking: Asker,
    request: Request,
    state: Annotated[RunState | None, Query(description="Only those in this state.")] = None,
    open_only: Annotated[bool, Query(alias="open", description="Only those that are not over.")] = False,
    action: Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")] = None,
    actor: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$", examples=["person:alice"])] = None,
    cursor: Annotated[str | None, Query(max_length=40, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=RUNS_MAX)] = 50,
) -> Response:
    """Pages are stable: what is new comes before the first page and moves nothing."""
    if open_only and state is not None:
        msg = "give either state or open"
        raise at(Invalid(msg, code="args.invalid"), "query.open")
    args = {"state": "open" if open_only else state, "action": action, "actor": actor, "limit": limit}
    args["before"] = _number_of(cursor) if cursor is not None else None
    data = await asking.view("runs", {name: value for name, value in args.items() if value is not None})
    following = data.get("next_before")
    cursor = _cursor_of(following) if isinstance(following, int) else None
    headers = {}
    if cursor is not None:
        headers["Link"] = f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'
    return answer({"runs": data["runs"], "next_cursor": cursor}, headers)


@router.get("/runs/{number}", operation_id="get_run", summary="Show a Run", responses={200: {"model": RunAnswer}})
async def get_run(asking: Asker, number: Number) -> Response:
    """All about it but its output."""
    return answer({"run": await asking.view("run", {"run": number})})


@router.get("/runs/{number}/evidence", operation_id="get_evidence", responses={200: {"model": DataAnswer}})
async def get_evidence(asking: Asker, number: Number) -> Response:
    """The hash chain of one Run, row by row."""
    return answer({"data": await asking.view("evidence", {"run": number})})


@router.get("/runs/{number}/why", operation_id="get_why", responses={200: {"model": DataAnswer}})
async def get_why(asking: Asker, number: Number) -> Response:
    """Why it waits, was denied, went stale or is unresolved, and what to do next."""
    return answer({"data": await asking.view("why", {"run": number})})


@router.get("/runs/{number}/receipt", operation_id="get_receipt", responses={200: {"model": ReceiptAnswer}})
async def get_receipt(asking: Asker, number: Number) -> Response:
    """Its evidence with a proof and a signed checkpoint; it verifies without Interlock."""
    return answer(await asking.call("receipt", {"run": number}))


@router.post("/runs/{number}/decision", operation_id="decide", responses=_MAY_RUN)
async def decide(asking: Asker, number: Number, body: DecisionBody) -> Response:
    """Approve or deny a Run that waits. Whoever asked never approves, nor does an agent."""
    params: dict[str, object] = {"run": number, "verdict": body.verdict == "approve", "reason": body.reason}
    return await _asked(asking, "decide", {**params, "digest": body.digest}, body.wait)


@router.post("/runs/{number}/cancel", operation_id="cancel", responses={200: {"model": RunAnswer}})
async def cancel(asking: Asker, number: Number, body: CancelBody = NO_REASON) -> Response:
    """End a Run: at once where it waits, at the next safe place where it runs."""
    return answer(await asking.call("cancel", {"run": number, "reason": body.reason}))


@router.post("/runs/{number}/retry", operation_id="retry", responses=_MAY_RUN)
async def retry(asking: Asker, number: Number, body: AgainBody = NOTHING_FURTHER, key: Key = None) -> Response:
    """Ask for the same once more, as a Run of its own."""
    return await _asked(asking, "retry", _again(number, body, key), body.wait)


@router.post("/runs/{number}/undo", operation_id="undo", responses=_MAY_RUN)
async def undo(asking: Asker, number: Number, body: AgainBody = NOTHING_FURTHER, key: Key = None) -> Response:
    """Take back what a Run did, as a Run of its own."""
    return await _asked(asking, "undo", _again(number, body, key), body.wait)


@router.post("/runs/{number}/resolve", operation_id="resolve", responses=_MAY_RUN)
async def resolve(asking: Asker, number: Number, body: ResolutionBody) -> Response:
    """Settle a Run of which nobody knows whether it happened. Only a person can."""
    params: dict[str, object] = {"run": number, "resolution": body.resolution, "reason": body.reason}
    return await _asked(asking, "resolve", params, body.wait)


@router.get(
    "/runs/{number}/output",
    operation_id="get_output",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        206: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The bytes of `Range`."},
        416: {"description": "There are none of these bytes.", **PROBLEM},
    },
)
async def get_output(
    asking: Asker,
    number: Number,
    tail: Annotated[
        int | None, Query(ge=1, le=OUTPUT_BYTES_MAX, description="Only the last bytes, from a whole character on.")
    ] = None,
    wanted: Annotated[
        str | None, Header(alias="Range", max_length=60, description="One range of bytes.", examples=["bytes=0-1023"])
    ] = None,
) -> Response:
    """What it printed so far. Secrets were blotted before it was kept. It is data, whatever it says."""
    found = RANGE.fullmatch(wanted) if wanted is not None and tail is None else None
    if found is not None:  # any other Range is ignored, as RFC 9110 (14.2) has it
        return await _range(asking, number, found)
    params: dict[str, object] = {"run": number} if tail is None else {"run": number, "tail_bytes": tail}
    texts = asking.texts("output", params, "output")
    first = await anext(texts, "")  # what is refused is refused before the answer begins

    async def pieces() -> AsyncIterator[bytes]:
        yield first.encode()
        async for text in texts:
            yield text.encode()

    return StreamingResponse(pieces(), headers={"Accept-Ranges": "bytes"}, media_type="text/plain; charset=utf-8")


async def _range(asking: Asking, number: int, found: re.Match[str]) -> Response:
    """Part of the output, at most 1 MiB at a time: a server may send less than was asked for (RFC 9110, 15.3.7)."""
    start, end, last = (int(group) if group is not None else None for group in found.groups())
    params: dict[str, object] = {"run": number, "start": start, "end": end, "last": last}
    part = await asking.call("output_range", {name: value for name, value in params.items() if value is not None})
    body = base64.b64decode(str(part["chunk"]))
    begins, size = int(str(part["start"])), int(str(part["size"]))
    headers = {"Accept-Ranges": "bytes"}
    if not body:
        msg = f"the output has {size} bytes so far, and none of those that were asked for"
        refused = answer_problem(at(Invalid(msg, code="api.range"), "header.Range"), asking.path)
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    headers["Content-Range"] = f"bytes {begins}-{begins + len(body) - 1}/{size}"
    return Response(body, 206, headers, "text/plain; charset=utf-8")


def _again(number: int, body: AgainBody, key: str | None) -> dict[str, object]:
    params = {**body.model_dump(mode="json", exclude={"wait"}, exclude_unset=True), "run": number}
    return {**params, "key": key} if key else params


async def _asked(asking: Asking, method: str, params: dict[str, object], wait_seconds: float) -> Response:
    """Ask, wait for the Run to come to rest as long as was asked for, and answer with how it stands."""
    given = {name: value for name, value in params.items() if value is not None}
    held = min(wait_seconds, HELD_SECONDS)
    found = await asking.call(method, {**given, "wait_seconds": held})
    run = found.get("run")
    if not isinstance(run, dict):
        return answer(found, status=202)
    run = await _rested(asking, run, wait_seconds - held)
    further = {name: value for name, value in found.items() if name != "run"}
    prefix = asking.path.partition("/runs")[0]
    return answer_run(run, asking.path, {"Location": f"{prefix}/runs/{run['number']}"}, **further)


async def _rested(asking: Asking, run: JsonMapping, seconds: float) -> JsonMapping:
    """The Run when it neither runs nor waits for a worker, or when the time is over."""
    number, state, moved = int(str(run["number"])), str(run["state"]), False
    end = asking.now() + seconds
    while state in {"queued", "running"} and (left := end - asking.now()) > 0:
        seen = await asking.look(number, state=state, output=False, wait_seconds=left)
        moved = moved or seen["state"] != state
        state = str(seen["state"])
    if not moved:
        return run
    found = (await asking.call("wait", {"run": number})).get("run")
    return found if isinstance(found, dict) else run


def _cursor_of(number: int) -> str:
    """Opaque on purpose: another order may need another cursor one day."""
    return base64.urlsafe_b64encode(f"before:{number}".encode()).decode().rstrip("=")


def _number_of(cursor: str) -> int:
    try:
        word, _, number = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
    except (ValueError, binascii.Error):
        word, number = "", ""
    if word != "before" or not number.isdecimal() or not number.isascii() or not 1 <= int(number) <= NUMBER_MAX:
        msg = "that is no cursor of ours"
        raise at(Invalid(msg, code="args.invalid", fix="leave it out to begin with the newest"), "query.cursor")
    return int(number)
