"""Which copies of requests are sent on to both versions, with which headers, and how a person sends one again."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from interlock.core.traffic import CREDENTIAL_HEADERS, Address

SAFE_METHODS = frozenset({"GET", "HEAD"})
"""Requests that change nothing (RFC 9110, 9.2.1): all others are never copied to a version."""
TARGET_CHARACTERS_MAX = 8_000
HEADERS_MAX = 100
SHADOW_HEADER = "x-shadow"
REQUEST_ID_HEADER = "x-request-id"

_TARGET = re.compile(rf"/[!-~]{{0,{TARGET_CHARACTERS_MAX - 1}}}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8000}")
_ONE_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
_OF_A_BODY = frozenset({"content-length", "content-type", "content-encoding"})
# What a client holds of one version's answer (an ETag, a part of it) says nothing to the other.
_CONDITIONS = frozenset({"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
_DROPPED = _ONE_HOP | _OF_A_BODY | _CONDITIONS | {*CREDENTIAL_HEADERS, "accept-encoding", SHADOW_HEADER}
_NEVER_SENT = re.compile(
    r"auth|token|secret|passw|cookie|session|api-?_?key|credential|signature|client-cert|x-envoy-", re.IGNORECASE
)
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:[^=&;?]{0,60}(?:auth|token|secret|passw|session|api[-_]?key|credential|signature)[^=&;?]{0,60}|code)=)"
    r"[^&;]*",
    re.IGNORECASE,
)


class SafeRequest(NamedTuple):
    """A request that may be sent again without harm, without a body and without credentials."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """What the proxy called it; empty when it did not."""
        return next((value for name, value in self.headers if name == REQUEST_ID_HEADER), "")

    def encoded(self, address: Address) -> bytes:
        """On the wire, for a version at this address. The answer is wanted as it is, without compression."""
        headers = self.headers
        if not any(name == "host" for name, _ in headers):
            headers = (("host", address), *headers)
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join((*lines, "accept-encoding: identity", f"{SHADOW_HEADER}: 1", "\r\n")).encode("latin-1")

    def replayed(self, address: Address, secrets_blotted: str | None = None) -> str:
        """The command that sends it to a version again; `secrets_blotted` stands for its target where it holds one."""
        words = ["curl", "-sS", "-g", "--path-as-is", "-m", "10"]
        words += ["-I"] if self.method == "HEAD" else ["-i"]
        for name, value in (*self.headers, (SHADOW_HEADER, "1")):
            words += ["-H", f"{name}: {value}"]
        return shlex.join([*words, f"http://{address}{secrets_blotted or self.target}"])


def safe_request(method: str, target: str, headers: list[tuple[str, str]]) -> SafeRequest | None:
    """The request as it may be sent on, or None when it must not be.

    Credentials are taken out once more, whatever the proxy did; so is every header that is named like one, all that
    belongs to one hop or to a body, and what makes an answer depend on what the client has already.
    """
    if method not in SAFE_METHODS or _TARGET.fullmatch(target) is None or len(headers) > HEADERS_MAX:
        return None
    of_connection = {
        name.strip().lower() for key, value in headers if key.lower() == "connection" for name in value.split(",")
    }
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower in _DROPPED or lower in of_connection or _NEVER_SENT.search(lower):
            continue
        if _NAME.fullmatch(lower) is None or _VALUE.fullmatch(value) is None:
            return None
        kept.append((lower, value.strip()))
    return SafeRequest(method, target, tuple(kept))


def without_secret_parameters(target: str) -> str:
    """A target in which what is named like a secret is blotted out."""
    return _SECRET_PARAMETER.sub(r"\1[redacted]", target)
