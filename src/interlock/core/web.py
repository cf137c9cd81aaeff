"""HTTP services of others: how interlock.yaml declares them, what is sent to them, and what comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field, model_validator

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.plan import Discloses
from interlock.core.secret_reference import SecretReference
from interlock.lib.canonical import digest_of
from interlock.lib.url import Url, UrlFault, parse_url

BODY_BYTES_MAX = 256 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024
SECRET_PLACE = "{secret}"  # noqa: S105 - where the secret goes, not what it is

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
READS: frozenset[str] = frozenset({"GET", "HEAD"})
DestinationName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,63}): ([!-~][ -~]{0,500})")
_PATTERN = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%/*-]{0,500}")


def _url(text: str) -> str:
    try:
        url = parse_url(text)
    except UrlFault as fault:
        raise ValueError(str(fault)) from None
    if url.target != "/":
        msg = "write only scheme, host and port; paths are listed under `paths`"
        raise ValueError(msg)
    return text


def _path(text: str) -> str:
    if _PATTERN.fullmatch(text) is None or "//" in text:
        msg = f"{text!r} is no path such as /v1/orders, /v1/orders/* (one part) or /v1/** (all below)"
        raise ValueError(msg)
    return text


def _credential_header(text: str) -> str:
    if _HEADER.fullmatch(text) is None or text.count(SECRET_PLACE) != 1:
        msg = f"write it as `Authorization: Bearer {SECRET_PLACE}`"
        raise ValueError(msg)
    return text


class HttpDestination(Frozen):
    """One HTTP service that `http.request` may call, and how.

    `url` is scheme, host and port. `methods` and `paths` list what may be asked for: `*` in a path is one part of it,
    `**` everything below. GET and HEAD count as reading, all other methods as changes of the given `risk`.
    `credential` names a secret that is put into `credential_header`. `headers` names further headers an asker may set.

    `private: true` lets it lie in a private network or on this machine; only then may it be plain http. Metadata and
    link-local addresses are reached only when `url` names them as numbers as well; multicast addresses never.

    `repeatable_methods` are those that do the same when they are performed twice. `idempotency_key: true` says that the
    service honours the header `Idempotency-Key`: POST and PATCH carry one then and may be repeated.
    """

    url: Annotated[str, AfterValidator(_url)]
    methods: tuple[Method, ...] = ("GET", "HEAD")
    paths: Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], Field(min_length=1, max_length=200)]
    credential: SecretReference | None = None
    credential_header: Annotated[str, AfterValidator(_credential_header)] = f"Authorization: Bearer {SECRET_PLACE}"
    headers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")], ...] = ()
    private: bool = False
    certificate_authority: Annotated[str, Field(pattern=r"^/")] | None = None
    """An absolute path to certificates (PEM) to trust instead of the system's."""
    risk: Literal["low", "medium", "high"] = "high"
    discloses: Discloses = "content"
    repeatable_methods: tuple[Method, ...] = ()
    idempotency_key: bool = False
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    connect_timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    response_bytes_max: int = Field(default=BODY_BYTES_MAX, ge=1, le=RESPONSE_BYTES_MAX)

    @model_validator(mode="after")
    def _consistent(self) -> HttpDestination:
        if parse_url(self.url).scheme == "http" and not self.private:
            msg = "plain http is for `private: true` alone; write https://"
            raise ValueError(msg)
        return self

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return parse_url(self.url).origin

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the whole declaration; which secret it names is part of it, and the secret is not."""
        return digest_of(self.model_dump(mode="json"))

    def why_not(self, method: str, url: Url) -> str | None:
        """Why this may not be asked for here; None when it may."""
        if url.origin != self.origin:
            return f"it is not at {self.url}"
        if method not in self.methods:
            return f"it takes {', '.join(self.methods)} and not {method}"
        if not any(_fits(pattern, url.path) for pattern in self.paths):
            return f"it has the paths {', '.join(self.paths)} and not {url.path}"
        return None

    def is_repeatable(self, method: str) -> bool:
        """Whether to perform this method twice is to perform it once."""
        return method in READS or method in self.repeatable_methods or self.sends_key(method)

    def sends_key(self, method: str) -> bool:
        """Whether a request carries an Idempotency-Key."""
        return self.idempotency_key and method in {"POST", "PATCH"}


def _fits(pattern: str, path: str) -> bool:
    pieces = re.split(r"(\*\*|\*)", pattern)
    wild = {"**": ".*", "*": "[^/]+"}
    return re.fullmatch("".join(wild.get(piece) or re.escape(piece) for piece in pieces), path) is not None


class WebRequest(Frozen):
    """One exchange. No secret is in it: `credential` is a reference, resolved when it is sent."""

    method: Method
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    credential: str | None = None
    credential_header: str = ""
    private: bool = False
    named: bool = False
    """The declaration names the address as numbers."""
    certificate_authority: str | None = None
    timeout_seconds: float
    connect_timeout_seconds: float
    response_bytes_max: int


class WebAnswer(Frozen):
    """What came back: data, never instructions. The credential is blotted out of it.

    `body` is decompressed and at most `response_bytes_max` long; `truncated` says that there was more. `unreadable`
    says why there is no body although there was one. `address` is the one that was called.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    address: str
    unreadable: str | None = None

    def header(self, name: str) -> str | None:
        """The first header of this name, in lower case."""
        return next((value for known, value in self.headers if known.lower() == name), None)


class Web(Protocol):
    """Sends one request and follows nothing."""

    def exchange(self, request: WebRequest, *, hold: Callable[[], None], cancelled: Callable[[], bool]) -> WebAnswer:
        """Resolve the host once, check every address, connect to a checked one, send and read within all bounds.

        `hold` is called right before the first byte is sent, `cancelled` again and again while it lasts. No message
        holds a secret or words of the server.

        Raises: Denied (the address is not allowed, or the certificate is not the host's; nothing was sent), Transient
            with effect_sent False (no such name, no connection), Transient with effect_sent True (no whole answer in
            time, gone, cancelled), Permanent (an answer that is none), and as the secret's resolution does.
        """
        ...


WEB: OutsideKey[Web] = OutsideKey("HTTP services of others")
