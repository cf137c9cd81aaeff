"""Turns a Run or a Proposal into an answer: its words, its exit code, and what to do next."""

from __future__ import annotations

from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.record import Record
from interlock.interfaces.errors import FAILED, exit_code_of_proposal, exit_code_of_run
from interlock.interfaces.messages import say
from interlock.interfaces.resident_words import text_in_words

DIGEST_SHOWN = 12


def sentence_of_run(run: Record) -> str:
    """One line: where the Run stands, and why."""
    number, state, reason = run.number("number"), run.text("state"), text_in_words(run.text("state_reason"))
    if state == "waiting":
        wanted = missing_in_words(run.records("missing")) or reason
        return say("Run {number} waits: {wanted}", number=number, wanted=wanted or say("something is missing"))
    line = say("Run {number} {state}", number=number, state=state_in_words(state))
    told = reason if state not in {"succeeded", "queued", "running"} else reason or run.text("summary")
    return f"{line}: {told}" if told else line


def state_in_words(state: str) -> str:
    """A state of a Run as prose."""
    words = {
        "waiting": say("waits"),
        "queued": say("is queued"),
        "running": say("is running"),
        "unresolved": say("is unresolved"),
        "succeeded": say("succeeded"),
        "failed": say("failed"),
        "undone": say("was undone"),
        "denied": say("was denied"),
        "stale": say("went stale"),
        "expired": say("expired"),
        "cancelled": say("was cancelled"),
    }
    return words.get(state, state)


def risk_in_words(risk: str) -> str:
    """How bad a change can be."""
    words = {"none": say("none"), "low": say("low"), "medium": say("medium"), "high": say("high")}
    return words.get(risk, risk)


def missing_in_words(missing: list[Record]) -> str:
    """What is still asked for."""
    parts = []
    for requirement in missing:
        approvals = requirement.number("approvals")
        if approvals:
            roles = " / ".join(requirement.texts("roles"))
            people = say("one person") if approvals == 1 else say("{count} people", count=approvals)
            who = say("{people} with the role {roles}", people=people, roles=roles) if roles else people
            parts.append(say("{who} has to approve it", who=who))
    # Confirmations do not add up: the strictest policy says how many.
    confirmations = max((requirement.number("confirmations") for requirement in missing), default=0)
    if confirmations == 1:
        parts.append(say("its asker has to confirm it"))
    elif confirmations:
        parts.append(say("its asker has to confirm it {count} times", count=confirmations))
    return "; ".join(dict.fromkeys(parts))


def next_of_run(run: Record, *, as_agent: bool) -> list[str]:
    """Commands that fit the state, the likeliest first."""
    number, state = run.number("number"), run.text("state")
    if state == "waiting":
        if as_agent:
            return [say("do not ask again: tell the person you work for"), f"interlock show {number}"]
        return [f"interlock approve {number}", f"interlock why {number}", f"interlock cancel {number}"]
    if state in {"queued", "running"}:
        return [f"interlock output {number} --follow", f"interlock cancel {number}"]
    if state == "unresolved":
        return [f"interlock why {number}"]
    if state == "denied":
        decision = run.record("decision")
        # Denied by a person: what policy had advised was to wait for him.
        instead = decision.texts("instead") if decision.text("outcome") == "forbid" else []
        return [*instead, f"interlock why {number}"]
    if state == "succeeded" and run.text("action") == "release.start":
        workload = next(iter(run.texts("targets")), "").removeprefix("workload:")
        return [f"interlock release watch {workload}", f"interlock rollback {workload}"]
    if state == "succeeded":
        return [f"interlock undo {number}"] if run.flag("undoable") and run.flag("changes") else []
    return [f"interlock why {number}"]


def answer_of_run(run: Record, *, as_agent: bool) -> Answer:
    """A Run that was made or moved. Its words are the caller's business: its output may have been the answer."""
    state = run.text("state")
    # A read whose program says no by its exit code succeeded, and scripts still want to hear the no.
    said_no = state == "succeeded" and bool(run.data.get("exit_code"))
    return Answer(
        status=state,
        data={"run": dict(run.data)},
        exit_code=FAILED if said_no else exit_code_of_run(state, run.text("state_code") or None),
        next=next_of_run(run, as_agent=as_agent),
    )


def answer_of_proposal(proposal: Record, confirm_command: str) -> Answer:
    """A plan that was only shown. `confirm_command` does it, if it is still that plan."""
    decision = proposal.record("decision")
    outcome = decision.text("outcome")
    following = decision.texts("instead") if outcome == "forbid" else [confirm_command]
    return Answer(
        status="denied" if outcome == "forbid" else "proposed",
        data={"proposal": dict(proposal.data)},
        exit_code=exit_code_of_proposal(outcome),
        next=following,
    )
