"""`mcp.call` and `mcp.accept`: a tool of an outside MCP server is called as a person accepted it, or not at all."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Invalid, NotFound
from interlock.core.mcp_server import (
    ACCEPTED_TOOLS,
    MCP_SERVERS,
    AcceptedTool,
    McpServer,
    ServerName,
    ToolCall,
    ToolDescription,
    ToolHints,
    ToolName,
)
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.tools.arguments import require_fitting, require_usable

PREVIEW_LINES_MAX = 400


class AcceptArgs(Frozen):
    """A tool of a server that interlock.yaml declares under `mcp_servers`."""

    server: ServerName
    tool: ToolName


class CallArgs(AcceptArgs):
    """`args` as the tool's accepted description wants them."""

    args: JsonObject = Field(default={})


def _target(server: str, tool: str) -> Target:
    return Target(kind="mcp", id=f"{server}/{tool}")


class McpCall(Action):
    """A tool of somebody else's."""

    name: ClassVar[str] = "mcp.call"
    summary: ClassVar[str] = "Call a tool of an outside MCP server, as a person accepted it."
    example: ClassVar[JsonObject] = {"server": "tickets", "tool": "create_ticket", "args": {"title": "disk is full"}}
    Args: ClassVar[type[Frozen]] = CallArgs

    def read_facts(self, args: CallArgs) -> JsonObject:
        """What was accepted, and what the project says of it; the server itself is left alone.

        Raises: NotFound (not declared), Conflict (not accepted), Invalid (the arguments do not fit).
        """
        server = _declared(self.ports.project().mcp_servers, args.server)
        accepted = self.ports.outside[ACCEPTED_TOOLS].find(args.server, args.tool)
        if accepted is None:
            msg = f"the tool {args.tool} of {args.server} was not accepted by anybody"
            raise Conflict(msg, code="mcp.not_accepted", fix=_accept(args.server, args.tool))
        require_fitting(args.args, accepted.description.input_schema, f"{args.server}/{args.tool}")
        hints = server.tools.get(args.tool, ToolHints())
        idempotent = accepted.description.annotations.get("idempotentHint") is True
        return {
            "digest": accepted.digest,
            "hints": hints.model_dump(mode="json"),
            "repeatable": hints.repeatable and idempotent,
            "timeout_seconds": server.timeout_seconds,
        }

    def plan(self, args: CallArgs, facts: JsonObject) -> Plan:
        """One call."""
        hints = ToolHints.model_validate(facts["hints"])
        call = ToolCall(
            server=args.server,
            tool=args.tool,
            args=args.args,
            digest=str(facts["digest"]),
            timeout_seconds=float(str(facts["timeout_seconds"])),
        )
        step = Step(
            verb="call",
            summary=f"call {args.tool} of {args.server}",
            params=call.model_dump(mode="json"),
            targets=(_target(args.server, args.tool),),
            risk=hints.risk,
            changes=hints.changes,
            operations=("mcp.call",),
            repeatable=facts["repeatable"] is True,
            discloses=hints.discloses,
            irreversible="what a tool of others did, only its own server can take back" if hints.changes else None,
            timeout_seconds=call.timeout_seconds + 30.0,
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Call it; what it says becomes the Run's output."""
        call = ToolCall.model_validate(step.params)
        context.hold()
        answer = self.ports.outside[MCP_SERVERS].call(call, hold=context.hold, cancelled=lambda: context.cancelled)
        context.write_output(answer.text + ("\n[cut]\n" if answer.truncated else "\n"))
        if answer.is_error:
            msg = f"{call.tool} of {call.server} reports an error; what it says is in the output"
            raise Invalid(msg, code="mcp.tool_error", fix=f"interlock output {context.run}")
        data: JsonObject = {
            "bytes": answer.bytes_total,
            "truncated": answer.truncated,
            "sha256": hashlib.sha256(answer.text.encode()).hexdigest(),
        }
        return StepResult(ok=True, summary=f"{call.tool} of {call.server} answered", data=data)


class McpAccept(Action):
    """A tool as it is described now becomes one that may be called."""

    name: ClassVar[str] = "mcp.accept"
    summary: ClassVar[str] = "Accept a tool of an outside MCP server as it describes itself now, and no other."
    example: ClassVar[JsonObject] = {"server": "tickets", "tool": "create_ticket"}
    Args: ClassVar[type[Frozen]] = AcceptArgs

    def read_facts(self, args: AcceptArgs) -> JsonObject:
        """What the server says of the tool now, and what was accepted before.

        Raises: NotFound, Transient, Permanent as the server, Invalid when arguments could not be checked.
        """
        _declared(self.ports.project().mcp_servers, args.server)
        described = self.ports.outside[MCP_SERVERS].describe(args.server, args.tool)
        require_usable(described.input_schema)
        earlier = self.ports.outside[ACCEPTED_TOOLS].find(args.server, args.tool)
        return {
            "description": described.model_dump(mode="json"),
            "earlier": None if earlier is None else earlier.description.model_dump(mode="json"),
        }

    def plan(self, args: AcceptArgs, facts: JsonObject) -> Plan:
        """One row of ours."""
        described = ToolDescription.model_validate(facts["description"])
        earlier = None if facts["earlier"] is None else ToolDescription.model_validate(facts["earlier"])
        target = _target(args.server, args.tool)
        accepted = AcceptedTool(server=args.server, tool=args.tool, digest=described.digest, description=described)
        back: JsonObject = {"server": args.server, "tool": args.tool, "digest": described.digest}
        back["earlier"] = None if earlier is None else earlier.model_dump(mode="json")
        step = Step(
            verb="accept",
            summary=f"accept {args.tool} of {args.server} as {described.digest[:12]}",
            params=accepted.model_dump(mode="json"),
            targets=(target,),
            risk="medium",
            operations=("mcp.accept",),
            repeatable=True,
            undo=Step(
                verb="take_back",
                summary=f"no longer accept {args.tool} of {args.server} as {described.digest[:12]}",
                params=back,
                targets=(target,),
                risk="low",
                operations=("mcp.accept",),
                repeatable=True,
            ),
        )
        return Plan(
            action=self.name,
            args=args.model_dump(mode="json"),
            summary=step.summary,
            steps=(step,),
            facts={"digest": described.digest, "earlier": None if earlier is None else earlier.digest},
            preview=_preview(earlier, described),
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Write it down, or what was before."""
        data = context.arrange(f"mcp.{step.verb}", step.params)
        return StepResult(ok=True, summary=step.summary, data=data)


def _declared(servers: dict[str, McpServer], name: str) -> McpServer:
    if name not in servers:
        msg = f"interlock.yaml declares no MCP server {name}"
        fix = f"there is {', '.join(sorted(servers))}" if servers else "declare it under `mcp_servers`"
        raise NotFound(msg, code="mcp.server_unknown", fix=fix)
    return servers[name]


def _accept(server: str, tool: str) -> str:
    return f"a person looks at it and accepts it: interlock do mcp.accept --arg server={server} --arg tool={tool}"


def _preview(earlier: ToolDescription | None, described: ToolDescription) -> str:
    """What a person reads before he accepts: all that the tool says of itself, as a difference from before."""

    def lines(description: ToolDescription | None) -> list[str]:
        if description is None:
            return []
        return json.dumps(description.model_dump(mode="json"), indent=2, ensure_ascii=True, sort_keys=True).splitlines()

    found = list(difflib.unified_diff(lines(earlier), lines(described), "accepted", "now", lineterm=""))
    cut = [] if len(found) <= PREVIEW_LINES_MAX else [f"... {len(found) - PREVIEW_LINES_MAX} more lines"]
    return "\n".join([*found[:PREVIEW_LINES_MAX], *cut])
