"""The verb `hold`: a person runs a command of his own while nothing else may touch a target."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from interlock.core.errors import Invalid, NotFound
from interlock.interfaces.cli.answer import Answer, write_note
from interlock.interfaces.cli.asking import CONFIRM_HERE, Asking, ask_with
from interlock.interfaces.cli.caller import Caller
from interlock.interfaces.cli.outcome import sentence_of_run
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.verb import verb
from interlock.interfaces.cli.verbs_ask import Confirm, Reason
from interlock.interfaces.messages import say

app = typer.Typer()

GRACE_SECONDS = 10.0
CANNOT_RUN = 126
"""What shells answer for a command that is there and does not start."""
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


@verb(
    app,
    "hold",
    summary=say("Run your own command while nothing else may touch a target."),
    more=say("The command runs as you, in your terminal, not through the door; the hold and its end are recorded."),
    examples=('interlock hold unit:postgresql.service --reason "add a column" -- ./migrate.sh',),
)
def hold(
    caller: Caller,
    target: Annotated[str, typer.Argument(metavar="TARGET", help=say("KIND:NAME, as in unit:nginx.service"))],
    argv: Annotated[list[str], typer.Argument(metavar="ARGV", help=say("your command and its arguments"))],
    *,
    reason: Reason = None,
    confirm: Confirm = None,
    minutes: Annotated[int, typer.Option(metavar="N", min=1, max=1440, help=say("at most so long"))] = 1440,
) -> Answer:
    """The exit code is the command's own when the hold went well."""
    if not argv:
        msg = "there is no command to run"
        raise Invalid(msg, code="hold.command", fix="interlock hold TARGET -- COMMAND")
    if shutil.which(argv[0]) is None:
        msg = f"there is no program {argv[0]}"
        raise NotFound(msg, code="hold.program", fix="check the name, or write the path in full")
    terminal = _Terminal(caller, argv)
    params: dict[str, object] = {"target": target, "command": argv, "reason": reason, "minutes": minutes}
    words = ["hold", *(["--reason", reason] if reason else []), CONFIRM_HERE, target, "--", *argv]

    def request(*, confirmed: bool, digest: str | None) -> Record:
        said: dict[str, object] = {"confirmed": confirmed}
        if digest is not None:
            said["digest"] = digest
        try:
            return caller.call("hold", {**params, **said}, on_progress=terminal.hear, timeout_seconds=None)
        except KeyboardInterrupt:
            if terminal.started or caller.run is None:
                raise
            # Nobody would be there to run the command when its turn comes.
            caller.close()
            return caller.call("cancel", {"run": caller.run, "reason": "its terminal went away"})

    outcome = ask_with(caller, Asking("hold", params, words, confirm=confirm), request)
    if isinstance(outcome, Answer):
        return outcome
    return _told(caller, outcome, terminal.exit_code)


def _told(caller: Caller, run: Record, exit_code: int | None) -> Answer:
    from interlock.interfaces.cli.outcome import answer_of_run

    answer = answer_of_run(run, as_agent=False)
    if caller.table:
        write_note(sentence_of_run(run))
    if exit_code is not None and run.text("state") in {"succeeded", "failed"}:
        answer.exit_code = exit_code
    return answer


class _Terminal:
    """Runs the command when its turn has come, and tells the resident process how it ended."""

    def __init__(self, caller: Caller, argv: list[str]) -> None:
        self._caller = caller
        self._argv = argv
        self.exit_code: int | None = None
        self.started = False

    def hear(self, progress: dict[str, object]) -> None:
        """One progress frame; the command runs while this one is being heard."""
        number, state = progress.get("run"), progress.get("state")
        if isinstance(number, int):
            self._caller.run = number
        if state in {"queued", "waiting"}:
            write_note(say("Run {number} waits; what for: interlock why {number}", number=number))
        elif state == "running" and not self.started:
            self.started = True
            write_note(say("Run {number} holds it; running {command}", number=number, command=shlex.join(self._argv)))
            self.exit_code = self._perform()
            self._caller.resident.connection.send_input({"exit_code": self.exit_code})

    def _perform(self) -> int:
        sys.stdout.flush()
        try:
            process = subprocess.Popen(self._argv)
        except OSError as error:
            write_note(say("{program} cannot be run: {why}", program=self._argv[0], why=error.strerror or error))
            return CANNOT_RUN
        with process, _signals_for(process), open(os.pidfd_open(process.pid), "rb", buffering=0) as gone:  # noqa: PTH123
            connection = self._caller.resident.connection
            ready = select.select([gone.fileno(), connection.fileno()], [], [])[0]
            if gone.fileno() not in ready:
                self._end(process)
            code = process.wait()
        return code if code >= 0 else 128 - code

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        """The hold ended before the command did: somebody cancelled it, or the resident process is gone."""
        write_note(say("the hold is over; ending the command"))
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The terminal's own signals reach the command by themselves; what is sent to us is passed on."""

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    before |= {number: signal.signal(number, signal.SIG_IGN) for number in _FROM_THE_TERMINAL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
