"""The effect of a guard: how the worker describes it, and the child of the guard that becomes it."""

from __future__ import annotations

import ctypes
import os

from interlock.engine.process_tree import boot_seconds, write_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # the C half; `signal` builds enums for 3 ms at each start

EFFECT_BYTES_MAX = 16 * 1024 * 1024
HEADER_FIELDS = 5
FILE_TYPE_MASK, PLAIN_FILE = 0o170000, 0o100000  # inode(7); `stat` has names for them and takes a while to load
GROUP_OR_OTHERS_WRITE = 0o022
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


def open_pinned(path: bytes, sha256: str) -> tuple[int, os.stat_result]:
    """Open a program and hash what the descriptor holds; that descriptor is what will be executed.

    Raises:
        Refusal: `digest` when the content is another, `irregular` when it is not a plain file.
        OSError: it cannot be read.
    """
    import hashlib  # noqa: PLC0415  2 ms that only pinned programs need

    # O_NONBLOCK: a FIFO at that path must not make us wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if found.st_mode & FILE_TYPE_MASK != PLAIN_FILE:
        raise Refusal(IRREGULAR)
    digest = hashlib.sha256()
    while part := os.read(descriptor, 1024 * 1024):
        digest.update(part)
    if digest.hexdigest() != sha256:
        raise Refusal(DIGEST)
    return descriptor, found


def changed_since(descriptor: int, found: os.stat_result) -> bool:
    """Whether a file was written to in place after `found` was taken."""
    current = os.fstat(descriptor)
    return (current.st_size, current.st_mtime_ns, current.st_ctime_ns) != (
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def is_out_of_reach(path: bytes, found: os.stat_result) -> bool:
    """Whether `path` is the file that was hashed, and only root and this account could put another in its place."""
    named = os.lstat(path)
    folder = os.stat(os.path.dirname(path) or b"/")  # noqa: PTH116, PTH120  the guard does without pathlib
    owners = {0, os.geteuid()}
    return (
        (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)
        and {found.st_uid, folder.st_uid} <= owners
        and not (found.st_mode | folder.st_mode) & GROUP_OR_OTHERS_WRITE
    )


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

    A pinned binary is executed through its descriptor, which exec closes. A pinned script that nobody but root and this
    account could change is executed by its path, because scripts ask `dirname "$0"` where they lie. Any other script
    is executed through its descriptor, which must stay open: its interpreter reads it as /dev/fd/N, so it sees one
    descriptor more than 0, 1 and 2, read-only, on itself.

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
        descriptor, found = open_pinned(effect.path, effect.sha256)
        is_script = os.pread(descriptor, 2, 0) == b"#!"
        by_path = is_script and is_out_of_reach(effect.path, found)
        os.set_inheritable(descriptor, is_script and not by_path)
        if changed_since(descriptor, found):
            raise Refusal(DIGEST)
        announce_exec(deadline, guard_pipe)
        os.execve(effect.path if by_path else descriptor, effect.argv, environment)  # noqa: S606  as above
    except OSError as error:
        raise Refusal(EXEC, error.errno or 0) from None


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
