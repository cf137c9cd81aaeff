"""The effect of a guard: how the worker describes it, and the child of the guard that becomes it."""

from __future__ import annotations

import ctypes
import errno
import os

from interlock.engine.guard.process_tree import boot_seconds, write_bytes
from interlock.lib.reach import why_replaceable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # the C half; `signal` builds enums for 3 ms at each start

EFFECT_BYTES_MAX = 16 * 1024 * 1024
HEADER_FIELDS = 5
FILE_TYPE_MASK, PLAIN_FILE = 0o170000, 0o100000  # inode(7); `stat` has names for them and takes a while to load
READ_BYTES = 1024 * 1024
COPIED_BYTES_MAX = 256 * 1024 * 1024
"""Of a pinned program that others could change: it is copied into memory before it is executed."""

# memfd_create(2), fcntl(2): Python's names for these load with `fcntl`, or not at all before 3.13.
MEMFD_CLOEXEC, MEMFD_ALLOW_SEALING, MEMFD_EXEC = 0x1, 0x2, 0x10
ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
CLONE3_NUMBER = 435  # of the system call, on every architecture that Python is built for
CLONE_INTO_CGROUP = 0x200000000

# Why a child did not become the effect.
LEASE_LOST, FOLDER, IRREGULAR, DIGEST, EXEC = "lease_lost", "folder", "irregular", "digest", "exec"

ABOUT_TO_EXEC = b"!"
"""Written before the last look at the clock: a child that died without it has certainly executed nothing."""

libc = ctypes.PyDLL(None, use_errno=True)


class Effect:
    """What is to be executed. All text is bytes already: this is the kernel's side of the door."""

    __slots__ = ("argv", "environment", "folder", "path", "sha256", "timeout_seconds")

    def __init__(
        self,
        *,
        path: bytes,
        argv: list[bytes],
        environment: list[bytes],
        folder: bytes,
        sha256: str,
        timeout_seconds: float,
    ) -> None:
        self.path = path
        self.argv = argv
        self.environment = environment
        self.folder = folder
        self.sha256 = sha256
        self.timeout_seconds = timeout_seconds


def encode_effect(effect: Effect) -> bytes:
    """Netstrings (`5:bytes,`): no byte of an argument can be mistaken for structure, and no parser need be loaded."""
    fields = [
        effect.path,
        effect.folder,
        effect.sha256.encode(),
        repr(effect.timeout_seconds).encode(),
        b"%d" % len(effect.argv),
        *effect.argv,
        *effect.environment,
    ]
    return b"".join(b"%d:%s," % (len(field), field) for field in fields)


def decode_effect(encoded: bytes) -> Effect:
    """The reverse of `encode_effect`.

    Raises:
        ValueError: the bytes are not what `encode_effect` writes.
    """
    fields = []
    position = 0
    while position < len(encoded):
        colon = encoded.index(b":", position, position + 12)
        start, end = colon + 1, colon + 1 + int(encoded[position:colon])
        if end < start or encoded[end : end + 1] != b",":
            msg = "the effect's description is damaged"
            raise ValueError(msg)
        fields.append(encoded[start:end])
        position = end + 1
    path, folder, sha256, timeout, count = fields[:HEADER_FIELDS]
    arguments_end = HEADER_FIELDS + int(count)
    if not HEADER_FIELDS < arguments_end <= len(fields):
        msg = "the effect's description lacks arguments"
        raise ValueError(msg)
    return Effect(
        path=path,
        argv=fields[HEADER_FIELDS:arguments_end],
        environment=fields[arguments_end:],
        folder=folder,
        sha256=sha256.decode("ascii"),
        timeout_seconds=float(timeout),
    )


class Refusal(Exception):
    """The effect was not executed; `why` is the word for the worker."""

    def __init__(self, why: str, number: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.number = number


def open_plain(path: bytes) -> tuple[int, os.stat_result]:
    """Open a program's file to read it.

    Raises:
        Refusal: `irregular` when it is not a plain file.
        OSError: it cannot be read.
    """
    # First without opening it in earnest: a FIFO would wait for a writer, and some devices act when they are opened.
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        if found.st_mode & FILE_TYPE_MASK != PLAIN_FILE:
            raise Refusal(IRREGULAR)
        return os.open(b"/proc/self/fd/%d" % place, os.O_RDONLY | os.O_CLOEXEC), found
    finally:
        os.close(place)


def open_pinned(path: bytes, sha256: str, copy: int | None = None) -> tuple[int, os.stat_result]:
    """Open a program and hash what the descriptor holds, with `copy` given: what was written to that one.

    Raises:
        Refusal: `digest` when the content is another, `irregular` when it is not a plain file.
        OSError: it cannot be read, cannot be executed, or is too large to be copied.
    """
    import hashlib  # noqa: PLC0415  2 ms that only pinned programs need

    descriptor, found = open_plain(path)
    digest, copied = hashlib.sha256(), 0
    while part := os.read(descriptor, READ_BYTES):
        digest.update(part)
        copied += len(part)
        if copy is not None:
            if copied > COPIED_BYTES_MAX:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            write_all(copy, part)
    if digest.hexdigest() != sha256:
        raise Refusal(DIGEST)
    return descriptor, found


def sealed_copy(path: bytes, sha256: str) -> int:
    """A descriptor of a file in memory that holds the pinned program and that nobody can change any more.

    A shell reads its script while it runs, from the very file: whoever may write that file would write its next line.

    Raises:
        Refusal, OSError: as `open_pinned`.
    """
    # A copy has the right to be executed even when the file has not, or lies where nothing may be executed.
    if not os.access(path, os.X_OK, effective_ids=True):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    flags = MEMFD_CLOEXEC | MEMFD_ALLOW_SEALING
    name = "interlock"
    try:
        copy = os.memfd_create(name, flags | MEMFD_EXEC)
    except OSError:  # a kernel before 6.3 does not know that flag, and needs none
        copy = os.memfd_create(name, flags)
    os.close(open_pinned(path, sha256, copy)[0])
    import fcntl  # noqa: PLC0415  only these programs need it

    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, ALL_SEALS)
    return copy


def write_all(descriptor: int, part: bytes) -> None:
    """Write every byte. Raises OSError."""
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]


def changed_since(descriptor: int, found: os.stat_result) -> bool:
    """Whether a file was written to in place after `found` was taken."""
    current = os.fstat(descriptor)
    return (current.st_size, current.st_mtime_ns, current.st_ctime_ns) != (
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def is_out_of_reach(path: bytes) -> bool:
    """Whether only root and this account could change what lies at `path`, or put another file there."""
    return why_replaceable(os.fsdecode(path), frozenset({0, os.geteuid()})) is None


def reset_signals() -> None:
    """Every signal to its default and none blocked: Python ignores SIGPIPE, a nohup'ed worker SIGHUP."""
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) == signal.SIG_IGN:  # exec resets the handled ones, but keeps the ignored ones
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def fork_into(cgroup: str | None) -> int:
    """fork(2) straight into a cgroup: moving a process there later waits for a grace period of the kernel, 10 ms.

    Where the system refuses clone3(2) (old kernels, some containers) the child moves itself, or stays outside; then
    its tree is found by descent and by mark only.
    """
    if cgroup is None:
        return os.fork()
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        # set_tid_size, cgroup. The guard has one thread, so nothing needs what os.fork does besides.
        arguments = (ctypes.c_uint64 * 11)(CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder)
        pid: int = libc.syscall(CLONE3_NUMBER, ctypes.byref(arguments), ctypes.sizeof(arguments))
    finally:
        os.close(folder)
    if pid < 0:
        pid = os.fork()
        if pid == 0:
            join_cgroup(cgroup)
    return pid


def become_effect(effect: Effect, deadline: float, guard_pipe: int) -> NoReturn:
    """Replace this process by the effect.

    A pinned program that only root and this account could change is executed as it lies: a binary through the
    descriptor that was hashed, which exec closes, a script by its path, because scripts ask `dirname "$0"` where they
    lie. Any other pinned program is executed as a sealed copy in memory of what was hashed. The copy of a script must
    stay open: its interpreter reads it as /dev/fd/N, so that `$0` is not the script's place, and it sees one descriptor
    more than 0, 1 and 2, on itself, which nobody can write to.

    no_new_privs is not set: operations that need sudo are legitimate here.

    Raises:
        Refusal: the effect must not, or cannot, be executed.
    """
    os.setsid()
    reset_signals()
    os.umask(0o022)
    try:
        os.chdir(effect.folder)
    except OSError as error:
        raise Refusal(FOLDER, error.errno or 0) from None
    environment = dict(entry.split(b"=", 1) for entry in effect.environment)
    try:
        if not effect.sha256:
            announce_exec(deadline, guard_pipe)
            os.execve(effect.path, effect.argv, environment)  # noqa: S606  a shell is what must not be there
        program = pinned_program(effect)
        announce_exec(deadline, guard_pipe)
        os.execve(program, effect.argv, environment)  # noqa: S606  as above
    except OSError as error:
        raise Refusal(EXEC, error.errno or 0) from None


def pinned_program(effect: Effect) -> int | bytes:
    """What to execute of a pinned program: a descriptor of exactly what was hashed, or the path of a script.

    Raises:
        Refusal, OSError: as `open_pinned`.
    """
    if not is_out_of_reach(effect.path):
        copy = sealed_copy(effect.path, effect.sha256)
        os.set_inheritable(copy, os.pread(copy, 2, 0) == b"#!")
        return copy
    descriptor, found = open_pinned(effect.path, effect.sha256)
    if changed_since(descriptor, found):
        raise Refusal(DIGEST)
    return effect.path if os.pread(descriptor, 2, 0) == b"#!" else descriptor


def announce_exec(deadline: float, guard_pipe: int) -> None:
    """Tell the guard, then look at the clock for the last time: after this there is nothing but the system call."""
    os.write(guard_pipe, ABOUT_TO_EXEC)
    if boot_seconds() >= deadline:
        raise Refusal(LEASE_LOST)


def join_cgroup(cgroup: str) -> None:
    """Move this process into the cgroup, if it can be."""
    try:
        write_bytes(f"{cgroup}/cgroup.procs", b"0")
    except OSError:
        return
