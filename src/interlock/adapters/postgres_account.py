"""Finds the operating-system account a PostgreSQL server runs as: our own, or a dedicated one when we are root."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from interlock.core.errors import Permanent

SERVER_ACCOUNT = "interlock-postgres"
_USERADD_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_USERADD_EXISTS = 9  # useradd(8): the name is already in use
_USERADD_ATTEMPTS = 20
_USERADD_PAUSE_SECONDS = 0.25
_USERADD_TIMEOUT_SECONDS = 30


class ProcessArguments(TypedDict, total=False):
    """The part of `subprocess.Popen`'s arguments that says whose process it is."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class ServerAccount:
    """Who the server runs as, and who connects to it.

    `name` is the account's passwd entry and `caller` that of this process; None where the uid has none, as in a
    container started with `--user 1234`: `peer` authentication cannot work there. `is_other` says that this process
    has to change to the account for whatever touches the data folder.
    """

    user_id: int
    group_id: int
    name: str | None
    caller: str | None
    is_other: bool

    @property
    def can_use_peer(self) -> bool:
        """Whether the kernel's answer to "who is at the other end" can be turned into a name."""
        return self.name is not None and self.caller is not None

    def process_arguments(self) -> ProcessArguments:
        """How `subprocess` is told to start a process as this account."""
        if not self.is_other:
            return {}
        return {"user": self.user_id, "group": self.group_id, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder that we have just made to the account."""
        if self.is_other:
            os.chown(path, self.user_id, self.group_id, follow_symlinks=False)


def find_account(name: str = SERVER_ACCOUNT) -> ServerAccount:
    """The account for this process: itself, or, for root, whom PostgreSQL refuses, the system account `name`.

    The account is made when it is missing; any number of processes may do so at once.

    Raises:
        Permanent: the account is needed, missing, and cannot be made.
    """
    caller = _name_of(os.geteuid())
    if os.geteuid() != 0:
        return ServerAccount(os.geteuid(), os.getegid(), name=caller, caller=caller, is_other=False)
    entry = _entry(name)
    if entry is None:
        with _alone():
            entry = _entry(name) or _create(name)
    if entry.pw_uid == 0:
        msg = f"the account {name} has uid 0, and PostgreSQL refuses to run as root"
        raise Permanent(msg, code="postgres.account", fix=f"give {name} a uid of its own")
    return ServerAccount(entry.pw_uid, entry.pw_gid, name=entry.pw_name, caller=caller, is_other=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two useradd at once both succeed and leave two accounts of one name: it looks before it locks.

    The file is the one that programs which change accounts lock (lckpwdf(3)), with a lock of another kind.
    """
    descriptor = os.open("/etc/.pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # whoever has it runs useradd, which has a time-out
        yield
    finally:
        os.close(descriptor)


def _create(name: str) -> pwd.struct_passwd:
    program = shutil.which("useradd", path=_USERADD_PATH)
    complaint = "there is no useradd on this machine"
    if program is not None:
        command = [
            program,
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
        ]
        command += ["--comment", "Interlock embedded PostgreSQL"]
        command += ["--gid", name] if _group_exists(name) else ["--user-group"]
        for _ in range(_USERADD_ATTEMPTS):  # it fails at once while another program holds /etc/passwd
            try:
                done = subprocess.run(
                    [*command, name],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_USERADD_TIMEOUT_SECONDS,
                    env={"PATH": _USERADD_PATH, "LC_ALL": "C"},
                    cwd="/",
                )
            except subprocess.TimeoutExpired:
                complaint = f"useradd has not finished after {_USERADD_TIMEOUT_SECONDS} seconds"
                break
            complaint = done.stderr.strip()
            if done.returncode in {0, _USERADD_EXISTS} and (entry := _entry(name)) is not None:
                return entry
            if "try again later" not in complaint:
                break
            time.sleep(_USERADD_PAUSE_SECONDS)
    msg = f"PostgreSQL does not run as root, and the account {name} cannot be made: {complaint}"
    raise Permanent(
        msg,
        code="postgres.account",
        fix=f"make a system account named {name}, or run Interlock as an ordinary user, "
        "or set INTERLOCK_DATABASE_URL to a PostgreSQL of your own",
    )


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _name_of(user_id: int) -> str | None:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return None
