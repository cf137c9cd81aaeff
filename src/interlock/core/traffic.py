"""How requests of users are shared between versions: what is in force at a proxy, and what a proxy must do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey

WHOLE = 10_000
"""All of the traffic, in basis points."""
_PORT_MAX = 65_535

CREDENTIAL_HEADERS = (
    *("authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token", "x-access-token"),
    *("x-csrf-token", "x-xsrf-token", "x-amz-security-token", "x-forwarded-access-token", "x-id-token"),
)
"""Never part of a copy: a candidate must not act in a user's name."""

WorkloadName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
CookieName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]

_ADDRESS = re.compile(r"(?P<host>[0-9.]{7,15}|\[[0-9a-f:]{2,39}\]|[A-Za-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})")


def _address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if found is None or not 1 <= int(found["port"]) <= _PORT_MAX:
        msg = f"{value!r} is not HOST:PORT, as 127.0.0.1:8080"
        raise ValueError(msg)
    return value


Address = Annotated[str, AfterValidator(_address)]
"""HOST:PORT."""


class Sticky(Frozen):
    """By what one user is known again, so that he stays with the version he got.

    Exactly one of: `cookie` (set on users who come without), `header` (as x-user-id, which the clients send), or
    `address` (the client's network address).
    """

    cookie: CookieName | None = None
    """A cookie of this name, given to whoever comes without one."""
    header: HeaderName | None = None
    """A request header that names the user."""
    address: bool = False
    """The client's network address."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.cookie is not None) + (self.header is not None) + self.address != 1:
            msg = "give exactly one of `cookie`, `header` and `address: true`"
            raise ValueError(msg)
        return self


class Arm(Frozen):
    """One version that users can reach: where it listens, and its share in basis points (1/100 of a percent)."""

    name: VersionName
    address: Address
    share: int = Field(ge=0, le=WHOLE)


class Mirror(Frozen):
    """A copy of some safe requests (GET and HEAD), sent to whoever compares; users never notice.

    `address` is the comparator's; `share` of the requests in basis points.
    """

    address: Address
    share: int = Field(ge=0, le=WHOLE)


class Routing(Frozen):
    """All that a proxy must know about one workload: one document, put in force as a whole or not at all.

    Args:
        workload: Whose requests.
        listen: Where users come.
        salt: Makes assignments of different releases independent of each other; kept over a release, so that nobody
            drifts: a user whose hash of salt and unit lies below the candidate's share has the candidate.
        arms: The stable version first, the candidate last. Shares sum up to `WHOLE`.
        sticky: By what a user is known again.
        testers: With this header set to an arm's name, that arm answers whatever its share.
        mirror: Where copies go, while there is a shadow.
        fallback: For requests that may be repeated (GET, HEAD): when the candidate fails to answer, the stable version
            answers instead. The attempt still counts against the candidate.
        timeout_seconds: For an answer.
    """

    workload: WorkloadName
    listen: Address
    salt: str = Field(default="0", pattern=r"^[A-Za-z0-9_-]{1,40}$")
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=4)
    sticky: Sticky = Sticky(cookie="interlock-unit")
    testers: HeaderName | None = None
    mirror: Mirror | None = None
    fallback: bool = False
    timeout_seconds: float = Field(default=15.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if sum(arm.share for arm in self.arms) != WHOLE:
            msg = f"the shares of the arms sum up to {sum(arm.share for arm in self.arms)}, and not to {WHOLE}"
            raise ValueError(msg)
        if len({arm.name for arm in self.arms}) != len(self.arms):
            msg = "two arms have the same name"
            raise ValueError(msg)
        return self


def moving(routing: Routing) -> str:
    """How a person lets users of a workload come where interlock.yaml says by now, with the versions that they have."""
    shares = ",".join(f'"{arm.name}":{arm.share}' for arm in routing.arms if arm.share)
    command = f"interlock do traffic.route --arg workload={routing.workload} --arg 'shares={{{shares}}}'"
    return f"move its users there, none of whom is answered at {routing.listen} then: {command}"


class Sample(NamedTuple):
    """One attempt to get an answer from a version, as the proxy saw it.

    `status` 0 means that no answer came. `client_left` is no fault of the version. `unit` is a short hash of the user
    where the proxy knows him, and `request` joins the attempts of one request; both may be empty. `fell_back` is set on
    an attempt that the stable version answered for the candidate. `chosen` is set where the client asked for this
    version by the header for testers: that is no evidence, because one client could make as much of it as he likes.
    """

    at_seconds: float
    """Since 1970, by the proxy's clock."""
    arm: str
    status: int
    seconds: float
    client_left: bool
    fell_back: bool
    unit: str
    request: str
    chosen: bool = False


class TrafficLog(Protocol):
    """What a proxy writes about one workload's requests, read from where the reader was."""

    path: Path

    def read(self, bytes_max: int) -> list[Sample]:
        """The samples since the last call, oldest first; an unfinished last line stays for the next call.

        Survives rotation of the file. Lines that are no samples are counted in `unreadable`, never guessed at.
        """
        ...

    @property
    def unreadable(self) -> int:
        """How many lines could not be read."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Applied(Frozen):
    """A routing that a proxy acknowledged."""

    routing: Routing
    version: str
    """What the proxy calls it: a digest of the routing."""
    seconds: float
    """From writing it until the proxy said that it is in force."""


class DataPlane(Protocol):
    """A proxy that carries requests of users. All calls block and are bounded; none needs the control plane to stay.

    Every call raises Transient when the proxy cannot be reached, and Permanent with the proxy's own words when it does
    not want what it was given: then what was in force before still is.
    """

    def ensure(self) -> None:
        """The proxy runs, with what was last in force; it goes on when Interlock ends."""
        ...

    def apply(self, routing: Routing) -> Applied:
        """Put this in force at once, without failing a request; returns when the proxy acknowledged it."""
        ...

    def current(self, workload: str) -> Routing | None:
        """What is in force."""
        ...

    def in_flight(self, workload: str, arm: str) -> int:
        """How many requests that arm is answering now; 0 means that it is safe to stop it once its share is 0."""
        ...

    def log(self, workload: str, *, from_end: bool) -> TrafficLog:
        """A reader of what happens to this workload's requests, from now on or from the beginning of the file."""
        ...

    def require_read(self, workload: str) -> None:
        """Raises Permanent when users would notice nothing of what is put in force: an operator's proxy does not read
        it. No effect."""
        ...

    def forget(self, workload: str) -> None:
        """Stop listening for it; what is in flight is finished first, for a bounded time."""
        ...


ProxyName = Literal["envoy", "nginx"]

ENVOY: OutsideKey[DataPlane] = OutsideKey("the Envoy proxy")
NGINX: OutsideKey[DataPlane] = OutsideKey("the nginx proxy")
DATA_PLANES: dict[ProxyName, OutsideKey[DataPlane]] = {"envoy": ENVOY, "nginx": NGINX}
