"""The verbs by which people decide: approve, deny, cancel, resolve."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from interlock.core.errors import Conflict, Stale
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.asking import digest_of, told
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.complete import complete_run
from interlock.interfaces.cli.outcome import DIGEST_SHOWN, answer_of_run, sentence_of_run
from interlock.interfaces.cli.prompt import confirm as person_confirms
from interlock.interfaces.cli.prompt import confirm_high_risk
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.stream import RunStream
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.errors import NOTHING_DONE_YET
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

app = typer.Typer()

RunNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, autocompletion=complete_run, help=say("the Run's number"))
]
Reason = Annotated[str | None, typer.Option(help=say("why; it stays in the record"))]
Wait = Annotated[bool | None, typer.Option("--wait/--no-wait", help=say("stay until it has ended"))]


class Resolution(StrEnum):
    """What to do with a step of which nobody knows whether it happened."""

    REPEAT = "repeat"
    SKIP = "skip"
    UNDO = "undo"


@verb(
    app,
    "approve",
    summary=say("Say yes to one Run, with exactly the plan that is shown."),
    more=say("The Run is planned and judged once more before it does anything; if the world changed, it does nothing."),
    examples=(
        "interlock approve 12",
        'interlock approve 12 --yes --reason "checked with Bob"',
        "interlock approve 12 --confirm=3f9a51c0d2e7",
    ),
)
def approve(
    caller: Caller,
    run: RunNumber,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=say("do not ask"))] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="=DIGEST", help=say("do not ask; only if the plan has this digest"))
    ] = None,
    reason: Reason = None,
    wait: Wait = None,
) -> Answer:
    """Approve somebody else's Run, or confirm one's own."""
    subject = caller.view("run", run=run)
    _require_waiting(subject)
    digest = digest_of(confirm)
    if digest is not None and not subject.text("digest").startswith(digest):
        msg = f"the plan of Run {run} has another digest: {subject.text('digest')[:DIGEST_SHOWN]}"
        raise Stale(msg, code="approval.digest", fix=f"interlock show {run}")
    if not yes and confirm is None:
        refused = _ask(caller, subject)
        if refused is not None:
            return refused
    stay = caller.interactive if wait is None else wait
    stream = RunStream(caller)
    params: dict[str, object] = {"run": run, "verdict": True, "reason": reason, "digest": subject.text("digest")}
    result = stream.request("decide", params, wait=stay, patience=say("waiting for the Run"))
    return told(caller, result.record("run"), stream, verbose=True)


@verb(
    app,
    "deny",
    summary=say("Say no to one Run; it is over then."),
    examples=('interlock deny 12 --reason "wait until after the sale"',),
)
def deny(
    caller: Caller,
    run: RunNumber,
    *,
    reason: Annotated[str, typer.Option(help=say("why; whoever asked will read it"))],
) -> Answer:
    """A no."""
    result = caller.call("decide", {"run": run, "verdict": False, "reason": reason})
    return _settled(caller, result.record("run"))


@verb(
    app,
    "cancel",
    summary=say("Stop a Run: at once while it waits, at a safe place while it runs."),
    examples=("interlock cancel 12", 'interlock cancel 12 --reason "wrong host"'),
)
def cancel(caller: Caller, run: RunNumber, *, reason: Reason = None) -> Answer:
    """An end before the end."""
    return _settled(caller, caller.call("cancel", {"run": run, "reason": reason}).record("run"))


@verb(
    app,
    "resolve",
    summary=say("Say what happened in a Run of which nobody knows."),
    more=say(
        "repeat: it did not happen, do it again. skip: it did happen, go on behind it. undo: take back what was done."
    ),
    examples=("interlock resolve 12 skip", 'interlock resolve 12 repeat --reason "the unit never restarted"'),
)
def resolve(
    caller: Caller,
    run: RunNumber,
    resolution: Annotated[Resolution, typer.Argument()],
    *,
    reason: Reason = None,
    wait: Wait = None,
) -> Answer:
    """A person's word about the world."""
    stay = caller.interactive if wait is None else wait
    stream = RunStream(caller)
    params: dict[str, object] = {"run": run, "resolution": resolution.value, "reason": reason}
    result = stream.request("resolve", params, wait=stay, patience=say("waiting for the Run"))
    return told(caller, result.record("run"), stream, verbose=True)


def _require_waiting(run: Record) -> None:
    if run.text("state") != "waiting":
        msg = f"Run {run.number('number')} is {run.text('state')}: there is nothing to approve"
        raise Conflict(msg, code="run.not_waiting", fix=f"interlock show {run.number('number')}")


def _ask(caller: Caller, run: Record) -> Answer | None:
    """Show the plan and ask; an answer when the person did not say yes, or when there is nobody to ask."""
    number, digest = run.number("number"), run.text("digest")[:DIGEST_SHOWN]
    if not caller.interactive:

        def show(screen: Screen) -> None:
            from interlock.interfaces.cli.plan import show_plan

            show_plan(screen, run)

        answer = Answer(status="waiting", data={"run": dict(run.data)}, exit_code=NOTHING_DONE_YET, show=show)
        answer.warnings = [say("nothing was approved: there is no terminal to ask on")]
        answer.next = [f"interlock approve {number} --confirm={digest}"]
        return answer
    from interlock.interfaces.cli.plan import show_plan
    from interlock.interfaces.cli.screen import Screen as Terminal

    screen = Terminal(sys.stderr, colour=not caller.settings.no_color)
    by = run.who("actor")
    owner = run.text("on_behalf_of")
    screen.quiet(say("asked by {who}", who=f"{by} ({owner})" if owner else by))
    if run.text("reason"):
        screen.quiet(say("because: {reason}", reason=run.text("reason")))
    show_plan(screen, run)
    screen.blank()
    caller.close()  # a person may think for longer than the door keeps an idle line
    own = [missing for missing in run.records("missing") if missing.number("confirmations")]
    high = run.text("risk") == "high" and own
    if confirm_high_risk(run) if high else person_confirms(say("Approve it?")):
        return None
    write_note(say("nothing was approved; it still waits"))
    return Answer(status="waiting", data={"run": dict(run.data)}, exit_code=NOTHING_DONE_YET)


def _settled(caller: Caller, run: Record) -> Answer:
    """What a `deny` or `cancel` brought about is success, whatever the state is called."""
    answer = answer_of_run(run, as_agent=caller.acting_as is not None)
    answer.exit_code, answer.next = 0, [f"interlock show {run.number('number')}"]
    if caller.table:
        write_note(sentence_of_run(run))
        answer.next = []
    return answer
