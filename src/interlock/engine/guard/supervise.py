"""Runs a program under a guard process, which kills the program's whole tree when the lease ends or this worker dies.

    process = GuardedProcess.start(spec, token)      # a guard is up; nothing was executed
    ...record process.identity...
    outcome = process.go(deadline, on_output)        # now it is executed, unless the lease is over

The output does not pass through the guard: the program writes into a pipe that this worker reads. A worker that does
not read stops the program, never the guard.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from interlock.core.errors import Invalid, Transient
from interlock.core.model import JsonObject
from interlock.core.ports import TAIL_BYTES, ProcessSpec
from interlock.engine.guard.effect import EFFECT_BYTES_MAX, Effect, encode_effect
from interlock.engine.guard.identity import GuardIdentity, place, prove_dead
from interlock.engine.guard.image import anonymous_file, guard_descriptor
from interlock.engine.guard.process import RECORD_BYTES_MAX
from interlock.engine.guard.process_tree import GUARD_MARK, KILL_SECONDS, MARK, boot_seconds
from interlock.engine.guard.refusal import refusal_error

__all__ = ["GuardedProcess", "ProcessOutcome", "prove_dead"]

TOKEN = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
READY_SECONDS = 10.0
REPORT_SECONDS = KILL_SECONDS + 5.0
"""How long after the end of lease or time the guard may take to report, before it is taken for stuck."""
READ_BYTES = 256 * 1024
PIPE_BYTES_MAX = 1024 * 1024

Ending = Literal["exited", "timed_out", "killed", "lease_lost", "worker_gone"]


@dataclass(frozen=True)
class ProcessOutcome:
    """How a program ended.

    Attributes:
        exit_code: None when a signal ended it, or the guard did.
        signal: The number of that signal.
        timed_out: Whether it was killed because its time was up.
        output_bytes: How much it wrote, also what was not kept.
        truncated: Whether it wrote more than was kept.
        output_sha256: The digest of what was kept, which is what `on_output` was given.
        tail: The last `TAIL_BYTES` of what it wrote, kept or not.
        duration_seconds: From the start of the program to its exit.
        ended_by: `exited`, or why the guard killed it.
        leftovers_killed: How many processes it had left behind, which were killed.
    """

    exit_code: int | None
    signal: int | None
    timed_out: bool
    output_bytes: int
    truncated: bool
    output_sha256: str
    tail: bytes
    duration_seconds: float
    ended_by: Ending
    leftovers_killed: int


class _Output:
    """What the program writes: handed on up to a bound, counted beyond it."""

    def __init__(self, bytes_max: int, on_output: Callable[[bytes], None]) -> None:
        self._bytes_max = bytes_max
        self._on_output = on_output
        self._digest = hashlib.sha256()
        self._tail = b""
        self._total = 0

    def feed(self, piece: bytes) -> None:
        kept = piece[: max(0, self._bytes_max - self._total)]
        self._total += len(piece)
        self._tail = piece[-TAIL_BYTES:] if len(piece) >= TAIL_BYTES else (self._tail + piece)[-TAIL_BYTES:]
        if kept:
            self._digest.update(kept)
            self._on_output(kept)

    def outcome(self, report: _Report) -> ProcessOutcome:
        return ProcessOutcome(
            exit_code=report.exit_code,
            signal=report.signal,
            timed_out=report.ended_by == "timed_out",
            output_bytes=self._total,
            truncated=self._total > self._bytes_max,
            output_sha256=self._digest.hexdigest(),
            tail=self._tail,
            duration_seconds=report.duration_seconds,
            ended_by=report.ended_by,
            leftovers_killed=report.leftovers,
        )


@dataclass(frozen=True)
class _Report:
    """The guard's last word, `ended ...`."""

    ended_by: Ending
    exit_code: int | None
    signal: int | None
    duration_seconds: float
    leftovers: int
    survivors: str


_ENDINGS: dict[str, Ending] = {
    "exited": "exited",
    "timed_out": "timed_out",
    "killed": "killed",
    "lease_lost": "lease_lost",
    "worker_gone": "worker_gone",
}


def _parse_report(words: str) -> _Report:
    """Raises ValueError or KeyError for anything that is not a report."""
    why, status, seconds, leftovers, survivors = words.split(" ")
    code = None if int(status) < 0 else os.waitstatus_to_exitcode(int(status))
    exited = why == "exited"
    if not exited and code is not None and code >= 0:
        code = -signal.SIGTERM  # what it answered to SIGTERM is not how its own work ended
    return _Report(
        ended_by=_ENDINGS[why],
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        duration_seconds=float(seconds),
        leftovers=int(leftovers),
        survivors=survivors,
    )


class GuardedProcess:
    """A program under its guard. `go` is called once, from one thread; `renew`, `kill` and `close` from any."""

    def __init__(
        self,
        spec: ProcessSpec,
        popen: subprocess.Popen[bytes],
        control: socket.socket,
        output: int,
        token: str,
    ) -> None:
        self._spec = spec
        self._popen = popen
        self._control = control
        self._output = output
        self._token = token
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._deadline = 0.0
        self._kill_asked = math.inf
        self._went = False
        self._closed = False
        self._identity: GuardIdentity | None = None

    @classmethod
    def start(cls, spec: ProcessSpec, token: str, *, use_cgroup: bool = True) -> Self:
        """Start a guard for `spec` and wait until it is ready; nothing of `spec` is executed yet.

        Args:
            spec: What will be executed. The environment is exactly the given one plus INTERLOCK_STEP.
            token: The step, for people who look at processes; what makes the mark unique is added here.
            use_cgroup: Whether the guard may make a cgroup below this process's own, where the system allows it. Not
                all service managers like that; without one the tree is still found by descent and by mark.

        Raises:
            Invalid: The spec cannot be executed by any system (a NUL, a relative path, a `=` in a variable's name).
            Transient: No guard could be started; nothing was sent.
        """
        if not TOKEN.fullmatch(token):
            msg = f"a step's token is made of letters, digits and _.:/- and is not {token!r}"
            raise Invalid(msg, code="guard.token")
        mark = f"{token}:{os.urandom(8).hex()}"
        effect = encode_effect(_effect(spec, mark))
        if len(effect) > EFFECT_BYTES_MAX:
            msg = f"arguments and environment of {len(effect)} bytes are over {EFFECT_BYTES_MAX}"
            raise Invalid(msg, code="process.too_large")
        try:
            process = cls._spawn(spec, mark, effect, use_cgroup=use_cgroup)
        except OSError as error:
            msg = f"no guard process could be started: {error.strerror}"
            raise Transient(msg, code="guard.not_started", effect_sent=False) from error
        with contextlib.ExitStack() as undo:
            undo.callback(process.close)
            process.wait_until_ready()
            undo.pop_all()
        return process

    @classmethod
    def _spawn(cls, spec: ProcessSpec, mark: str, effect: bytes, *, use_cgroup: bool) -> Self:
        """All descriptors are close-on-exec: the guard gets those that are named, no other thread's child gets any."""
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(theirs.close)
            reader, writer = os.pipe()
            stack.callback(os.close, writer)
            with contextlib.ExitStack() as undo:
                undo.callback(ours.close)
                undo.callback(os.close, reader)
                specification = anonymous_file(effect)
                stack.callback(os.close, specification)
                source = anonymous_file(spec.stdin) if spec.stdin else os.open(os.devnull, os.O_RDONLY)
                stack.callback(os.close, source)
                numbers = (theirs.fileno(), specification, guard_descriptor())
                popen = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", "-E", f"/proc/self/fd/{numbers[2]}"),
                        *(str(numbers[0]), str(numbers[1]), str(os.getpid()), str(int(use_cgroup))),
                    ],
                    stdin=source,
                    stdout=writer,
                    stderr=writer,
                    pass_fds=numbers,
                    env={GUARD_MARK: mark},
                    cwd="/",
                    start_new_session=True,
                )
                os.set_blocking(reader, False)
                ours.setblocking(False)
                undo.pop_all()
        return cls(spec, popen, ours, reader, mark)

    def wait_until_ready(self) -> None:
        """Part of `start`. Raises Transient (nothing sent) when the guard does not come up."""
        record = self._receive(READY_SECONDS)
        word, _, rest = record.partition(" ")
        ticks, _, cgroup = rest.partition(" ")
        if word != "ready" or not ticks.isdigit():
            said = (record or self._read_output().decode("utf-8", "replace"))[-500:]
            msg = "the guard process did not become ready, so nothing was executed"
            raise Transient(msg, code="guard.not_started", details={"said": said}, effect_sent=False)
        self._identity = GuardIdentity(
            **place(),
            pid=self._popen.pid,
            start_time_ticks=int(ticks),
            cgroup=cgroup or None,
            token=self._token,
        )

    @property
    def identity(self) -> JsonObject:
        """What `prove_dead` needs, to be recorded before `go`."""
        if self._identity is None:
            msg = "this guard is not ready"
            raise RuntimeError(msg)
        return self._identity.model_dump(mode="json")

    def go(self, deadline: float, on_output: Callable[[bytes], None]) -> ProcessOutcome:
        """Execute the program and wait for its end; nothing of it is alive afterwards.

        Args:
            deadline: End of the lease on CLOCK_BOOTTIME, in seconds; `renew` moves it.
            on_output: Is given what the program writes, standard output and error as they come, until
                `output_bytes_max`. While it does not return the program may have to wait.

        Raises:
            Transient: With `effect_sent=False` (`lease.lost`, `guard.killed`, `process.busy`): nothing was executed.
                With `effect_sent=True`: `guard.died`, `guard.stuck`, `guard.broken`, the end is unknown but nothing
                is alive any more; `guard.survivors`, something could not be killed.
            Stale, NotFound, Invalid, Permanent: Nothing was executed, because of the program's file, folder or
                arguments.
        """
        with self._lock:
            if self._went:
                msg = "a guarded process goes once"
                raise RuntimeError(msg)
            self._went = True
            self._deadline = deadline
        self._send(f"go {float(deadline)!r}")
        output = _Output(self._spec.output_bytes_max, on_output)
        try:
            report = self._follow(output)
        finally:
            self.close()
        if report.survivors:
            msg = f"processes of the step could not be killed: {report.survivors}"
            raise Transient(msg, code="guard.survivors", fix="look at them with ps; then: interlock resolve N")
        return output.outcome(report)

    def _follow(self, output: _Output) -> _Report:
        """Read what the program writes and what the guard says, until the guard's last word."""
        time_up = boot_seconds() + self._spec.timeout_seconds
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            limit = min(time_up, self._deadline, self._kill_asked) + REPORT_SECONDS
            if boot_seconds() >= limit:
                self._prove_dead()
                msg = "the guard did not report in time; it and all that it ran were killed"
                raise Transient(msg, code="guard.stuck")
            ready = {descriptor for descriptor, _ in poll.poll(min(1.0, max(0.0, limit - boot_seconds())) * 1000)}
            if self._output in ready:
                piece = self._read_output()
                if piece:
                    output.feed(piece)
                else:
                    poll.unregister(self._output)
            if self._control.fileno() in ready:
                report = self._hear(self._receive(0.0))
                self._drain(output)
                return report

    def _hear(self, record: str) -> _Report:
        """The guard speaks once after `go`; when it ends without a word, it was killed."""
        word, _, rest = record.partition(" ")
        if word == "refused":
            raise refusal_error(rest, self._spec)
        if word == "ended":
            with contextlib.suppress(ValueError, KeyError):  # garbage is handled below
                return _parse_report(rest)
        self._prove_dead()
        if not record:
            msg = "the guard was killed; all that it ran was killed too"
            raise Transient(msg, code="guard.died")
        msg = f"the guard failed, and all that it ran was killed: {record[:500]}"
        raise Transient(msg, code="guard.broken")

    def _drain(self, output: _Output) -> None:
        """What is left in the pipe. Bounded, for a stranger may have been handed the other end."""
        left = PIPE_BYTES_MAX
        while left > 0 and (piece := self._read_output()):
            output.feed(piece)
            left -= len(piece)

    def renew(self, deadline: float) -> None:
        """The lease was renewed until `deadline`. A guard that does not listen keeps the earlier one."""
        self._deadline = max(self._deadline, deadline)
        self._send(f"deadline {float(deadline)!r}")

    def kill(self) -> None:
        """End the program, or keep it from being executed; `go` returns or raises soon after.

        A guard that is stopped does not hear of it, and is ended from outside when it does not report.
        """
        self._kill_asked = min(self._kill_asked, boot_seconds())
        self._send("kill")

    def close(self) -> None:
        """Make sure that guard and program are dead; may be called again. `go` does it by itself.

        Raises:
            Transient: `guard.survivors`, something does not die.
        """
        with self._closing:
            if self._closed:
                return
            with self._lock:
                self._closed = True
                self._control.close()
            try:
                self._end_guard()
            finally:
                os.close(self._output)

    def _end_guard(self) -> None:
        """The closed socket ends the guard; a guard that is stopped is ended from outside."""
        try:
            code = self._popen.wait(REPORT_SECONDS if self._went else 1.0)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            self._prove_dead()
            self._popen.wait(KILL_SECONDS)

    def _prove_dead(self) -> None:
        if self._identity is None:
            self._popen.kill()  # not ready, and so without a child
        else:
            prove_dead(self.identity)

    def _send(self, record: str) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._control.send(record.encode())
            except BlockingIOError:
                # The guard is stopped. It keeps an old deadline, which is safe; but it must hear of a `kill`.
                if record == "kill":
                    self._control.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the guard is gone, which `go` and `close` see

    def _receive(self, seconds: float) -> str:
        """The next record; empty when the guard is gone, or says nothing for so long."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return ""
        try:
            return self._control.recv(RECORD_BYTES_MAX).decode("utf-8", "replace")
        except OSError:
            return ""

    def _read_output(self) -> bytes:
        try:
            return os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _effect(spec: ProcessSpec, mark: str) -> Effect:
    """The spec as bytes for the kernel. Raises Invalid for what no kernel takes."""
    names = {"path": spec.path, "folder": spec.folder}
    wrong = next((name for name, value in names.items() if not Path(value).is_absolute()), None)
    if wrong is not None:
        msg = f"the {wrong} of a process must be absolute"
        raise Invalid(msg, code="process.relative")
    if not spec.argv or any(not name or "=" in name for name in spec.environment):
        msg = "a process needs at least argv[0], and names of variables without ="
        raise Invalid(msg, code="process.malformed")
    if not math.isfinite(spec.timeout_seconds) or spec.timeout_seconds <= 0:
        msg = "a process needs a finite time-out above zero"
        raise Invalid(msg, code="process.timeout")
    environment = {**spec.environment, MARK: mark}
    try:
        effect = Effect(
            path=os.fsencode(spec.path),
            argv=[os.fsencode(argument) for argument in spec.argv],
            environment=[os.fsencode(f"{name}={value}") for name, value in environment.items()],
            folder=os.fsencode(spec.folder),
            sha256=spec.sha256 or "",
            timeout_seconds=spec.timeout_seconds,
        )
    except UnicodeEncodeError as error:
        msg = "an argument or variable of a process holds characters that cannot be encoded"
        raise Invalid(msg, code="process.malformed") from error
    if any(b"\0" in value for value in (effect.path, effect.folder, *effect.argv, *effect.environment)):
        msg = "an argument or variable of a process holds a NUL"
        raise Invalid(msg, code="process.malformed")
    return effect
