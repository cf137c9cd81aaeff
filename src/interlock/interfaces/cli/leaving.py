"""What becomes of a Run when whoever asked for it stops listening: a read is cancelled, a change goes on."""

from __future__ import annotations

import sys
from typing import Literal

from interlock.core.errors import Conflict, InterlockError
from interlock.interfaces.cli.answer import Answer
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.errors import INTERRUPTED
from interlock.interfaces.messages import say

Fate = Literal["goes on", "cancelled", "over"]

_MOVING = frozenset({"queued", "running"})


class OutputLost(Exception):
    """What a Run prints cannot be passed on: the reader went away, or the disk is full. `error` says which."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def write_output(text: str) -> None:
    """Pass on at once what a Run printed. Raises OutputLost."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise OutputLost(error) from error


def leave_run(caller: Caller, number: int, reason: str) -> Fate:
    """Cancel a Run that changes nothing, if this invocation asked for it: nobody is left who would read its answer.

    Whatever cannot be found out or be done counts as `goes on`.
    """
    caller.close()  # the answer that was waited for would come first on that line
    if not caller.asked_here:
        return "goes on"
    try:
        run = caller.view("run", run=number)
        if run.text("state") not in _MOVING:
            return "over"
        if run.flag("changes") or "changes" not in run.data:
            return "goes on"
        caller.call("cancel", {"run": number, "reason": reason})
    except Conflict:
        return "over"  # it ended since it was looked at
    except InterlockError:
        return "goes on"
    return "cancelled"


def answer_of_interruption(caller: Caller) -> Answer:
    """The words after Ctrl-C."""
    answer = Answer(status="interrupted", exit_code=INTERRUPTED)
    if caller.table:
        sys.stderr.write("\n")
    if caller.release is not None:
        caller.close()
        name, release = caller.release
        answer.data = {"workload": name, "release": release}
        answer.warnings = [say("you stopped watching; release {number} of {name} goes on", number=release, name=name)]
        answer.next = [f"interlock release watch {name}", f"interlock release abort {name}"]
        return answer
    if caller.run is None:
        return answer
    number = caller.run
    answer.data = {"run": number}
    fate = leave_run(caller, number, "interrupted by its asker")
    if fate == "goes on":
        answer.warnings = [say("you stopped waiting; Run {number} goes on", number=number)]
        answer.next = [f"interlock show {number}", f"interlock output {number} --follow", f"interlock cancel {number}"]
        return answer
    if fate == "cancelled":
        answer.warnings = [say("Run {number} only looked, and was cancelled", number=number)]
    else:
        answer.warnings = [say("Run {number} had ended already", number=number)]
    answer.next = [f"interlock show {number}"]
    return answer


def note_of_lost_output(caller: Caller) -> str | None:
    """What to say about a Run whose output nobody reads any more; None where there is nothing to do about it."""
    if caller.run is None or leave_run(caller, caller.run, "nobody reads its output any more") != "goes on":
        return None
    number = caller.run
    return say("Run {number} goes on; its output: interlock output {number}", number=number)
