"""What `http.request` is asked with, and what its one step holds."""

from __future__ import annotations

import json
import re
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from interlock.core.errors import Invalid, NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.web import BODY_BYTES_MAX, READS, DestinationName, HttpDestination, Method
from interlock.lib.url import Url, UrlFault, parse_url

HEADERS_OPEN = frozenset(
    {
        *("accept", "accept-language", "content-language", "content-type", "prefer", "x-request-id"),
        *("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
    }
)
"""What every asker may set. Any other header can mean anything (another method, another user), so it is declared."""

HEADERS_NEVER = frozenset(
    {
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("accept-encoding", "content-encoding", "user-agent", "idempotency-key", "authorization", "cookie"),
        *("proxy-authorization", "proxy-connection", "keep-alive"),
    }
)
"""What is Interlock's own to set, whoever declares it."""

_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]{0,2000}[!-~])?")
_JSON = "application/json"


def _plain_url(text: str) -> str:
    try:
        return str(parse_url(text))
    except UrlFault as fault:
        raise ValueError(str(fault)) from None


class RequestArgs(Frozen):
    """`data` is sent as JSON, `body` as it is; `query` is added to what the URL says. Without `expect` any 2xx is well.

    `destination` is one of `http_destinations`; it need not be said where only one fits.
    """

    method: Method = "GET"
    url: Annotated[str, Field(max_length=4096), AfterValidator(_plain_url)]
    destination: DestinationName | None = None
    query: Annotated[dict[str, str], Field(max_length=100)] = {}
    headers: Annotated[dict[str, str], Field(max_length=50)] = {}
    data: JsonObject | None = None
    body: str | None = None
    expect: Annotated[tuple[Annotated[int, Field(ge=200, le=599)], ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        if self.data is not None and self.body is not None:
            msg = "give either `data` or `body`"
            raise ValueError(msg)
        if self.content and self.method in READS:
            msg = f"{self.method} has no body"
            raise ValueError(msg)
        if len(self.content.encode()) > BODY_BYTES_MAX:
            msg = f"the body is over {BODY_BYTES_MAX:,} bytes"
            raise ValueError(msg)
        names = [name.lower() for name in self.headers]
        if len(set(names)) < len(names):
            msg = "a header is given twice"
            raise ValueError(msg)
        for name, value in self.headers.items():
            if _HEADER_VALUE.fullmatch(value) is None:
                msg = f"the header {name!a} holds something else than visible ASCII characters and blanks"
                raise ValueError(msg)
        return self

    @property
    def content(self) -> str:
        """The body as it is sent."""
        if self.data is not None:
            return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        return self.body or ""

    @property
    def whole_url(self) -> Url:
        """With its query. Raises Invalid when it grew too long."""
        added = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in self.query.items())
        url = parse_url(self.url)
        joined = "&".join(part for part in (url.query, added) if part)
        try:
            return parse_url(f"{self.url.partition('?')[0]}?{joined}" if joined else self.url)
        except UrlFault as fault:
            msg = f"the address with its query, {fault}"
            raise Invalid(msg, code="http.url", fix="ask for less") from fault


class PlannedRequest(Frozen):
    """All that the step needs; `declared` is the digest of the destination's declaration that was planned with."""

    destination: str
    declared: str
    method: Method
    url: str
    headers: tuple[tuple[str, str], ...]
    content: str
    expect: tuple[int, ...]


def choose(args: RequestArgs, declared: dict[str, HttpDestination]) -> str:
    """The name of the destination that takes this request.

    Raises: NotFound (none is at this address), Invalid (none takes it, or more than one does).
    """
    url = args.whole_url
    near = {name: found for name, found in declared.items() if found.origin == url.origin}
    if args.destination is not None:
        near = {name: found for name, found in near.items() if name == args.destination}
    if not near:
        msg = f"interlock.yaml declares no HTTP destination {args.destination or ''} at {url.scheme}://{url.authority}"
        known = ", ".join(f"{name} ({found.url})" for name, found in sorted(declared.items()))
        raise NotFound(
            msg.replace("  ", " "),
            code="http.destination_unknown",
            fix=f"there is {known}"
            if known
            else "a person declares it under `http_destinations`, then: interlock policy reload",
        )
    reasons = {name: found.why_not(args.method, url) for name, found in near.items()}
    fitting = sorted(name for name, reason in reasons.items() if reason is None)
    if not fitting:
        name, reason = min(reasons.items())
        msg = f"{args.method} {url.path} is not open at the destination {name}: {reason}"
        raise Invalid(msg, code="http.not_open", fix="a person opens it under `http_destinations`, in interlock.yaml")
    if len(fitting) > 1:
        msg = f"the destinations {', '.join(fitting)} all take this request"
        raise Invalid(msg, code="http.ambiguous", fix=f"say which one: --arg destination={fitting[0]}")
    return fitting[0]


def settled_headers(args: RequestArgs, destination: HttpDestination) -> tuple[tuple[str, str], ...]:
    """The asker's headers, with the type of JSON. Raises Invalid for one that is not his to set."""
    own = destination.credential_header.partition(":")[0].lower() if destination.credential is not None else ""
    allowed = HEADERS_OPEN | {name.lower() for name in destination.headers}
    for name in args.headers:
        if name.lower() in HEADERS_NEVER or name.lower() == own:
            msg = f"the header {name} is not set by who asks"
            raise Invalid(msg, code="http.header", fix="leave it out")
        if name.lower() not in allowed:
            msg = f"the header {name[:64]!a} is not open to who asks"
            raise Invalid(msg, code="http.header", fix="leave it out, or have it listed under the destination")
    found = {name.lower(): value for name, value in args.headers.items()}
    if args.data is not None:
        found.setdefault("content-type", _JSON)
    return tuple(sorted(found.items()))
