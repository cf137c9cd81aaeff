"""The keeper: a stand-alone program that keeps one process running after Interlock has ended.

It is started with the descriptors of its folder, of its orders (a marshalled dict, `Orders`) and of a pipe for its
first word, and with the name of what it keeps, for people who look at processes. It leaves its parent at once. What it
knows it writes into its folder: `state.json` (whole or not at all), `log` and `log.1`. It holds the lock on `lock` for
as long as it lives, so that there is one keeper for one folder. It listens to signals only: SIGTERM ends what it keeps
with its whole tree, and then itself; SIGHUP starts it anew.

What it keeps writes into the file `log` itself, not through the keeper: a keeper that dies takes nothing with it, and
the next one finds the process by the pid and the start time that were written down, and goes on keeping it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import select
import time

from interlock.adapters.keeper_tree import (
    MARK,
    Seen,
    below,
    boot_seconds,
    end_all,
    is_alive,
    look,
    look_at_all,
    marked,
    of_child,
    pidfd_open,
    read_start,
    send,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from typing import NoReturn, TypedDict

    class Orders(TypedDict):
        """What to keep, and how. Text is bytes, as the kernel wants it. `adopt`: pid and start of one that runs."""

        argv: list[bytes]
        environment: list[tuple[bytes, bytes]]
        folder: bytes
        mark: bytes
        stop_signal: int
        stop_grace_seconds: float
        restart_pause_seconds: float
        restart_pause_seconds_max: float
        restarts_per_hour_max: int
        log_bytes_max: int
        adopt: tuple[int, int] | None
        restarts: int
        last_exit: str | None
        started_at: float | None

else:
    import _signal as signal  # the C half; `signal` builds enums of all signals

ORDERS_BYTES_MAX = 4 * 1024 * 1024
PR_SET_CHILD_SUBREAPER = 36
STANDARD_DESCRIPTORS = (0, 1, 2)
LOOK_SECONDS = 1.0
"""How often the size of the log and the folder are looked at."""
EXEC_SECONDS = 10.0
HOUR_SECONDS = 3600.0
COPY_BYTES = 1024 * 1024
FORMAT = 1
UNKNOWN_EXIT = "unknown"
"""How a process ended that was adopted: only its parent would be told."""


class NotStarted(Exception):
    """The program could not be executed; `number` says why, as errno(3)."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Keeper:
    """One kept process, from its start to its stop."""

    def __init__(self, folder: int, orders: Orders) -> None:
        self.folder = folder
        self.orders = orders
        self.child: tuple[int, int] | None = orders["adopt"]
        self.child_descriptor = -1
        self.child_status: int | None = None
        self.adopted = False
        self.phase = "starting"
        self.started_at = orders["started_at"]
        self.started = boot_seconds()
        self.due: float | None = None
        self.pause = orders["restart_pause_seconds"]
        self.restarts = orders["restarts"]
        self.last_exit = orders["last_exit"]
        self.again: list[float] = []
        self.orders_done = 0
        self.told_to_stop = False
        self.told_to_restart = False
        self.unwritten = True
        self.boot = read_start("/proc/sys/kernel/random/boot_id", 64).strip().decode("ascii")
        self.poll = select.poll()
        self.wake_pipe = self._wake_on_signals()

    def _wake_on_signals(self) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told_to_stop", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "told_to_restart", True))
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.poll.register(reader, select.POLLIN)
        return reader

    # What it keeps.

    def begin(self) -> str:
        """Start it, or take over the one that runs; returns the first word. Raises NotStarted."""
        if self.child is not None and is_alive(*self.child):
            if pidfd_open is not None:  # else it is looked at once in a second
                self.child_descriptor = pidfd_open(self.child[0])
                self.poll.register(self.child_descriptor, select.POLLIN)
            self.adopted = True
            self.phase = "running"
            return "adopted"
        self.child = None
        self.end_tree()  # one that a keeper before started and had no time to write down
        self.start()
        return "started"

    def start(self) -> None:
        """Execute the program. Raises NotStarted."""
        reader, writer = os.pipe()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            log = os.open("log", flags, 0o600, dir_fd=self.folder)
            pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            raise NotStarted(error.errno or errno.EIO) from None
        if pid == 0:
            become(self.orders, log, writer)
        os.close(log)
        os.close(writer)
        number = first_word(reader)
        seen = look(pid)  # not reaped yet, and so there whether it lives or not
        if number or seen is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise NotStarted(number or errno.ESRCH)
        self.child, self.child_status = seen.key, None
        self.phase, self.due, self.started = "running", None, boot_seconds()
        self.started_at = time.clock_gettime(time.CLOCK_REALTIME)
        self.unwritten = True

    def reap(self) -> None:
        """Take in the exits of all children, orphans of the tree too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.child is not None and pid == self.child[0]:
                self.child_status = status

    def has_ended(self) -> bool:
        """Whether the process itself, not its children, is gone."""
        if self.child is None:
            return False
        return self.child_status is not None or (self.adopted and not is_alive(*self.child))

    def note_end(self) -> None:
        """It ended: nothing of it is left behind."""
        if self.child_status is None:
            self.last_exit = UNKNOWN_EXIT
        else:
            code = os.waitstatus_to_exitcode(self.child_status)
            self.last_exit = f"exit {code}" if code >= 0 else f"signal {-code}"
        self.end_tree()
        if self.child_descriptor >= 0:
            self.poll.unregister(self.child_descriptor)
            os.close(self.child_descriptor)
            self.child_descriptor = -1
        self.child, self.child_status, self.adopted, self.unwritten = None, None, False, True

    def plan_restart(self) -> None:
        """When it is started again after it ended by itself, or that it is not."""
        now = boot_seconds()
        if now - self.started >= self.orders["restart_pause_seconds_max"]:
            self.pause = self.orders["restart_pause_seconds"]
        self.again = [moment for moment in self.again if now - moment < HOUR_SECONDS]
        self.unwritten = True
        if len(self.again) >= self.orders["restarts_per_hour_max"]:
            self.phase, self.due = "given_up", None
            return
        self.again.append(now)
        self.phase, self.due = "waiting", now + self.pause
        self.pause = min(self.pause * 2, self.orders["restart_pause_seconds_max"])

    def start_again(self) -> None:
        """Once more; a program that cannot be executed now counts like one that ended at once."""
        self.restarts += 1
        try:
            self.start()
        except NotStarted as error:
            self.last_exit = f"not started: {error}"
            self.started = boot_seconds()
            self.plan_restart()

    def end(self) -> bool:
        """Ask it to end, then kill what is left of its tree; whether nothing is."""
        if self.child is not None:
            send(*self.child, self.orders["stop_signal"])
            limit = boot_seconds() + self.orders["stop_grace_seconds"]
            while not self.has_ended() and (left := limit - boot_seconds()) > 0:
                self.wait(left)
        return not self.end_tree()

    def end_tree(self) -> list[int]:
        """Kill all that the process has started, however it is hidden; returns what does not die."""
        own = os.getpid()

        def members() -> Iterator[Seen]:
            self.reap()
            processes = look_at_all()
            yield from below(own, processes)
            if self.child is not None:
                yield from of_child(self.child, processes)
            yield from (seen for seen in marked(self.orders["mark"], processes) if seen.pid != own)

        survivors = end_all(members, wait=self.wait)
        self.reap()
        return survivors

    # What it writes.

    def write_state(self) -> None:
        """All that is known, whole or not at all; on a full disk later."""
        pid, ticks = self.child or (None, None)
        fields: dict[str, str | float | None] = {
            "format": FORMAT,
            "phase": self.phase,
            "pid": pid,
            "ticks": ticks,
            "boot": self.boot,
            "started_at": self.started_at,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "orders_done": self.orders_done,
        }
        body = "{" + ", ".join(f'"{name}": {as_json(value)}' for name, value in fields.items()) + "}\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            file = os.open("state.new", flags, 0o600, dir_fd=self.folder)
            try:
                os.write(file, body.encode("ascii"))
            finally:
                os.close(file)
            os.rename("state.new", "state.json", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except OSError as error:
            self.unwritten = error.errno not in (errno.ENOENT, errno.ENOTDIR)  # the folder is gone: seen elsewhere
            return
        self.unwritten = False

    def bound_log(self) -> None:
        """Keep the end of a log that grew too long as `log.1`, and begin anew: its writer appends wherever it ends."""
        try:
            log = os.open("log", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.folder)
        except FileNotFoundError:
            return
        try:
            size, bytes_max = os.fstat(log).st_size, self.orders["log_bytes_max"]
            if size > bytes_max:
                try:
                    self._keep_end_of(log, size - bytes_max)
                finally:
                    os.ftruncate(log, 0)  # also on a full disk: it makes room
        finally:
            os.close(log)

    def _keep_end_of(self, log: int, start: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open("log.new", flags, 0o600, dir_fd=self.folder)
        try:
            left = self.orders["log_bytes_max"] + COPY_BYTES  # what is written meanwhile too, within reason
            os.lseek(log, start, os.SEEK_SET)
            while left > 0 and (part := os.read(log, min(left, COPY_BYTES))):
                os.write(file, part)
                left -= len(part)
            os.rename("log.new", "log.1", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except OSError:
            os.unlink("log.new", dir_fd=self.folder)  # no room for the copy
        finally:
            os.close(file)

    # The loop.

    def wait(self, seconds: float) -> None:
        """Until a signal, the end of an adopted process, or so long."""
        for descriptor, _ in self.poll.poll(max(0.0, min(seconds, LOOK_SECONDS)) * 1000):
            if descriptor == self.wake_pipe:
                os.read(self.wake_pipe, 4096)
        self.reap()

    def run(self) -> None:
        """Keep it until told otherwise. Returns when nothing of it is left."""
        while True:
            if self.told_to_stop or os.fstat(self.folder).st_nlink == 0:
                self.told_to_stop = True  # also where nobody could tell any more: its folder was deleted
                if self.end():
                    break
            elif self.told_to_restart:
                self.told_to_restart = False
                self._restart()
            elif self.has_ended():
                self.note_end()
                self.plan_restart()
            elif self.due is not None and boot_seconds() >= self.due:
                self.start_again()
            self.bound_log()
            if self.unwritten:
                self.write_state()
            if not (self.has_ended() or self.told_to_stop or self.told_to_restart):
                self.wait(LOOK_SECONDS if self.due is None else self.due - boot_seconds())
        self.child, self.phase = None, "stopped"
        self.write_state()

    def _restart(self) -> None:
        """By order: at once, and with a new budget."""
        if self.end():
            if self.child is not None:
                self.note_end()
            self.again, self.pause, self.due = [], self.orders["restart_pause_seconds"], None
            self.start_again()
        self.orders_done += 1
        self.unwritten = True


def as_json(value: str | float | None) -> str:
    """A number, null, or text; text is plain ASCII without quotes."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return '"' + "".join(letter for letter in value if " " <= letter <= "~" and letter not in '"\\') + '"'
    return repr(value)


def become(orders: Orders, log: int, writer: int) -> NoReturn:
    """In the child: a session of its own, nothing inherited but what is meant, then the program; or why not."""
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            if signal.getsignal(number) == signal.SIG_IGN:  # exec resets the handled ones, but keeps the ignored ones
                signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.chdir(orders["folder"])
        nowhere = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nowhere, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = {**dict(orders["environment"]), MARK: orders["mark"]}
        os.execve(orders["argv"][0], orders["argv"], environment)  # noqa: S606  a shell is what must not be there
    except BaseException as error:  # noqa: BLE001  whatever it is, this must never run on as a second keeper
        why = error.errno if isinstance(error, OSError) else None
        os.write(writer, b"%d" % (why or errno.EIO))
    finally:
        os._exit(127)


def first_word(reader: int) -> int:
    """0 once the child became the program, or the errno for which it could not."""
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    try:
        if not waiting.poll(EXEC_SECONDS * 1000):
            return errno.ETIMEDOUT
        return int(os.read(reader, 16) or b"0")
    finally:
        os.close(reader)


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close what was inherited besides 0, 1, 2 and `kept`, and keep those from what is executed."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib is not small
        descriptor = int(name)
        if descriptor in kept:
            os.set_inheritable(descriptor, False)
        elif descriptor not in STANDARD_DESCRIPTORS:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the descriptor of the listing itself


def take_lock(folder: int) -> int | None:
    """Become the one keeper of this folder, until this descriptor is closed; None when there is one.

    A lock of fcntl(2): others can ask who holds it without taking it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open("lock", flags, 0o600, dir_fd=folder)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return None
    return lock


def read_orders(descriptor: int) -> Orders:
    """From the file that whoever starts us made."""
    found: Orders = marshal.loads(read_start(f"/proc/self/fd/{descriptor}", ORDERS_BYTES_MAX))  # noqa: S302  ours
    os.close(descriptor)
    return found


def keep(folder: int, orders: Orders, ready: int) -> int:
    """The whole life of the keeper; returns its exit code."""
    lock = take_lock(folder)
    if lock is None:
        os.write(ready, b"busy")
        return 75
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        os.write(ready, b"failed %d" % errno.EPERM)
        return 71
    keeper = Keeper(folder, orders)
    try:
        word = keeper.begin()
    except NotStarted as error:
        os.close(lock)  # first, so that whoever hears of it finds no keeper
        os.write(ready, b"failed %d" % error.number)
        return 66
    keeper.write_state()
    os.write(ready, word.encode("ascii"))
    os.close(ready)
    keeper.run()
    return 0


def main(arguments: list[str]) -> NoReturn:
    """Leave the parent, keep, end. What goes wrong here is a bug; what is kept then runs on for the next keeper."""
    folder, orders, ready = (int(argument) for argument in arguments[:3])
    close_all_but((folder, orders, ready))
    if os.fork():
        os._exit(0)  # whoever started us waits for this; the keeper belongs to nobody and leads no session
    os.umask(0o077)
    os.chdir("/")
    code = 70
    try:
        code = keep(folder, read_orders(orders), ready)
    except BaseException as error:  # noqa: BLE001  told where people look
        log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
        os.write(log, f"interlock: the keeper failed: {type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)
