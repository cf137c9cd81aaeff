"""Says in plain words why a Run stands where it stands, and what to do next; pure."""

from __future__ import annotations

from typing import Any

from interlock.core.actor import Actor
from interlock.core.decision import Decision, Requirement
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.core.run import Run, RunState
from interlock.engine.progress import Progress


def explain_run(
    run: Run, decision: Decision, progress: Progress, blockers: list[dict[str, Any]], project: Project, reader: Actor
) -> JsonObject:
    """`why`: sentences, most important first. `next`: commands to choose from, each with what it does."""
    number = run.number
    why: list[str] = []
    following: list[JsonObject] = []
    if run.state is RunState.WAITING:
        why += [_asked_for(requirement, project, run) for requirement in decision.requirements]
        why += [f"{reason.reason} ({reason.policy})" for reason in decision.reasons if reason.effect != "permit"]
        if run.expires_at is not None:
            why.append(f"it expires at {run.expires_at:%Y-%m-%d %H:%M} UTC")
        own = reader.id == run.actor.id
        word = "confirm it" if own else "say yes"
        following = [
            _next(f"interlock approve {number}", word),
            _next(f"interlock deny {number} --reason ...", "say no"),
            _next(f"interlock cancel {number}", "withdraw it"),
        ]
    elif run.state is RunState.QUEUED:
        for blocker in blockers:
            verb = "holds" if blocker["holding"] else "is ahead of it for"
            why.append(f"Run {blocker['run']} {verb} {blocker['target']}")
        why = why or [run.state_reason or "it waits for a free worker, or for its actor's other Runs to end"]
        following = [_next(f"interlock cancel {number}", "take it out of the queue")]
    elif run.state is RunState.RUNNING:
        step = progress.open
        why.append("it is being performed now" if step is None else f"step {step.step + 1} is under way")
        following = [
            _next(f"interlock output {number} --follow", "watch it"),
            _next(f"interlock cancel {number}", "stop it"),
        ]
    elif run.state is RunState.UNRESOLVED:
        why, following = _unresolved(run, progress)
    else:
        why, following = _closed(run, decision)
    return {"state": run.state.value, "why": list(why), "next": list(following)}


def _unresolved(run: Run, progress: Progress) -> tuple[list[str], list[JsonObject]]:
    number = run.number
    index = progress.disputed(len(run.plan.steps))
    step = run.plan.steps[index]
    why = [
        run.state_reason or "nobody knows whether its last step happened",
        f"look at the world first: did step {index + 1} happen? ({step.summary})",
        f"until then it keeps {', '.join(target.key for target in step.targets) or 'its place'}",
    ]
    following = [
        _next(f"interlock output {number}", "what it printed"),
        _next(f"interlock resolve {number} repeat", "it did not happen: do it again"),
        _next(f"interlock resolve {number} skip", "it did happen: go on behind it"),
    ]
    if all(each.undo is not None for each in run.plan.steps if each.changes):
        following.append(
            _next(
                f"interlock resolve {number} undo",
                f"take it back: {step.undo.summary}" if step.undo else "take it back",
            )
        )
    return why, following


def _closed(run: Run, decision: Decision) -> tuple[list[str], list[JsonObject]]:
    number = run.number
    why = [run.state_reason] if run.state_reason else []
    following: list[JsonObject] = []
    if run.state is RunState.DENIED:
        refused = decision.outcome == "forbid"
        if run.state_code == "denied.policy" and refused:
            against = [reason for reason in decision.reasons if reason.effect != "permit"]
            hard = [reason for reason in against if reason.effect == "forbid"]
            why = [f"{reason.reason} ({reason.policy})" for reason in hard or against]
        # What a person denied had waited: the advice of that decision was to wait, and is over.
        following = [_next(text, "allowed instead") for text in decision.instead if refused]
        following.append(_next(f"interlock policy explain {number}", "what decided, and what would change it"))
    elif run.state is RunState.SUCCEEDED:
        why = [reason.reason for reason in decision.reasons if reason.effect == "permit"][:1] or ["it was permitted"]
        if run.plan.changes and run.plan.undoable:
            following.append(_next(f"interlock undo {number}", "take it back"))
    else:
        following.append(_next(f"interlock retry {number}", "ask the same again, planned anew"))
    following.append(_next(f"interlock show {number}", "everything about it"))
    return why, following


def _asked_for(requirement: Requirement, project: Project, run: Run) -> str:
    if requirement.confirmations:
        times = "once more" if requirement.confirmations == 1 else f"{requirement.confirmations} times more"
        return f"{run.actor.id} has to confirm it {times}"
    who = f"with the role {' or '.join(requirement.roles)}" if requirement.roles else ""
    count = "one person" if requirement.approvals == 1 else f"{requirement.approvals} people"
    names = sorted(
        name
        for name, person in project.people.items()
        if f"person:{name}" != run.actor.id and (not requirement.roles or set(requirement.roles) & set(person.roles))
    )
    listed = f" ({', '.join(names[:10])})" if names else ""
    return f"{count} {who}".strip() + f" has to approve it{listed}"


def _next(command: str, meaning: str) -> JsonObject:
    return {"command": command, "meaning": meaning}
