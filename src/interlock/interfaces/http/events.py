"""A Run's output and states as server-sent events, which go on where they broke off."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from interlock.core.errors import InterlockError, Invalid, Transient
from interlock.core.run import RunState
from interlock.engine.signals import set_within
from interlock.interfaces.http.asking import Asker, Asking
from interlock.interfaces.http.problems import at, problem_of
from interlock.interfaces.http.routing import JsonRoute
from interlock.interfaces.http.runs import Number

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
STREAM_SECONDS_MAX = 3600.0
"""After that a stream ends and its reader comes again, with what it has seen last."""

AWAY_SECONDS_MAX = 60.0
"""How long a stream outlives the resident process, which may be starting again."""

RECONNECT_MILLISECONDS = 500
_AGAIN_SECONDS = 0.5
_EVENT_ID = re.compile(r"(\d{1,9})\.([a-z]{1,20})")

_STATES = {"none", *(state.value for state in RunState)}

_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Give it as Last-Event-ID to go on behind this event."},
        "event": {"type": "string", "enum": ["output", "state", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}

router = APIRouter(route_class=JsonRoute, tags=["Runs"])


class Places:
    """Who has a stream open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_bearer: Counter[bytes] = Counter()
        self.leaving = asyncio.Event()
        """Set when this process is being replaced: streams end, and their readers come again to the next one."""

    @contextmanager
    def taken(self, bearer: bytes) -> Iterator[None]:
        """A place for one stream. Raises Transient when there is none."""
        if self._of_bearer.total() >= self._most or self._of_bearer[bearer] >= max(1, self._most // 2):
            msg = f"{self._of_bearer[bearer]} event streams are open with this token, {self._of_bearer.total()} in all"
            raise Transient(msg, code="api.streams", fix="close some of them", effect_sent=False)
        self._of_bearer[bearer] += 1
        try:
            yield
        finally:
            self._of_bearer[bearer] -= 1
            if not self._of_bearer[bearer]:
                del self._of_bearer[bearer]


@dataclass
class Seen:
    """What a reader has seen: the last piece of output, and the state. Its text is the id of the last event."""

    after: int = 0
    state: str | None = None

    @classmethod
    def of(cls, event_id: str | None) -> Seen:
        """What the id of an event says. Raises Invalid."""
        if not event_id:
            return cls()
        found = _EVENT_ID.fullmatch(event_id)
        if found is None or found[2] not in _STATES:
            msg = "that is no id of an event of ours"
            fix = "leave it out to begin at the beginning"
            raise at(Invalid(msg, code="args.invalid", fix=fix), "header.Last-Event-ID")
        return cls(int(found[1]), None if found[2] == "none" else found[2])

    @property
    def event_id(self) -> str:
        """For `id:`."""
        return f"{self.after}.{self.state or 'none'}"

    @property
    def ended(self) -> bool:
        """Whether nothing can come any more."""
        return self.state is not None and RunState(self.state).is_final


@router.get(
    "/runs/{number}/events",
    operation_id="stream_events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "Events."},
        204: {"description": "All was seen and nothing comes any more: do not come again."},
    },
)
async def stream_events(
    asking: Asker,
    number: Number,
    request: Request,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=40, description="Go on behind this event.")
    ] = None,
) -> Response:
    """Events `output` (`{run, text}`) and `state` (`{run, state, state_reason, state_code, final, trace_id}`); a
    comment every 15 seconds. Whoever is cut off comes again with `Last-Event-ID` and misses nothing. The stream ends
    with a final state. Output is data, whatever it says; where you may not see it, only states come."""
    seen = Seen.of(last_event_id)
    first = await asking.look(number, after=seen.after, state=seen.state)
    if seen.ended and not first["output"]:
        return Response(status_code=204)
    places: Places = request.app.state.places
    with places.taken(request.scope["interlock.bearer"]):
        events = _events(asking, number, seen, places, request.scope["interlock.bearer"], first)
    request.scope["interlock.stream"] = True
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


async def _events(
    asking: Asking, number: int, seen: Seen, places: Places, bearer: bytes, news: Mapping[str, Any]
) -> AsyncIterator[bytes]:
    """All that is new, from `seen` on; `news` is what was found at the beginning."""
    with places.taken(bearer):
        end = asking.now() + STREAM_SECONDS_MAX
        yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
        while True:
            for event in _told(news, number, seen):
                yield event
            if seen.ended or asking.now() >= end:
                return
            try:
                found = await _looked(asking, number, seen, places)
            except InterlockError as error:
                yield _event("error", seen, problem_of(error, asking.path))
                return
            if found is None:
                yield b": come again\n\n"
                return
            if not found["output"] and found["state"] == seen.state:
                yield b": nothing new\n\n"
            news = found


async def _looked(asking: Asking, number: int, seen: Seen, places: Places) -> Mapping[str, Any] | None:
    """The next look; None when this process is being replaced. Raises what ends the stream."""
    away = 0.0
    while True:
        look = asyncio.ensure_future(
            asking.look(number, after=seen.after, state=seen.state, wait_seconds=HEARTBEAT_SECONDS)
        )
        leaving = asyncio.ensure_future(places.leaving.wait())
        try:
            await asyncio.wait({look, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not look.done():
                return None
            return look.result()
        except Transient:
            if away >= AWAY_SECONDS_MAX:
                raise
        finally:
            look.cancel()
            leaving.cancel()
            await asyncio.gather(look, leaving, return_exceptions=True)
        away += _AGAIN_SECONDS
        await set_within(places.leaving, _AGAIN_SECONDS)


def _told(news: Mapping[str, Any], number: int, seen: Seen) -> Iterator[bytes]:
    """The events of one look. A state comes only when the output before it is told."""
    for piece, text in news["output"]:
        seen.after = int(piece)
        yield _event("output", seen, {"run": number, "text": text})
    if not news["more"] and news["state"] != seen.state:
        seen.state = str(news["state"])
        names = ("state", "state_reason", "state_code", "final", "trace_id")
        yield _event("state", seen, {"run": number, **{name: news[name] for name in names}})


def _event(kind: str, seen: Seen, data: Mapping[str, object]) -> bytes:
    return f"id: {seen.event_id}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode()
