"""Runs, plans and decisions as JSON: the one shape every interface shows."""

from __future__ import annotations

import json
from typing import Any

from pydantic import JsonValue

from interlock.core.decision import Decision
from interlock.core.model import JsonObject
from interlock.core.plan import Plan, Step
from interlock.core.run import Run
from interlock.core.trace import parse_traceparent
from interlock.engine.proposal import Proposal
from interlock.lib.clock import rfc3339

PREVIEW_CHARACTERS = 64 * 1024
ARGV_CHARACTERS = 64 * 1024
ARGUMENT_CHARACTERS = 2_000
EXECUTED = ("binary", "sha256", "folder", "path")
"""What a step's params may say about its effect, beside `argv`: absolute paths, and the hash of the program."""


def decision_json(decision: Decision) -> JsonObject:
    """A decision without the entities it was made from."""
    whole = decision.model_dump(mode="json")
    return {name: whole[name] for name in ("outcome", "reasons", "requirements", "instead", "policy_set")}


def plan_json(plan: Plan) -> JsonObject:
    """A plan for people: what each step does to what, and whether it can be taken back."""
    return {
        "summary": plan.summary,
        "steps": [_step_json(step) for step in plan.steps],
        "preview": plan.preview[:PREVIEW_CHARACTERS] if plan.preview is not None else None,
        "preview_characters": len(plan.preview or ""),
        "args": {name: _bounded(value) for name, value in plan.args.items()},
        "args_cut": [name for name, value in plan.args.items() if _bounded(value) is not value],
        "facts": plan.facts,
    }


def _bounded(value: JsonValue) -> JsonValue:
    """The same value, or the beginning of its text where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= ARGUMENT_CHARACTERS else text[:ARGUMENT_CHARACTERS]


def executed(step: Step) -> JsonObject:
    """What performing a step sets going: `argv`, and `binary`, `sha256`, `folder` and `path` where it has them.

    The step of an undo holds the step it performs; then that one is meant. `argv_characters` is the length of the whole
    vector, because `argv` ends after `ARGV_CHARACTERS`.
    """
    params, inner = step.params, step.params.get("step")
    held = inner.get("params") if isinstance(inner, dict) else None
    if isinstance(held, dict):
        params = held
    args = params.get("args")
    named = {**args, **params} if isinstance(args, dict) else params
    found: JsonObject = {name: named[name] for name in EXECUTED if isinstance(named.get(name), str)}
    argv = params.get("argv")
    if isinstance(argv, list):
        found |= _argv_json([str(word) for word in argv])
    return found


def _argv_json(argv: list[str]) -> JsonObject:
    shown: list[JsonValue] = []
    left = ARGV_CHARACTERS
    for word in argv:
        if left <= 0:
            break
        shown.append(word[:left])
        left -= len(word)
    return {"argv": shown, "argv_words": len(argv), "argv_characters": sum(len(word) for word in argv)}


def _step_json(step: Step) -> JsonObject:
    return {
        **executed(step),
        "verb": step.verb,
        "summary": step.summary,
        "risk": step.risk,
        "changes": step.changes,
        "opaque": step.opaque,
        "operations": list(step.operations),
        "repeatable": step.repeatable,
        "discloses": step.discloses,
        "undo": step.undo.summary if step.undo is not None else None,
        "undo_executes": executed(step.undo) if step.undo is not None else None,
        "irreversible": step.irreversible,
        "targets": [target.key for target in step.targets],
        "timeout_seconds": step.timeout_seconds,
    }


def proposal_json(proposal: Proposal) -> JsonObject:
    """What would happen, for somebody who has not said yes."""
    plan = proposal.plan
    return {
        "action": plan.action,
        "summary": plan.summary,
        "digest": proposal.digest,
        "risk": plan.risk,
        "changes": plan.changes,
        "discloses": plan.discloses,
        "targets": [target.key for target in plan.targets],
        "undoable": plan.undoable,
        "plan": plan_json(plan),
        "decision": decision_json(proposal.decision),
        "missing": [requirement.model_dump(mode="json") for requirement in proposal.decision.requirements],
        "needs_only_asker": proposal.needs_only_asker,
    }


def run_json(run: Run, *, missing: Decision | None = None) -> JsonObject:
    """What the row of a Run tells, as every interface shows it; `missing` is the decision with the verdicts so far."""
    plan = run.plan
    left = missing.requirements if missing is not None else ()
    trace = parse_traceparent(run.traceparent)
    return {
        "number": run.number,
        "state": run.state.value,
        "state_reason": run.state_reason,
        "state_code": run.state_code,
        "action": run.action,
        "summary": plan.summary,
        "actor": run.actor.id,
        "on_behalf_of": run.actor.on_behalf_of,
        "reason": run.reason,
        "key": run.key,
        "risk": plan.risk,
        "changes": plan.changes,
        "discloses": plan.discloses,
        "digest": run.digest,
        "targets": [target.key for target in plan.targets],
        "created_at": rfc3339(run.created_at),
        "due_at": rfc3339(run.due_at),
        "expires_at": rfc3339(run.expires_at) if run.expires_at else None,
        "closed_at": rfc3339(run.closed_at) if run.closed_at else None,
        "undo_of": run.undo_of,
        "retry_of": run.retry_of,
        "cancelled_by": run.cancelled_by,
        "trace_id": trace.trace_id if trace is not None else None,
        "undoable": plan.changes and plan.undoable,
        "decision": decision_json(run.decision),
        "missing": [requirement.model_dump(mode="json") for requirement in left],
        "plan": plan_json(plan),
    }


def json_row(row: dict[str, Any]) -> JsonObject:
    """A table row with its times as text."""
    return {name: rfc3339(value) if hasattr(value, "astimezone") else value for name, value in row.items()}
