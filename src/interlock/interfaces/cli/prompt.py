"""Asks a person on the terminal; silence, end of input and anything unclear mean no."""

from __future__ import annotations

import sys
import termios

from interlock.interfaces.cli.answer import write_note
from interlock.interfaces.cli.record import Record
from interlock.interfaces.cli.terminal import visible_line
from interlock.interfaces.messages import say

DIGEST_CHARACTERS = 6


def confirm(question: str) -> bool:
    """Yes or no; no by default."""
    return _read(f"{question} [y/N] ").lower() in {"y", "yes", "是"}


def confirm_high_risk(run: Record) -> bool:
    """A second yes that nobody gives by habit: the name of what is touched, or the beginning of the digest."""
    names = {name for target in run.texts("targets") for name in (target, target.partition(":")[2]) if name}
    digest = run.text("digest")[:DIGEST_CHARACTERS]
    if len(run.texts("targets")) == 1:
        target = run.texts("targets")[0].partition(":")[2]
        question = say("High risk. Type {target} (or {digest}) to confirm:", target=target, digest=digest)
    else:
        names = set()
        question = say("High risk. Type {digest}, the beginning of the digest, to confirm:", digest=digest)
    answer = _read(f"{question} ")
    if answer in names or answer.lower() == digest:
        return True
    write_note(say("not confirmed"))
    return False


def _read(question: str) -> str:
    """What is typed after the question; what was typed before it was seen does not count."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    sys.stderr.write(visible_line(question))
    sys.stderr.flush()
    return sys.stdin.readline().strip()
