"""How every verb asks for a change: show the plan, let a person say yes to exactly that, follow the Run."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from interlock.core.errors import Invalid
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.outcome import DIGEST_SHOWN, answer_of_proposal, answer_of_run, sentence_of_run
from interlock.interfaces.cli.prompt import confirm, confirm_high_risk
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.stream import RunStream
from interlock.interfaces.cli.verb import BARE_CONFIRM
from interlock.interfaces.messages import say

if TYPE_CHECKING:
    from interlock.interfaces.cli.screen import Screen

DIGEST_CHARACTERS_MIN = 6
CONFIRM_HERE = "--confirm"


@dataclass
class Asking:
    """One ask on its way.

    Args:
        method: The method of the local protocol: `submit`, `retry`, `undo`.
        params: Its parameters, without what says that it is confirmed.
        command: The words after `interlock` that ask this again, for the line that says how to go on, with
            `CONFIRM_HERE` where options may stand.
        confirm: The value of `--confirm`: None when it was not given, `BARE_CONFIRM` without a digest.
        wait: Whether to follow the Run to its end.
        verbose: Whether to say how a Run ended that only looked.
        closing: Whether to say that it succeeded; a caller who has better words for that says it himself.
    """

    method: str
    params: dict[str, object]
    command: list[str] = field(default_factory=list)
    confirm: str | None = None
    wait: bool = True
    verbose: bool = False
    closing: bool = True


class Request(Protocol):
    """Sends the ask, confirmed or not, and returns the result: it holds `run` or `proposal`."""

    def __call__(self, *, confirmed: bool, digest: str | None) -> Record:
        """Send it."""
        ...


def ask(caller: Caller, asking: Asking) -> Answer:
    """Ask, and come back with what became of it.

    Raises:
        Invalid: The digest after `--confirm=` is none.
    """
    stream = RunStream(caller)

    def request(*, confirmed: bool, digest: str | None) -> Record:
        params = _confirmed(asking.params, confirmed=confirmed, digest=digest)
        return stream.request(asking.method, params, wait=asking.wait, patience=say("waiting for the Run"))

    outcome = ask_with(caller, asking, request)
    if isinstance(outcome, Answer):
        return outcome
    run = _second_confirmation(caller, stream, outcome, wait=asking.wait)
    return told(caller, run, stream, verbose=asking.verbose, closing=asking.closing)


def ask_with(caller: Caller, asking: Asking, request: Request) -> Record | Answer:
    """Ask through `request`: the Run that was made, or the answer where nothing was done.

    Raises:
        Invalid: The digest after `--confirm=` is none.
    """
    digest = digest_of(asking.confirm)
    result = request(confirmed=asking.confirm is not None, digest=digest)
    proposal = result.record("proposal")
    if proposal and caller.interactive and proposal.record("decision").text("outcome") != "forbid":
        if not _person_says_yes(caller, proposal):
            answer = answer_of_proposal(proposal, _confirm_command(caller, asking, proposal))
            answer.warnings = [say("nothing was done")]
            return answer
        result = request(confirmed=True, digest=proposal.text("digest"))
        proposal = result.record("proposal")
    return _shown(caller, asking, proposal) if proposal else result.record("run")


def told(caller: Caller, run: Record, stream: RunStream, *, verbose: bool = False, closing: bool = True) -> Answer:
    """The answer about a Run that was followed: for people its closing line, for programs all of it."""
    answer = answer_of_run(run, as_agent=caller.acting_as is not None)
    if not caller.table:
        answer.data = {"run": dict(run.data), "output": stream.output}
        if stream.output_is_cut:
            answer.warnings.append(f"the output is cut; interlock output {run.number('number')} has all of it")
        return answer
    if run.text("state") != "succeeded" or (closing and run.flag("changes")) or verbose:
        sys.stdout.flush()
        write_note(sentence_of_run(run))
    return answer


def _confirmed(params: dict[str, object], *, confirmed: bool, digest: str | None) -> dict[str, object]:
    said: dict[str, object] = {"confirmed": confirmed}
    if digest is not None:
        said["digest"] = digest
    inner = params.get("ask")
    return {**params, "ask": {**inner, **said}} if isinstance(inner, dict) else {**params, **said}


def digest_of(confirm: str | None) -> str | None:
    """The digest of `--confirm=DIGEST`, or None where none was given. Raises Invalid."""
    if confirm is None or confirm == BARE_CONFIRM:
        return None
    digest = confirm.strip().lower()
    if len(digest) < DIGEST_CHARACTERS_MIN or set(digest) - set("0123456789abcdef"):
        msg = f"--confirm={confirm} is no digest: it is at least the first {DIGEST_CHARACTERS_MIN} characters of one"
        raise Invalid(msg, code="confirm.digest", fix="copy it from the plan that was shown")
    return digest


def _person_says_yes(caller: Caller, proposal: Record) -> bool:
    from interlock.interfaces.cli.plan import show_plan
    from interlock.interfaces.cli.screen import Screen as Terminal

    sys.stdout.flush()
    screen = Terminal(sys.stderr, colour=not caller.settings.no_color)
    show_plan(screen, proposal)
    screen.blank()
    caller.close()  # a person may think for longer than the door keeps an idle line
    return confirm(say("Do it?"))


def _shown(caller: Caller, asking: Asking, proposal: Record) -> Answer:
    """Nothing was done: the plan is the answer."""
    answer = answer_of_proposal(proposal, _confirm_command(caller, asking, proposal))
    if caller.table:
        denied = answer.status == "denied"
        answer.warnings.append(
            say("forbidden: nothing was done") if denied else say("nothing was done; to do exactly this:")
        )

    def show(screen: Screen) -> None:
        from interlock.interfaces.cli.plan import show_plan

        show_plan(screen, proposal)

    answer.show = show
    return answer


def _confirm_command(caller: Caller, asking: Asking, proposal: Record) -> str:
    given = ["--project", str(caller.project)] if caller.project is not None else []
    given += ["--as", caller.asked_as] if caller.asked_as is not None else []
    given.append(f"--confirm={proposal.text('digest')[:DIGEST_SHOWN]}")
    place = asking.command.index(CONFIRM_HERE)
    return shlex.join(["interlock", *asking.command[:place], *given, *asking.command[place + 1 :]])


def _second_confirmation(caller: Caller, stream: RunStream, run: Record, *, wait: bool) -> Record:
    """A high-risk change of one's own asks a second time, in a way that a habit of pressing `y` does not answer."""
    missing = run.records("missing")
    only_own = missing and not any(requirement.number("approvals") for requirement in missing)
    if run.text("state") != "waiting" or not only_own or not caller.interactive or caller.acting_as is not None:
        return run
    caller.close()
    if not confirm_high_risk(run):
        return run
    params: dict[str, object] = {"run": run.number("number"), "verdict": True, "digest": run.text("digest")}
    return stream.request("decide", params, wait=wait, patience=say("waiting for the Run")).record("run")
