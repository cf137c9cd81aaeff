"""The program that takes from itself what a trial must not have, says what it could take, and becomes the trial.

    python -I -S confine.py REPORT_FILE WRITABLE_FOLDER... -- PROGRAM ARGUMENT...

It may then write nowhere but below the writable folders (Landlock), reach no network (a network namespace without any
link), speak to no local socket of others (seccomp), signal nobody else, has none of root's capabilities, and gains no
rights. What the kernel does not offer is not taken, and the report says so: who compares versions must know what a
trial could have done.

Alone beside nothing but Python's standard library, so that a start costs little and nothing of ours is loaded in it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# landlock(7); the numbers of these system calls are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, PATH_BENEATH = 1, 1
WRITE_FILE = 1 << 1
WRITES = WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # write, remove, and make anything
REFER, TRUNCATE = 1 << 13, 1 << 14
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
REFER_SINCE, TRUNCATE_SINCE, TCP_SINCE, SCOPES_SINCE = 2, 3, 4, 6
DEVICES = ("/dev/null", "/dev/zero", "/dev/full")

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
NO_NEW_PRIVILEGES, SECCOMP, FILTER_MODE = 38, 22, 2

# The numbers of prctl(2) and capset(2) that take capabilities away.
DROP_BOUNDING, AMBIENT, CLEAR_ALL, CAPABILITIES_MAX = 24, 47, 4, 64
CAPABILITY_VERSION, CAPABILITY_SETS_BYTES = 0x20080522, 24

# seccomp(2): the architecture as the kernel calls it, socket(2) there, and io_uring_setup(2), another way to a socket.
ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
IO_URING_SETUP, X32_BIT, LOCAL_FAMILY = 425, 0x40000000, 1
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16

FILE_BYTES_MAX = 16 * 1024 * 1024 * 1024
"""Of one file that a trial writes, so that one that writes without end ends before the disk does, mostly."""
USAGE, CANNOT_START = 2, 126
libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """A system call. Raises OSError."""
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _control(option: int, *arguments: object) -> None:
    if libc.prctl(option, *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def cut_network() -> str:
    """Into a network of its own that has no link, not even loopback."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEW_NETWORK) == 0:
        return "cut off"
    if libc.unshare(NEW_USER | NEW_NETWORK) != 0:
        return f"open: {os.strerror(ctypes.get_errno())}"
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
            file.write(text)
    return "cut off"


def keep_writes_to(folders: list[str], *, tcp: bool) -> tuple[str, bool]:
    """Only below these folders; with `tcp` no TCP either. Returns what came of both."""
    try:
        version = _call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    except OSError as error:
        return f"everywhere: {error.strerror}", False
    rights = WRITES | (REFER if version >= REFER_SINCE else 0) | (TRUNCATE if version >= TRUNCATE_SINCE else 0)
    network = BIND_TCP | CONNECT_TCP if tcp and version >= TCP_SINCE else 0
    scopes = ABSTRACT_SOCKETS | SIGNALS if version >= SCOPES_SINCE else 0
    size = 24 if version >= SCOPES_SINCE else 16 if version >= TCP_SINCE else 8
    attributes = struct.pack("=QQQ", rights, network, scopes)[:size]
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    for path in (*folders, *DEVICES):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        given = rights if path in folders else WRITE_FILE | (rights & TRUNCATE)
        rule = struct.pack("=Qi", given, place)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0))
        os.close(place)
    _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return "kept to its own folders", network != 0


def refuse_local_sockets() -> str:
    """socket(2) of the local family is refused: no database, container engine or service manager of this machine."""
    known = ARCHITECTURES.get(platform.machine())
    if known is None or struct.calcsize("P") != struct.calcsize("Q"):
        return f"open: no filter is written for {platform.machine()}"
    architecture, socket_call = known
    filters = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 0, 7, architecture),  # a call of another architecture is refused
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 5, 0, X32_BIT),
        (JUMP_EQUAL, 4, 0, IO_URING_SETUP),
        (JUMP_EQUAL, 0, 2, socket_call),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (JUMP_EQUAL, 1, 0, LOCAL_FAMILY),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    code = b"".join(struct.pack("=HBBI", *each) for each in filters)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(kept))
    try:
        _control(SECCOMP, ctypes.c_ulong(FILTER_MODE), program)
    except OSError as error:
        return f"open: {error.strerror}"
    return "refused"


def drop_capabilities() -> str:
    """All of them, and for good: what is in no bounding set, not even a program of root's is given when it starts."""
    zero = ctypes.c_ulong(0)
    try:
        _control(AMBIENT, ctypes.c_ulong(CLEAR_ALL), zero, zero, zero)
        if os.geteuid() == 0:  # others get none by starting a program, for they gain no rights
            _drop_bounding()
        header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
        if libc.capset(header, bytes(CAPABILITY_SETS_BYTES)) != 0:
            return f"open: {os.strerror(ctypes.get_errno())}"
    except OSError as error:
        return f"open: {error.strerror}"
    return "none"


def _drop_bounding() -> None:
    """Up to the last one that this kernel knows. Raises OSError."""
    zero = ctypes.c_ulong(0)
    for capability in range(CAPABILITIES_MAX):
        try:
            _control(DROP_BOUNDING, ctypes.c_ulong(capability), zero, zero, zero)
        except OSError as error:
            if error.errno == errno.EINVAL and capability > 0:
                return
            raise


def confine(folders: list[str]) -> dict[str, str]:
    """Take all of it; what could not be taken begins with `open` or `everywhere`."""
    _control(NO_NEW_PRIVILEGES, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = FILE_BYTES_MAX if allowed == resource.RLIM_INFINITY else min(FILE_BYTES_MAX, allowed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    network = cut_network()
    writes, tcp = keep_writes_to(folders, tcp=network != "cut off")
    if tcp:
        network = "cut off for TCP alone"
    sockets = refuse_local_sockets()
    return {"writes": writes, "network": network, "local_sockets": sockets, "capabilities": drop_capabilities()}


def main(words: list[str]) -> NoReturn:
    """Become the program, or end with 126 and the reason."""
    try:
        end = words.index("--")
        report, folders, command = words[0], words[1:end], words[end + 1 :]
    except (ValueError, IndexError):
        sys.stderr.write("confine REPORT FOLDER... -- PROGRAM ARGUMENT...\n")
        sys.exit(USAGE)
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        taken = confine(folders)
        os.write(descriptor, json.dumps(taken).encode())
        os.execv(command[0], command)  # noqa: S606 - that is what it is for
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error.strerror}\n")
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main(sys.argv[1:])
