"""The shapes of answers and errors, and the one way in which each becomes a result of the protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

from interlock.core.errors import InterlockError, Invalid
from interlock.core.model import JsonObject
from interlock.interfaces.errors import ERROR_CODES, FAILED, NOTHING_DONE_YET, STATE_CODES, SUCCEEDED
from interlock.interfaces.mcp.guidance import (
    ALWAYS_ALLOWED,
    FROM_THE_WORLD,
    OTHER_ERROR,
    REFUSED,
    next_of_proposal,
    next_of_run,
)

if TYPE_CHECKING:
    from mcp.types import CallToolResult

RESULT_BYTES_MAX = 1024 * 1024
"""Of one answer; an agent reads all of it."""

RUN_FIELDS = (
    "number",
    "state",
    "state_reason",
    "state_code",
    "action",
    "summary",
    "reason",
    "risk",
    "changes",
    "digest",
    "targets",
    "expires_at",
    "closed_at",
    "undoable",
    "missing",
    "exit_code",
)
PROPOSAL_FIELDS = ("action", "summary", "digest", "risk", "changes", "discloses", "targets", "undoable", "missing")

_TEXT: JsonObject = {"type": "string"}
_TEXT_OR_NONE: JsonObject = {"type": ["string", "null"]}
_TEXTS: JsonObject = {"type": "array", "items": _TEXT}
ERROR_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": [*ERROR_CODES]},
        "code": _TEXT,
        "mcp_code": {"type": "integer"},
        "message": _TEXT,
        "fix": _TEXT_OR_NONE,
        "place": _TEXT_OR_NONE,
        "details": {"type": "object"},
    },
    "required": ["kind", "code", "message", "fix", "place"],
}
RUN_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "state": {"type": "string", "enum": [*STATE_CODES]}},
    "required": ["number", "state", "summary", "digest"],
}
PROPOSAL_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"digest": _TEXT, "decision": {"type": "object"}, "plan": {"type": "object"}},
    "required": ["digest", "decision", "plan", "summary"],
}


def answer_schema(**properties: JsonObject) -> JsonObject:
    """The schema of a tool's answer: these properties, or an error; both with what to do next."""
    return {
        "type": "object",
        "properties": {
            **properties,
            "error": ERROR_SCHEMA,
            "next": _TEXT,
            "allowed_instead": _TEXTS,
            "note": _TEXT,
        },
        "anyOf": [{"required": [name]} for name in (*properties, "error")],
    }


def run_answer(run: JsonObject) -> JsonObject:
    """A Run as an agent needs it; `view_run` has everything."""
    state, number = str(run["state"]), cast("int", run["number"])
    decision = run.get("decision")
    shown = {name: run.get(name) for name in RUN_FIELDS}
    shown["decision"] = decision_shown(decision)
    answer: JsonObject = {"run": shown, "next": next_of_run(number, state), "note": FROM_THE_WORLD}
    if STATE_CODES[state].mcp_code is not None:
        answer["allowed_instead"] = [*allowed_instead(decision)]
    return answer


def proposal_answer(proposal: JsonObject) -> JsonObject:
    """A plan and its decision."""
    decision = proposal.get("decision")
    shown = {name: proposal.get(name) for name in (*PROPOSAL_FIELDS, "plan")}
    shown["decision"] = decision_shown(decision)
    outcome = str(decision.get("outcome")) if isinstance(decision, dict) else "forbid"
    answer: JsonObject = {"proposal": shown, "next": next_of_proposal(outcome), "note": FROM_THE_WORLD}
    if outcome == "forbid":
        answer["allowed_instead"] = [*allowed_instead(decision)]
    return answer


def decision_shown(decision: object) -> JsonObject:
    """What was decided and why."""
    if not isinstance(decision, dict):
        return {}
    reasons = decision.get("reasons")
    told: list[JsonValue] = [
        {"policy": reason.get("policy"), "reason": reason.get("reason")}
        for reason in (reasons if isinstance(reasons, list) else [])
        if isinstance(reason, dict)
    ]
    return {"outcome": decision.get("outcome"), "reasons": told}


def allowed_instead(decision: object) -> tuple[str, ...]:
    """What policy advises, then what is open to every agent."""
    advised = decision.get("instead") if isinstance(decision, dict) else None
    return (*(str(advice) for advice in advised or ()), *ALWAYS_ALLOWED)


def error_answer(error: InterlockError) -> JsonObject:
    """Any of the seven errors; a refusal says what to do and what not to do."""
    shown = cast("JsonObject", error.to_json())
    shown |= {"place": place_of(error), "mcp_code": ERROR_CODES[error.kind].mcp_code}
    if error.kind != "denied":
        return {"error": shown, "next": error.fix or OTHER_ERROR}
    return {"error": shown, "next": REFUSED, "allowed_instead": [*ALWAYS_ALLOWED]}


def place_of(error: InterlockError) -> str | None:
    """Which argument, file or Run it is about, where the error says so."""
    details = error.details
    problems = details.get("problems")
    if isinstance(problems, list) and problems:
        return str(problems[0]).partition(":")[0]
    file, line = details.get("file"), details.get("line")
    if file is not None:
        return f"{file}:{line}" if line is not None else str(file)
    run = details.get("run")
    return f"Run {run}" if run is not None else None


def is_error(answer: JsonObject) -> bool:
    """Whether the answer tells of something that did not go well; the one table of codes says so."""
    if "error" in answer:
        return True
    run = answer.get("run")
    if not isinstance(run, dict) or "state" not in run:
        return False
    code = STATE_CODES.get(str(run["state"]))
    return (code.exit_code if code is not None else FAILED) not in {SUCCEEDED, NOTHING_DONE_YET}


def tool_result(answer: JsonObject) -> CallToolResult:
    """The answer as structured content, and the same as text for clients that know no other.

    An answer over `RESULT_BYTES_MAX` becomes an error that says so.
    """
    from mcp.types import CallToolResult, TextContent

    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode(errors="surrogatepass")) > RESULT_BYTES_MAX:
        msg = f"the answer is over {RESULT_BYTES_MAX:,} bytes"
        answer = error_answer(Invalid(msg, code="mcp.answer_size", fix="ask for less: a filter, a limit, one Run"))
        text = json.dumps(answer, ensure_ascii=False)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=answer, is_error=is_error(answer)
    )
