"""Turns a guard's refusal into the error that says what to do: in every case nothing was executed."""

from __future__ import annotations

import errno
import os

from interlock.core.errors import InterlockError, Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.ports import ProcessSpec

PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.ETXTBSY, errno.EINTR})


def refusal_error(words: str, spec: ProcessSpec) -> InterlockError:
    """The error for `WHY ERRNO`, as `process` documents it. Arguments and environment are never named."""
    why, _, digits = words.partition(" ")
    number = int(digits) if digits.isdigit() else 0
    if why == "lease_lost":
        msg = "the lease was over before the program was executed, so nothing was done"
        return Transient(msg, code="lease.lost", effect_sent=False)
    if why in ("killed", "worker_gone"):
        msg = "the step was ended before its program was executed, so nothing was done"
        return Transient(msg, code="guard.killed", effect_sent=False)
    if why == "digest":
        msg = f"{spec.path} is not the file that was pinned: its content has another digest"
        return Stale(msg, code="process.changed", fix="look at the change; if it is wanted, pin the file anew")
    if number in PASSING:
        msg = f"{spec.path} could not be executed now: {os.strerror(number)}"
        return Transient(msg, code="process.busy", effect_sent=False)
    if why == "folder":
        msg = f"the working folder {spec.folder} cannot be entered: {os.strerror(number)}"
        return _missing_or_broken(msg, number)
    if why == "irregular":
        msg = f"{spec.path} is not a plain file"
        return Permanent(msg, code="process.irregular")
    if number == errno.E2BIG:
        msg = f"the arguments and environment for {spec.path} are larger than this system takes"
        return Invalid(msg, code="process.too_large")
    msg = f"{spec.path} cannot be executed: {os.strerror(number)}"
    return _missing_or_broken(msg, number)


def _missing_or_broken(message: str, number: int) -> InterlockError:
    if number == errno.ENOENT:
        return NotFound(message, code="process.missing", fix="check the path, and the #! line of a script")
    return Permanent(message, code="process.not_executable")
