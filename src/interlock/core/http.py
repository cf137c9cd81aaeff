"""What interlock.yaml says about the HTTP interface: where it listens, with which certificate, and its bounds."""

from __future__ import annotations

from pydantic import Field

from interlock.core.model import Frozen

LISTEN_PATTERN = (
    r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])$"
)


class Tls(Frozen):
    """A certificate (with its chain) and its private key, as PEM files by their absolute paths."""

    certificate: str = Field(pattern="^/")
    key: str = Field(pattern="^/")


class HttpLimits(Frozen):
    """Bounds of the HTTP interface."""

    body_bytes_max: int = Field(default=1024 * 1024, ge=1024, le=4 * 1024 * 1024)
    requests_per_second: float = Field(default=100.0, gt=0, le=100_000)
    """Of one token in the long run; twice as many may come at once."""

    connections_max: int = Field(default=2000, ge=10, le=50_000)
    streams_max: int = Field(default=1000, ge=1, le=20_000)
    """Event streams open at once; one token may have half of them."""

    head_seconds_max: float = Field(default=10.0, ge=1, le=120)
    body_seconds_max: float = Field(default=30.0, ge=1, le=600)
    answer_seconds_max: float = Field(default=120.0, ge=60, le=3600)
    """Until an answer begins."""


class Http(Frozen):
    """The HTTP interface. Without `listen` only an explicit `interlock serve` listens, on 127.0.0.1:7410.

    `hosts` are the names by which clients call it, besides its address and localhost. What is not on a loopback
    address needs `tls`, or a proxy that has it (then say `plain: true`): tokens travel with every request.
    """

    listen: str | None = Field(default=None, pattern=LISTEN_PATTERN)
    tls: Tls | None = None
    plain: bool = False
    hosts: tuple[str, ...] = ()
    limits: HttpLimits = HttpLimits()
