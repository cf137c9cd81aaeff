"""The guard: a stand-alone program that runs one effect, ends it with its lease and leaves nothing of it alive.

It is started with four numbers: the descriptor of a SOCK_SEQPACKET socket to the worker, the descriptor of a file
written by `encode_effect`, the worker's process id, and 1 or 0 for whether it may make a cgroup. `guard_image` says
how it is started, and why interlock is not on its path. Its standard input is the effect's input, its standard output
and error are the effect's output. One record is one line of text:

    worker -> guard    go SECONDS | deadline SECONDS | kill             SECONDS on CLOCK_BOOTTIME
    guard -> worker    ready TICKS CGROUP
                       refused WHY ERRNO                                 nothing was executed
                       ended WHY STATUS SECONDS LEFTOVERS SURVIVORS      STATUS as waitpid(2) gives it, -1: none
                       broken TEXT                                       a bug; what was running has been killed

The effect ends when it exits, when its time is up, when the lease's deadline passes, when the worker dies or says
`kill`. Every ending kills the whole tree. The guard is the child subreaper (prctl(2)), so a process that left its
session and lost its parent is still below it; processes in its cgroup, or with its mark in their environment, are
found wherever they are.

Start-up is paid for each effect: only modules that load quickly are imported (json, socket, pathlib, dataclasses and
enum would double the 10 ms).
"""

from __future__ import annotations

import ctypes
import os
import select

from interlock.engine.guard.effect import (
    ABOUT_TO_EXEC,
    EFFECT_BYTES_MAX,
    LEASE_LOST,
    Effect,
    Refusal,
    become_effect,
    decode_effect,
    fork_into,
    libc,
)
from interlock.engine.guard.process_tree import (
    GUARD_MARK,
    ProcessStat,
    all_processes,
    boot_seconds,
    cgroup_processes,
    descendants,
    end_all,
    make_cgroup,
    marked,
    process_stat,
    read_bytes,
    read_descriptor,
    remove_cgroup,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from typing import NoReturn
else:
    import _signal as signal  # the C half; `signal` builds enums for 3 ms at each start

GO_SECONDS = 120.0
TERM_SECONDS = 3.0
"""How long an effect may take to end by itself after SIGTERM, while lease and worker last."""
LEFTOVER_SECONDS = 0.5
"""How long what the effect left behind may go on after the effect's own process has exited."""
WAKE_SECONDS = 1.0
"""poll(2) does not count suspended time but the lease does: look at the clock at least this often."""
RECORD_BYTES_MAX = 4096
STANDARD_DESCRIPTORS = (0, 1, 2)
PR_SET_CHILD_SUBREAPER = 36

# Why an effect was ended, besides `exited` and the lease.
TIMED_OUT, KILLED, WORKER_GONE = "timed_out", "killed", "worker_gone"

pidfd_open = getattr(os, "pidfd_open", None)  # absent where Python was built against an old C library


def parse_order(record: bytes) -> tuple[str, float]:
    """One record of the worker. What is not understood means `kill`: any doubt ends the effect."""
    word, _, number = record.partition(b" ")
    if word in (b"go", b"deadline"):
        try:
            seconds = float(number)
        except ValueError:
            return "kill", 0.0
        if 0.0 <= seconds < float("inf"):
            return word.decode("ascii"), seconds
    return "kill", 0.0


class Guard:
    """One effect, from `ready` to `ended`."""

    def __init__(self, control: int, worker: int, effect: Effect, token: str, *, use_cgroup: bool) -> None:
        self.control = control
        self.effect = effect
        self.token = token
        self.deadline = 0.0
        self.may_go = False
        self.stop_reason: str | None = None
        self.worker_gone = False
        self.child = 0
        self.child_status: int | None = None
        self.said_by_child = b""
        self.child_pipe = -1
        own = process_stat(os.getpid())
        if own is None:
            msg = "/proc does not show this process"
            raise OSError(msg)
        self.own = own
        self.cgroup = make_cgroup(f"interlock-{own.pid}-{own.start_time_ticks}") if use_cgroup else None
        self.poll = select.poll()
        os.set_blocking(control, False)
        self.poll.register(control, select.POLLIN)
        self.wake_pipe = self._wake_on_signals()
        self._watch_worker(worker)

    def _wake_on_signals(self) -> int:
        """Signals end the wait: SIGCHLD to reap, the ones that ask a process to stop as `kill`."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGALRM,
        ):
            signal.signal(number, lambda *_: self.stop(KILLED))
        self.poll.register(reader, select.POLLIN)
        return reader

    def _watch_worker(self, worker: int) -> None:
        """Besides the end of the control socket, which a careless fork of the worker may keep open.

        PR_SET_PDEATHSIG would fire when the *thread* that started us ends, and not when we are stopped.
        """
        self.worker_descriptor = -1
        if pidfd_open is not None:
            try:
                self.worker_descriptor = pidfd_open(worker)
                self.poll.register(self.worker_descriptor, select.POLLIN)
            except OSError:
                pass  # already gone (seen below) or an old kernel (the socket and the deadline remain)
        if os.getppid() != worker:
            self.stop(WORKER_GONE)

    def stop(self, reason: str) -> None:
        """Ask for the end; the first reason counts."""
        self.worker_gone = self.worker_gone or reason == WORKER_GONE
        if self.stop_reason is None:
            self.stop_reason = reason

    def send(self, record: str) -> None:
        """Tell the worker. One that is gone, or has not read for hundreds of records, is not waited for."""
        try:
            os.write(self.control, record.encode()[:RECORD_BYTES_MAX])
        except OSError:
            self.stop(WORKER_GONE)

    def pump(self, seconds: float) -> None:
        """Wait for the next event, at most so long, and take it in."""
        for descriptor, _ in self.poll.poll(max(0.0, min(seconds, WAKE_SECONDS)) * 1000):
            if descriptor == self.control:
                self._hear_worker()
            elif descriptor == self.wake_pipe:
                os.read(self.wake_pipe, 4096)
            elif descriptor == self.child_pipe:
                self._hear_child()
            else:
                self.poll.unregister(descriptor)
                self.stop(WORKER_GONE)

    def _hear_worker(self) -> None:
        """Take in all that is waiting: after SIGCONT a `kill` may lie behind a `go`."""
        while True:
            try:
                record = os.read(self.control, RECORD_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                record = b""
            if not record:
                self.poll.unregister(self.control)
                self.stop(WORKER_GONE)
                return
            order, seconds = parse_order(record)
            if order == "kill":
                self.stop(KILLED)
            else:
                self.deadline = max(self.deadline, seconds)
                self.may_go = self.may_go or order == "go"

    def _hear_child(self) -> None:
        """What the child says before it becomes the effect, until the pipe ends: by its exec, or by its death."""
        while self.child_pipe >= 0:
            try:
                part = os.read(self.child_pipe, RECORD_BYTES_MAX)
            except BlockingIOError:
                return
            self.said_by_child += part
            if not part:
                self.poll.unregister(self.child_pipe)
                os.close(self.child_pipe)
                self.child_pipe = -1

    def run(self) -> None:
        """The whole life of the guard."""
        self.send(f"ready {self.own.start_time_ticks} {self.cgroup or ''}")
        limit = boot_seconds() + GO_SECONDS
        while not self.may_go and self.stop_reason is None:
            if boot_seconds() >= limit:
                self.stop(LEASE_LOST)
            self.pump(limit - boot_seconds())
        if boot_seconds() >= self.deadline:
            self.stop(LEASE_LOST)
        if self.stop_reason is not None:
            self.send(f"refused {self.stop_reason} 0")
            return
        started = boot_seconds()
        try:
            self.launch()
        except OSError as error:
            self.send(f"refused fork {error.errno}")
        else:
            self.watch(started)

    def launch(self) -> None:
        """Fork; the child becomes the effect or says through a pipe why not. Opening and hashing are its work too, so
        that a slow disk never makes the guard miss a deadline.
        """
        self.child_pipe, writer = os.pipe()
        try:
            self.child = fork_into(self.cgroup)
            if self.child == 0:
                become_effect(self.effect, self.deadline, writer)
        except BaseException as error:
            if os.getpid() == self.own.pid:
                raise
            # In the child, which must never run on as a second guard. Anything but a Refusal is a bug, and told too.
            told = f"{error.why} {error.number}" if isinstance(error, Refusal) else f"child {error!r}"
            try:
                os.write(writer, told.encode()[:RECORD_BYTES_MAX])
            finally:
                os._exit(127)
        os.close(writer)
        os.set_blocking(self.child_pipe, False)
        self.poll.register(self.child_pipe, select.POLLIN)
        # The output must end when the last process of the effect has ended: let go of our copies.
        nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for descriptor in STANDARD_DESCRIPTORS:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)

    def watch(self, started: float) -> None:
        """Until the effect has ended, one way or another, and nothing of it is left."""
        time_up = started + self.effect.timeout_seconds
        exited: float | None = None
        pause = 0.0005
        while self.stop_reason is None:
            has_children = self.reap()
            now = boot_seconds()
            if self.child_status is not None:
                exited = exited or now
                if not has_children and not self._cgroup_is_populated():
                    break
                if now >= exited + LEFTOVER_SECONDS:
                    break
                # The exit of a child is an event; a cgroup counts its dead for a moment and then says nothing.
                self.pump(exited + LEFTOVER_SECONDS - now if has_children else pause)
                pause = min(0.02, pause * 2)
            elif now >= self.deadline:
                self.stop(LEASE_LOST)
            elif now >= time_up:
                self.stop(TIMED_OUT)
            else:
                self.pump(min(self.deadline, time_up) - now)
        if exited is None and not (self.reap() and self.child_status is None):
            exited = boot_seconds()  # it was faster
        else:
            self.ask_to_end()
        leftovers: set[tuple[int, int]] = set()
        survivors: list[int] = []
        if self.stop_reason is not None or self.reap() or self._cgroup_is_populated():
            leftovers, survivors = self.kill_tree()
        self._hear_child()
        refusal = self._refusal()
        if refusal is not None:
            self.send(refusal)
            return
        why = "exited" if exited is not None else self.stop_reason
        status = -1 if self.child_status is None else self.child_status
        seconds = (exited or boot_seconds()) - started
        names = ",".join(str(pid) for pid in survivors[:50])
        self.send(f"ended {why} {status} {seconds:.6f} {len(leftovers) if exited is not None else 0} {names}")

    def ask_to_end(self) -> None:
        """SIGTERM first, so that an effect that was cancelled or took too long can tidy up. Never on borrowed time:
        when the lease or the worker ends, everything is killed at once.
        """
        if self.stop_reason not in (TIMED_OUT, KILLED):
            return
        try:
            os.killpg(self.child, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return  # not yet a session of its own, or another account's by now: then it is killed
        end = min(boot_seconds() + TERM_SECONDS, self.deadline)
        while self.reap() and not self.worker_gone and (left := end - boot_seconds()) > 0:
            if self.child_status is not None:
                return
            self.pump(left)

    def _refusal(self) -> str | None:
        """The record for a child that did not become the effect; None for one that did, or may have."""
        came_to_exec, refusal = self.said_by_child[:1] == ABOUT_TO_EXEC, self.said_by_child.lstrip(ABOUT_TO_EXEC)
        if refusal:
            return f"{'broken' if refusal.startswith(b'child ') else 'refused'} {refusal.decode(errors='replace')}"
        if not came_to_exec and self.child_status is not None:
            return f"refused {self.stop_reason or KILLED} 0"
        return None

    def reap(self) -> bool:
        """Take in the exits of all children, adopted ones too; whether any child is left, and so any descendant."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:
                self.child_status = status

    def kill_tree(self) -> tuple[set[tuple[int, int]], list[int]]:
        """Kill all that the effect has started, however it is hidden."""

        def members() -> Iterator[ProcessStat]:
            self.reap()
            processes = all_processes()
            yield from descendants(self.own.pid, processes)
            if self.cgroup is not None:
                yield from cgroup_processes(self.cgroup, processes)
            yield from (process for process in marked(self.token, processes) if process.key != self.own.key)

        def pause(seconds: float) -> None:
            # Not `pump`: the worker's end of the socket may be readable for ever.
            waiting = select.poll()
            waiting.register(self.wake_pipe, select.POLLIN)
            if waiting.poll(seconds * 1000):
                os.read(self.wake_pipe, 4096)

        return end_all(members, cgroup=self.cgroup, session=self.own.session, pause=pause)

    def _cgroup_is_populated(self) -> bool:
        if self.cgroup is None:
            return False
        try:
            return b"populated 1" in read_bytes(f"{self.cgroup}/cgroup.events")
        except OSError:
            return False


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close what was inherited besides 0, 1, 2 and `kept`, and keep those from the effect."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib takes longer to load than all this to run
        descriptor = int(name)
        if descriptor in kept:
            os.set_inheritable(descriptor, False)
        elif descriptor not in STANDARD_DESCRIPTORS:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the descriptor of the listing itself


def main(arguments: list[str]) -> NoReturn:
    """Start, guard, leave. Exit code 0, or 70 (EX_SOFTWARE) after a bug: then too the tree is dead."""
    control, specification, worker, use_cgroup = (int(argument) for argument in arguments)
    close_all_but((control, specification))
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        msg = "prctl refused to make the guard a child subreaper"
        raise OSError(ctypes.get_errno(), msg)
    effect = decode_effect(read_descriptor(specification, EFFECT_BYTES_MAX))
    os.close(specification)
    guard = Guard(control, worker, effect, os.environ[GUARD_MARK], use_cgroup=bool(use_cgroup))
    code = 0
    try:
        guard.run()
    except BaseException as error:  # noqa: BLE001  whatever happened, the tree must not outlive the guard
        guard.kill_tree()
        guard.send(f"broken {type(error).__name__}: {error}")
        code = 70
    if guard.cgroup is not None:
        remove_cgroup(guard.cgroup)
    os._exit(code)  # there is nothing to clean up, and the interpreter's own farewell takes a millisecond
