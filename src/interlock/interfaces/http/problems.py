"""Errors as problem details (RFC 9457), all from the one table of codes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from interlock.core.errors import Denied, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.model import JsonObject
from interlock.interfaces.errors import ERROR_CODES, HTTP_STATUS_OF_CODE, STATE_CODES

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="interlock"'
RETRY_SECONDS = 1
TITLES: dict[str, str] = {
    "invalid": "The request is wrong",
    "not_found": "There is no such thing",
    "denied": "Policy says no",
    "conflict": "Something else stands in the way",
    "stale": "The world changed",
    "transient": "Not now",
    "permanent": "It does not work",
}
"""By kind; the same for all errors of a kind, as RFC 9457 wants it."""


def at(error: InterlockError, place: str) -> InterlockError:
    """The error, with the part of the request that is wrong: `body.action`, `query.limit`, `header.Idempotency-Key`."""
    error.details = {**error.details, "place": place}
    return error


def status_of(error: InterlockError) -> int:
    """The HTTP status: by code where HTTP has a word of its own for it, otherwise by kind."""
    return HTTP_STATUS_OF_CODE.get(error.code, ERROR_CODES[error.kind].http_status)


def problem_of(error: InterlockError, instance: str | None = None) -> JsonObject:
    """The body: RFC 9457's members, and `kind`, `code`, `fix`, `place` and `details` as every interface has them."""
    told = json.loads(json.dumps(error.to_json(), default=str))
    details = told["details"]
    place = details.pop("place", None)
    return {
        "type": f"urn:interlock:error:{error.code}",
        "title": TITLES[error.kind],
        "status": status_of(error),
        "detail": error.message,
        "instance": instance,
        "kind": error.kind,
        "code": error.code,
        "fix": error.fix,
        "place": place,
        "details": details,
    }


def answer_problem(error: InterlockError, instance: str | None = None, **more: object) -> Response:
    """The response to an error; `more` are further members."""
    body = {**problem_of(error, instance), **more}
    return Response(_encoded(body), status_of(error), headers_of(error), MEDIA_TYPE)


def headers_of(error: InterlockError) -> dict[str, str]:
    """What goes with some statuses."""
    status, headers = status_of(error), {}
    if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: it comes with a challenge
        headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, Transient):
        seconds = error.details.get("retry_after_seconds")
        headers["Retry-After"] = str(seconds if isinstance(seconds, int) else RETRY_SECONDS)
    return headers


def answer_run(run: Mapping[str, object], instance: str, headers: Mapping[str, str], **more: object) -> Response:
    """A Run that was asked for: as a problem where its state counts as one, otherwise as it is."""
    state = str(run.get("state"))
    status = STATE_CODES[state].http_status if state in STATE_CODES else 200
    body: dict[str, object] = {"run": run, **more}
    if status < 400:  # noqa: PLR2004 - where errors begin
        return Response(_encoded(body), status, dict(headers), "application/json")
    code, reason = str(run.get("state_code") or f"run.{state}"), str(run.get("state_reason") or f"the Run is {state}")
    told = {
        "type": f"urn:interlock:error:{code}",
        "title": f"The Run is {state}",
        "status": status,
        "detail": reason,
        "instance": instance,
        "kind": "denied" if state == "denied" else "stale" if state == "stale" else "conflict",
        "code": code,
        "fix": f"interlock why {run.get('number')}",
        "place": None,
        "details": {},
        **body,
    }
    return Response(_encoded(told), status, dict(headers), MEDIA_TYPE)


def _encoded(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


def missing_token() -> Denied:
    """Nobody asks."""
    msg = "this needs a token: Authorization: Bearer ilk_..."
    return Denied(msg, code="token.missing", fix="interlock tokens create")


def unknown_route(path: str) -> NotFound:
    """No such path."""
    msg = f"there is nothing at {path[:200]!r}"
    return NotFound(msg, code="api.path", fix="GET /api/v1/openapi.json lists what there is")


def wrong_method(method: str) -> Invalid:
    """The path takes other methods."""
    msg = f"this path does not take {method[:20]}"
    return Invalid(msg, code="api.method", fix="see the header Allow")


def bug(error: Exception) -> Permanent:
    """What was not foreseen; the text of the error stays in the log."""
    msg = f"Interlock has a bug: {type(error).__name__}"
    return Permanent(msg, code="bug", fix="see serve.log in the state folder")
