"""Verdicts for whoever drives a rollout: Argo Rollouts asks for JSON, Flagger calls hooks and looks at the status."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field, JsonValue
from starlette.responses import Response

from interlock.core.errors import Conflict, NotFound
from interlock.core.rollout_judge import SessionName
from interlock.interfaces.http.asking import Asker, Asking
from interlock.interfaces.http.bodies import NUMBER_MAX, PROBLEM, Open
from interlock.interfaces.http.gate import TOKEN
from interlock.interfaces.http.problems import missing_token
from interlock.interfaces.http.routing import JsonRoute, answer
from interlock.judges.answer import answer_of_release

Hook = Literal[
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
]
"""What Flagger calls the moments at which it asks."""

Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63, examples=["checkout"])]
Session = Annotated[
    SessionName,
    Query(description="What tells this rollout from the next: the new pod template hash.", examples=["7d9"]),
]
Stable = Annotated[
    SessionName | None, Query(description="What the stable version is called, where the judge needs it.")
]


class JudgementAnswer(Open):
    """What a judge says."""

    status: Literal["success", "failure", "inconclusive"] = Field(description="For Argo Rollouts: its three outcomes.")
    verdict: Literal["go", "no_go", "not_yet"]
    summary: str
    seconds_to_go: float | None = Field(description="How long until GO, if both versions are equal; null: not known.")
    measures: list[dict[str, JsonValue]] = Field(description="What each measure says, with its evidence.")


class FlaggerPayload(Open):
    """What Flagger sends; what it may send besides is not looked at."""

    name: str = Field(max_length=253, examples=["checkout"])
    namespace: str = Field(max_length=253, examples=["shop"])
    phase: str = Field(max_length=63, examples=["Progressing"])
    checksum: SessionName = Field(description="Of what is rolled out: it names the session.", examples=["85d557f47b"])
    metadata: dict[str, str] = Field(
        default={}, description="`token`: a token of Interlock's, as Flagger sends no header with it."
    )


async def hook_asking(request: Request) -> Asking:
    """The dependency of hooks: a token in the header as everywhere, otherwise the one in `metadata.token`."""
    token = request.scope["interlock.token"]
    if token is None:
        token = _token_of(await request.json())
        if token is None:
            raise missing_token()
        await request.scope["interlock.let_in"](token)
    return Asking(str(token), None, request.app.state.resident, request.url.path)


HookAsker = Annotated[Asking, Depends(hook_asking)]


async def judge_release(
    asking: Asker, number: Annotated[int, Path(ge=1, le=NUMBER_MAX, description="A release's number.")]
) -> Response:
    """What the judge says of one of Interlock's own releases now, or how it ended. Needs `view:releases`."""
    data = await asking.view("releases", {"release": number})
    releases, judgement = data.get("releases"), data.get("judgement")
    release = releases[0] if isinstance(releases, list) else None
    known = judgement if isinstance(judgement, dict) else None
    return answer(answer_of_release(release if isinstance(release, dict) else {}, known))


async def judge(asking: Asker, name: Name, session: Session, stable: Stable = None) -> Response:
    """What a judge says of a rollout. Whoever asks first begins it; it goes on as long as somebody asks.

    Without traffic, metrics or time enough the answer is `inconclusive`, never `success` and never `failure`. Needs
    `view:judge.NAME`.
    """
    args: dict[str, object] = {"judge": name, "session": session, **({} if stable is None else {"stable": stable})}
    return answer(await asking.view("judge", args))


async def hook(asking: HookAsker, name: Name, hook: Hook, payload: FlaggerPayload) -> Response:
    """A webhook of Flagger's: 200 for yes, 409 for no. `confirm-promotion` is yes at GO alone, `rollback` at NO-GO
    alone; `confirm-rollout`, `pre-rollout`, `rollout` and `confirm-traffic-increase` are yes until NO-GO.
    `post-rollout` ends the session; `event` is heard and changes nothing.
    """
    args: dict[str, object] = {"judge": name, "session": payload.checksum}
    if hook == "event":
        await _known(asking, {**args, "purpose": "look"})
        return answer({"status": "heard"})
    if hook == "post-rollout":
        await _known(asking, {**args, "purpose": "end"})
        return answer({"status": "ended"})
    data = await asking.view("judge", args)
    verdict, summary = str(data.get("verdict")), str(data.get("summary"))
    if _is_yes(hook, verdict):
        return answer({name: data[name] for name in ("status", "verdict", "summary")})
    msg = f"{hook}: {summary}"
    fix = f"interlock judge show {name} --session {payload.checksum}"
    if verdict == "no_go":
        raise Conflict(msg, code="judge.no_go", fix=fix)
    raise Conflict(msg, code="judge.not_yet", fix=fix)


def judge_router(*, described: bool) -> APIRouter:
    """All of them; they are served at two places, and described at one."""
    router = APIRouter(route_class=JsonRoute, tags=["Judges"], prefix="/judge", include_in_schema=described)
    told: dict[int | str, dict[str, Any]] = {200: {"model": JudgementAnswer}}
    # Paths with `release` come first: what is tried first is found first.
    router.get("/release/{number}", operation_id="judge_release", summary="Judge a release", responses=told)(
        judge_release
    )
    router.get("/{name}", operation_id="judge", summary="Judge a rollout that others drive", responses=told)(judge)
    no: dict[int | str, dict[str, Any]] = {409: {"description": "No, or not yet.", **PROBLEM}}
    router.post("/{name}/{hook}", operation_id="judge_hook", summary="Answer a webhook of Flagger's", responses=no)(
        hook
    )
    return router


def _is_yes(hook: Hook, verdict: str) -> bool:
    if hook == "confirm-promotion":
        return verdict == "go"
    if hook == "rollback":
        return verdict == "no_go"
    return verdict in {"go", "not_yet"}


async def _known(asking: Asking, args: dict[str, object]) -> None:
    """Look at a session that may not be; whoever asks must have the right all the same."""
    try:
        await asking.view("judge", args)
    except NotFound as error:
        if error.code != "judge.session_unknown":
            raise


def _token_of(payload: object) -> str | None:
    metadata = payload.get("metadata") if isinstance(payload, dict) else None
    token = metadata.get("token") if isinstance(metadata, dict) else None
    return token if isinstance(token, str) and TOKEN.fullmatch(token) else None
