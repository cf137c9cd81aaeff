"""Bodies and answers of the HTTP interface, as its description shows them; the resident process checks them again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from interlock.core.model import JsonObject

WAIT_SECONDS_MAX = 50.0
NUMBER_MAX = 2**63 - 1

Reason = Annotated[str | None, Field(max_length=2000, description="For those who read the log later.")]
Digest = Annotated[
    str | None,
    Field(
        pattern=r"^[0-9a-f]{6,64}$",
        description="The plan that you were shown, or the beginning of its digest: another plan is refused (412).",
    ),
]
WaitSeconds = Annotated[
    float,
    Field(
        ge=0,
        le=WAIT_SECONDS_MAX,
        description="How long to stay on the line until the Run comes to rest. It goes on afterwards.",
    ),
]


class Body(BaseModel):
    """A JSON body; nothing is converted, and an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AskBody(Body):
    """What is asked for."""

    action: str = Field(min_length=1, max_length=100, examples=["file.write"])
    args: JsonObject = Field(default={}, examples=[{"path": "/srv/site/motd", "content": "hello\n"}])
    reason: Reason = None
    timeout_seconds: float | None = Field(default=None, gt=0, le=24 * 3600)
    digest: Digest = None


class RunBody(AskBody):
    """An ask. `confirmed` says that it is to be done, not only shown."""

    confirmed: bool = False
    wait: WaitSeconds = 0.0


class DecisionBody(Body):
    """A yes or a no to one Run."""

    verdict: Literal["approve", "deny"]
    reason: Reason = None
    digest: Digest = None
    wait: WaitSeconds = 0.0


class CancelBody(Body):
    """Why a Run should end."""

    reason: Reason = None


class AgainBody(Body):
    """Ask again about a Run: retry it, or take it back."""

    reason: Reason = None
    confirmed: bool = False
    digest: Digest = None
    wait: WaitSeconds = 0.0


class ResolutionBody(Body):
    """What a person found out about a Run that nobody understands."""

    resolution: Literal["repeat", "skip", "undo"]
    reason: Reason = None
    wait: WaitSeconds = 0.0


class Open(BaseModel):
    """An answer; further members may come with newer versions."""

    model_config = ConfigDict(extra="allow")


class RunShape(Open):
    """A Run."""

    number: int = Field(examples=[412])
    state: str = Field(examples=["succeeded"])
    action: str = Field(examples=["file.write"])
    summary: str
    actor: str = Field(examples=["person:alice"])
    digest: str


class ProposalShape(Open):
    """A plan and what policy says to it; nothing was recorded and nothing was done."""

    action: str
    summary: str
    digest: str
    risk: str


class RunAnswer(Open):
    """A recorded Run."""

    run: RunShape


class ProposalAnswer(Open):
    """A plan that waits for `confirmed: true`."""

    proposal: ProposalShape


class DataAnswer(Open):
    """What a view told."""

    data: dict[str, JsonValue]


class RunsAnswer(Open):
    """One page of Runs, newest first."""

    runs: list[dict[str, JsonValue]]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null where this was the last.")


class ReceiptAnswer(Open):
    """A Run's evidence with its proof and a signed checkpoint, which verifies offline."""

    receipt: dict[str, JsonValue]


class Problem(Open):
    """An error (RFC 9457, application/problem+json)."""

    type: str = Field(examples=["urn:interlock:error:run.unknown"])
    title: str
    status: int
    detail: str
    instance: str | None
    kind: str = Field(examples=["not_found"])
    code: str = Field(examples=["run.unknown"])
    fix: str | None
    place: str | None = Field(description="What is wrong in the request: body.action, query.limit, path.run.")
    details: dict[str, JsonValue]


PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}
"""What an operation says of an answer that is an error."""
