"""Other machines: how one is known here, what is asked of the small door on it, and what that answers."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import OutsideKey
from interlock.core.ports import OUTPUT_BYTES_MAX, ProcessSpec

REQUEST_BYTES_MAX = 1024 * 1024

CONTENT_CHARACTERS_MAX = 512 * 1024
"""Of what is written there, in base64: the plan that comes back holds it twice."""

ORIGINAL_BYTES_MAX = 1024 * 1024
"""Of a file that is replaced or removed there: its original comes here first."""

RemoteAction = Literal["command.exec", "file.write", "file.remove"]

NOT_SENT, LOST = 3, 4
"""How the relay ends when nothing was asked of the other side, and when it fell silent after it was asked."""

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,45}")
_KEY = re.compile(r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,2000}={0,2}")


def _address(text: str) -> str:
    if _ADDRESS.fullmatch(text) is None:
        msg = "an address is a host name, or an address of version 4 or 6"
        raise ValueError(msg)
    return text


def _key(text: str) -> str:
    if _KEY.fullmatch(text) is None:
        msg = "a host key is its type and its base64 text, as in `ssh-ed25519 AAAA...`"
        raise ValueError(msg)
    return text


HostName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
HostAddress = Annotated[str, AfterValidator(_address)]
HostKey = Annotated[str, AfterValidator(_key)]
Account = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]


class RemoteHost(Frozen):
    """A machine whose key was confirmed by a person. `public_key` is ours, which that machine lets in."""

    name: HostName
    user: Account
    address: HostAddress
    port: int = Field(ge=1, le=65535)
    host_keys: tuple[HostKey, ...] = Field(min_length=1, max_length=8)
    public_key: str = ""

    @property
    def authorized_line(self) -> str:
        """What stands in `authorized_keys` over there: this key opens the small door, and nothing else (sshd(8))."""
        return f'restrict,command="interlock door --stdio" {self.public_key}'


class DoorRequest(Frozen):
    """One request to the door of another machine, as one line of JSON.

    `plan` only looks. `run` performs what has exactly the plan of that digest. `read` answers with what the file holds
    now that would be written or removed, where that may be shown; the other side keeps nothing. `argv` and `folder`
    are of `command.exec`, `path` of the other two, `content_base64` of `file.write`. `timeout_seconds` and
    `output_bytes_max` are bounds that the other side may make narrower.
    """

    version: Literal[1] = 1
    id: str = Field(pattern=r"^[A-Za-z0-9:_.-]{1,100}$")
    do: Literal["plan", "run", "read"]
    action: RemoteAction = "command.exec"
    argv: tuple[str, ...] = Field(default=(), max_length=256)
    folder: str | None = Field(default=None, max_length=4096)
    path: str | None = Field(default=None, min_length=1, max_length=4096)
    content_base64: str | None = Field(default=None, max_length=CONTENT_CHARACTERS_MAX)
    timeout_seconds: float | None = Field(default=None, gt=0, le=24 * 3600)
    output_bytes_max: int = Field(default=OUTPUT_BYTES_MAX, ge=0, le=OUTPUT_BYTES_MAX)
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _of_its_action(self) -> Self:
        command = self.action == "command.exec"
        if command != bool(self.argv) or command != (self.path is None) or (command and self.do == "read"):
            msg = "command.exec takes `argv`, and file.write and file.remove take `path`"
            raise ValueError(msg)
        if (self.action == "file.write") != (self.content_base64 is not None):
            msg = "file.write takes `content_base64`, and nothing else does"
            raise ValueError(msg)
        return self


class RemoteHosts(Protocol):
    """The machines that are known here. Nothing of it shows a private key."""

    def scan(self, address: str, port: int) -> tuple[str, ...]:
        """The keys that somebody at this address says are his, sorted. Raises Transient."""
        ...

    def listed(self) -> tuple[RemoteHost, ...]:
        """All of them, by name."""
        ...

    def find(self, name: str) -> RemoteHost:
        """Raises NotFound, naming those there are."""
        ...

    def add(self, host: RemoteHost) -> RemoteHost:
        """Make a key for this machine and write it down; the same one twice is written once.

        Raises: Conflict when another one has its name.
        """
        ...

    def remove(self, name: str) -> bool:
        """Forget a machine and destroy our key for it; False when it was not known."""
        ...

    def plan(self, name: str, request: DoorRequest) -> JsonObject:
        """What the door over there would do. Raises as it says there, and Transient when it does not answer."""
        ...

    def original(self, name: str, request: DoorRequest) -> bytes | None:
        """What the file holds now that `request` would write or remove; None where there is none. Raises as `plan`."""
        ...

    def relay(self, name: str, request: DoorRequest, timeout_seconds: float) -> ProcessSpec:
        """The program that asks the door over there, to be run under the guard.

        It prints what the program over there prints, and nothing else. It ends with 0 when `answer` has the door's
        answer; otherwise with `NOT_SENT` or `LOST`.
        """
        ...

    def answer(self, name: str, request: DoorRequest) -> JsonObject:
        """The door's answer to what `relay` asked, once; empty where there is none that can be read."""
        ...


REMOTE_HOSTS: OutsideKey[RemoteHosts] = OutsideKey("other machines")
