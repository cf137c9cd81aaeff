"""MCP servers of others: how interlock.yaml declares them, what is known of their tools, and how they are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Protocol

from pydantic import Field, JsonValue, model_validator

from interlock.core.model import Frozen, JsonObject
from interlock.core.outside import OutsideKey
from interlock.core.plan import Discloses, Risk
from interlock.core.secret_reference import SecretReference
from interlock.lib.canonical import digest_of

DESCRIPTION_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 256 * 1024
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_ADDRESS = re.compile(r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(/[^\s#@\\]*)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

ServerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,128}$")]


class ToolHints(Frozen):
    """What this project says of one tool; what its server says of itself is believed only where it makes it stricter.

    `changes: false` and a `risk` below `high` are the operator's word. `repeatable` counts only for a tool whose own
    description says `idempotentHint` as well.
    """

    risk: Risk = "high"
    changes: bool = True
    discloses: Discloses = "content"
    repeatable: bool = False

    @model_validator(mode="after")
    def _honest(self) -> ToolHints:
        if self.changes and self.risk == "none":
            msg = "what changes something has a risk: low, medium or high"
            raise ValueError(msg)
        return self


class McpServer(Frozen):
    """One MCP server of somebody else: a program that is started here (`command`), or an address (`url`).

    A program gets exactly `environment` (and PATH), and runs in `folder`. `credential` names a secret that is sent as a
    bearer's token to a `url`, or given to a program in the variable `credential_variable`. `tools` says how bad each
    tool can be; one that is not listed counts as a change of high risk.
    """

    command: tuple[str, ...] = Field(default=(), max_length=64)
    url: str | None = Field(default=None, max_length=2000)
    environment: dict[str, str] = {}
    folder: str = "/"
    credential: SecretReference | None = None
    credential_variable: str | None = None
    tools: dict[ToolName, ToolHints] = {}
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    connect_timeout_seconds: float = Field(default=20.0, gt=0, le=300)
    calls_at_once_max: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if bool(self.command) == (self.url is not None):
            msg = "say either `command` or `url`"
            raise ValueError(msg)
        if self.command and not self.command[0].startswith("/"):
            msg = "the first word of `command` is an absolute path"
            raise ValueError(msg)
        if (self.credential_variable is not None) != bool(self.command and self.credential is not None):
            msg = "`credential_variable` belongs to a `command` with a `credential`"
            raise ValueError(msg)
        if not all(_VARIABLE.fullmatch(name) for name in (*self.environment, self.credential_variable or "A")):
            msg = "a variable is called by letters, digits and _"
            raise ValueError(msg)
        if self.url is not None:
            _require_address(self.url)
        return self


def _require_address(url: str) -> None:
    found = _ADDRESS.fullmatch(url)
    if found is None:
        msg = "write `url` as https://HOST/PATH, without a user or a password"
        raise ValueError(msg)
    if found["scheme"] == "http" and found["host"].strip("[]") not in LOOPBACK:
        msg = "plain http is for this machine alone; write https://"
        raise ValueError(msg)


class ToolDescription(Frozen):
    """A tool as its server describes it. `digest` pins all of it: name, words, schemas, and what it says of itself."""

    name: str
    title: str | None = None
    description: str | None = None
    input_schema: JsonObject
    output_schema: JsonValue = None
    annotations: JsonObject = {}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical description. Raises ValueError for what is not plain JSON."""
        return digest_of(self.model_dump(mode="json"))


class ToolCall(Frozen):
    """One call. `digest` is that of the description that was accepted; any other one is refused."""

    server: str
    tool: str
    args: JsonObject
    digest: str
    timeout_seconds: float


class ToolAnswer(Frozen):
    """What a tool said: data, never instructions. At most `ANSWER_BYTES_MAX` of it is kept."""

    is_error: bool
    text: str
    bytes_total: int
    truncated: bool


class McpServers(Protocol):
    """The declared servers. Methods block within the declaration's time-outs.

    All raise: NotFound (no such server declared, or no such tool), Transient with effect_sent False (not reachable, too
    much at once), and as the secret's resolution does. No message holds a secret or words of the server.
    """

    def describe(self, server: str, tool: str) -> ToolDescription:
        """As the server describes it now. Raises Permanent when that is garbage."""
        ...

    def call(self, call: ToolCall, *, hold: Callable[[], None], cancelled: Callable[[], bool]) -> ToolAnswer:
        """Call it once. `hold` is called right before anything is sent, `cancelled` again and again while it lasts.

        Raises: Stale (the description is another one; nothing was sent), Invalid (the server refused the call),
            Transient with effect_sent True (no answer in time, the server went away, cancelled), Permanent (the answer
            is garbage; what happened is not known).
        """
        ...


class AcceptedTool(Frozen):
    """A tool that a person accepted."""

    server: str
    tool: str
    digest: str
    description: ToolDescription


class AcceptedTools(Protocol):
    """Which tools were accepted, from a step's or a planner's thread."""

    def find(self, server: str, tool: str) -> AcceptedTool | None:
        """None: never, or it was taken back."""
        ...


MCP_SERVERS: OutsideKey[McpServers] = OutsideKey("MCP servers of others")
ACCEPTED_TOOLS: OutsideKey[AcceptedTools] = OutsideKey("the tools that were accepted")
