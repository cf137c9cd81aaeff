"""What every request passes before it is understood: host, token, rate, size, time; and headers on every answer."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from starlette.datastructures import Headers
from structlog.contextvars import bind_contextvars, clear_contextvars

from interlock.core.errors import Denied, InterlockError, Invalid, Transient
from interlock.core.http import HttpLimits
from interlock.core.trace import join_trace
from interlock.interfaces.http.problems import answer_problem, bug, missing_token

log = structlog.get_logger()

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Introduce = Callable[[str], Awaitable[None]]
"""Asks the resident process whose a token is. Raises Denied where it is nobody's, Transient."""

TOKEN = re.compile(r"ilk_[a-z2-7]{12}_[A-Za-z0-9_-]{43,128}")
OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Answered without a token: they say up or not, and no more."""

HOOKS = re.compile(r"(?:/api/v1)?/judge/[a-z0-9-]{1,63}/[a-z-]{1,30}")
"""Where a caller that cannot send headers may present its token in the body instead: see `judge_routes.py`."""

STRANGER_BODY_BYTES_MAX = 64 * 1024
"""Of a request without a token in its header."""

TOKENS_KEPT = 10_000
REFUSED_MAX = 10
REFUSED_SECONDS = 60.0
GOOD_SECONDS = 60.0
"""How long a token counts as good here without asking again; whatever it is used for is looked up by the resident
process all the same."""

VERSION_6_BITS = 64
"""Of an address of version 6: whoever has one has all that begin with them."""

WRITE_SECONDS_MAX = 60.0
"""How long whoever reads an answer may not take the next piece of it."""

DRAINED_BYTES_MAX = 8 * 1024 * 1024
DRAIN_SECONDS_MAX = 1.0
"""Of a body that is refused, so that its sender reads why instead of being cut off."""

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"server", b"interlock"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
PRIVATE: tuple[bytes, bytes] = (b"cache-control", b"no-store")


class Rates:
    """A bucket for each token, by its digest: whoever guesses at a token empties another bucket than its bearer."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = max(1.0, 2 * per_second)
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, key: bytes, now: float) -> None:
        """One request. Raises Transient, with the seconds to wait, when the bucket is empty."""
        left, filled_at = self._buckets.get(key, (self._most, now))
        left = min(self._most, left + (now - filled_at) * self._per_second)
        if left < 1:
            seconds = max(1, round((1 - left) / self._per_second + 0.5))
            msg = f"more than {self._per_second:g} requests a second came with this token"
            details: dict[str, object] = {"retry_after_seconds": seconds}
            raise Transient(msg, code="api.rate", fix="wait, and ask less often", details=details, effect_sent=False)
        self._buckets[key] = (left - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > TOKENS_KEPT:
            self._buckets.popitem(last=False)


class Strangers:
    """Counts refused tokens of each address, so that guesses do not become questions to the resident process.

    A token that was good is never held up by others' guesses.
    """

    def __init__(self) -> None:
        self._refused: OrderedDict[str, deque[float]] = OrderedDict()
        self._good: OrderedDict[bytes, float] = OrderedDict()

    def is_good(self, key: bytes, now: float) -> bool:
        """Whether this token was good within the last minute."""
        return now - self._good.get(key, -GOOD_SECONDS) < GOOD_SECONDS

    def require_few(self, address: str, key: bytes, now: float) -> None:
        """Raises Transient where too many tokens from there were refused within a minute."""
        times = self._refused.get(address)
        if key in self._good or times is None or len(times) < REFUSED_MAX or now - times[0] >= REFUSED_SECONDS:
            return
        msg = f"{REFUSED_MAX} tokens from your address were refused within {REFUSED_SECONDS:.0f} s"
        details: dict[str, object] = {"retry_after_seconds": round(REFUSED_SECONDS)}
        raise Transient(msg, code="token.too_many_failures", fix="wait a minute", details=details, effect_sent=False)

    def note_refused(self, address: str, key: bytes, now: float) -> None:
        """That token was none, or is none any more."""
        self._good.pop(key, None)
        self._refused.setdefault(address, deque(maxlen=REFUSED_MAX)).append(now)
        self._refused.move_to_end(address)
        if len(self._refused) > TOKENS_KEPT:
            self._refused.popitem(last=False)

    def note_good(self, key: bytes, now: float) -> None:
        """The resident process knows whose it is."""
        self._good[key] = now
        self._good.move_to_end(key)
        if len(self._good) > TOKENS_KEPT:
            self._good.popitem(last=False)


class Body:
    """Hands on a request's body piece by piece, and refuses what is too much or too slow."""

    def __init__(self, receive: Receive, limits: HttpLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self.bytes_max = limits.body_bytes_max
        self._deadline: float | None = None
        self.ended = False

    async def __call__(self) -> Message:
        """The next message. Raises Invalid: `api.body_size`, `api.body_slow`."""
        if self.ended:
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._limits.body_seconds_max
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            msg = f"the body took longer than {self._limits.body_seconds_max:g} s"
            raise Invalid(msg, code="api.body_slow", fix="send it at once") from None
        self._size += len(message.get("body", b""))
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._size > self.bytes_max:
            raise too_large(self.bytes_max)
        return message

    async def drain(self) -> None:
        """Throw away what still comes, for a moment."""
        left = DRAINED_BYTES_MAX
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                while not self.ended and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        except TimeoutError:
            log.debug("http.body_left_behind")


class Gate:
    """The outermost part of the application.

    Args:
        app: What is behind it.
        limits: Bounds.
        hosts: Names by which clients may call, besides addresses and localhost.
        introduce: Asked about each token that is new here, before anything else is done with it: many answers come from
            this process alone, and a guess must not be answered as if it had been right.
    """

    def __init__(
        self, app: App, limits: HttpLimits, hosts: tuple[str, ...], introduce: Introduce, *, secure: bool
    ) -> None:
        self._app = app
        self._introduce = introduce
        self._limits = limits
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._rates = Rates(limits.requests_per_second)
        self._strangers = Strangers()
        self._headers = SECURITY_HEADERS
        if secure:
            self._headers += ((b"strict-transport-security", b"max-age=31536000"),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what is not HTTP is refused."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        trace = join_trace(Headers(scope=scope).get("traceparent"))
        clear_contextvars()
        bind_contextvars(trace_id=trace.trace_id, method=scope["method"], path=scope["path"])
        answer = Answer(send, self._headers)
        body = Body(receive, self._limits)
        try:
            await self._admit(scope)
            if scope["interlock.token"] is None:
                body.bytes_max = min(body.bytes_max, STRANGER_BODY_BYTES_MAX)
            await self._serve(scope, body, answer)
        except InterlockError as error:
            await answer.problem(scope, error)
        except Exception as error:
            log.exception("http.bug", error_code="bug")
            if answer.started:
                raise
            await answer.problem(scope, bug(error))
        if scope.get("interlock.token") is not None and answer.status == HTTPStatus.UNAUTHORIZED:
            self._strangers.note_refused(_address_of(scope), scope["interlock.bearer"], _now())
        if not body.ended and not scope.get("interlock.stream"):
            await body.drain()

    async def _serve(self, scope: Scope, body: Body, answer: Answer) -> None:
        """Raises Transient when no answer began in time."""
        limit = asyncio.timeout(self._limits.answer_seconds_max)
        answer.on_start = lambda: limit.reschedule(None)
        try:
            async with limit:
                await self._app(scope, body, answer)
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = f"no answer after {self._limits.answer_seconds_max:g} s"
            raise Transient(msg, code="api.slow", fix="ask again with the same Idempotency-Key") from error

    async def _admit(self, scope: Scope) -> None:
        """Raises Invalid, Denied, Transient."""
        headers = Headers(scope=scope)
        self._require_host(headers.getlist("host"))
        scope["interlock.token"] = None
        token = bearer_of(headers)
        if scope["path"] in OPEN_PATHS:
            await self._recognise(scope, token)
        elif token is None and scope["method"] == "POST" and HOOKS.fullmatch(scope["path"]):
            scope["interlock.let_in"] = partial(self._let_in, scope)
        elif token is None:
            raise missing_token()
        else:
            await self._let_in(scope, token)
        if headers.get("content-encoding", "identity").lower() != "identity":
            msg = "a body is sent as it is, not compressed"
            raise Invalid(msg, code="api.media_type", fix="leave out Content-Encoding")
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 12 or int(length) > self._limits.body_bytes_max):  # noqa: PLR2004
            raise too_large(self._limits.body_bytes_max)

    async def _recognise(self, scope: Scope, token: str | None) -> None:
        """Where nobody needs a token, one that is not good is as none."""
        if token is not None:
            with suppress(InterlockError):
                await self._let_in(scope, token)

    async def _let_in(self, scope: Scope, token: str) -> None:
        """Raises Denied, Transient."""
        address, key = _address_of(scope), hashlib.sha256(token.encode()).digest()
        self._strangers.require_few(address, key, _now())
        self._rates.take(key, _now())
        if not self._strangers.is_good(key, _now()):
            try:
                await self._introduce(token)
            except Denied as error:
                if error.code == "token.refused":
                    self._strangers.note_refused(address, key, _now())
                raise
            self._strangers.note_good(key, _now())
        scope["interlock.token"], scope["interlock.bearer"] = token, key

    def _require_host(self, given: list[str]) -> None:
        """Raises Invalid for a name that is not ours: a page of another site may have its name point here."""
        name = given[0].lower() if len(given) == 1 else ""
        host = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
        host = host.rstrip(".")
        if host == "localhost" or host in self._hosts or _is_address(host):
            return
        msg = f"nobody here is called {host[:100]!r}"
        raise Invalid(msg, code="api.host", fix="add the name under `http: hosts:` in interlock.yaml")


class Answer:
    """Sends an answer with the headers that all have, piece by piece, and gives up on who does not read."""

    def __init__(self, send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._send = send
        self._headers = headers
        self.started = False
        self.status = 0
        self.on_start: Callable[[], None] = lambda: None

    async def __call__(self, message: Message) -> None:
        """One message. Raises ConnectionAbortedError when nobody reads."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, int(message["status"])
            self.on_start()
            given = [(name.lower(), value) for name, value in message.get("headers", [])]
            named = {name for name, _ in given}
            further = [each for each in (*self._headers, PRIVATE) if each[0] not in named]
            message = {**message, "headers": [*given, *further]}
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await self._send(message)
        except TimeoutError as error:
            msg = "nobody reads the answer"
            raise ConnectionAbortedError(msg) from error

    async def problem(self, scope: Scope, error: InterlockError) -> None:
        """The error as an answer; where one had begun the connection is cut, so that nobody takes it for whole."""
        if self.started:
            raise error
        await answer_problem(error, scope["path"])(scope, _nothing, self)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def bearer_of(headers: Headers) -> str | None:
    """The token of `Authorization: Bearer ilk_...` (RFC 6750, section 2.1); None where there is none that could be."""
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token if scheme.lower() == "bearer" and TOKEN.fullmatch(token) else None


def too_large(bytes_max: int) -> Invalid:
    """The body has more bytes than are taken."""
    msg = f"a body of more than {bytes_max:,} bytes is not taken"
    return Invalid(msg, code="api.body_size", fix="put large content into a file and name the file")


def _address_of(scope: Scope) -> str:
    """The address of the other end, of version 6 its network; that of the proxy where there is one."""
    client = scope.get("client")
    text = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv4Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), VERSION_6_BITS), strict=False))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
