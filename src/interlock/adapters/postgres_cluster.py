"""Makes a PostgreSQL cluster that trusts nobody, and writes the configuration it runs under."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from interlock.adapters.postgres_account import ServerAccount
from interlock.core.errors import InterlockError, Permanent, Transient

DATABASE = "interlock"
OWNER_ROLE = "interlock_owner"
APP_ROLE = "interlock_app"
SUPERUSER_ROLE = "interlock_superuser"
PORT = 5432  # only part of the socket's file name: nothing listens on TCP
TOOL_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_INITDB_TIMEOUT_SECONDS = 600
_TAIL_CHARACTERS = 4000
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only asked whether it is there
_NSS_WRAPPER_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_ROLES_SQL = f"""\
CREATE ROLE {OWNER_ROLE} LOGIN CREATEDB;
CREATE ROLE {APP_ROLE} LOGIN;
CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE} TEMPLATE template0;
REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE {DATABASE} TO {APP_ROLE};
"""
# Statements stay out of the log, because they may carry what people asked for, secrets included.
SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "io_method": "sync",
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "datestyle": "iso, ymd",
    "lc_messages": "C",
    "password_encryption": "scram-sha-256",
    "logging_collector": "on",
    "log_filename": "server-%Y-%m-%d_%H%M%S.log",
    "log_file_mode": "0600",
    "log_rotation_age": "1d",
    "log_rotation_size": "5MB",
    "log_line_prefix": "%m [%p] ",
    "log_startup_progress_interval": "2s",
    "log_checkpoints": "off",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


@dataclass(frozen=True)
class ClusterPaths:
    """Where the parts of one cluster lie. `folder` belongs to us; `data` and `log` to the server's account."""

    folder: Path
    socket_folder: Path

    @property
    def data(self) -> Path:
        """The data folder; it exists only when it is complete."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Log files of the server's own collector."""
        return self.folder / "log"

    @property
    def startup_log(self) -> Path:
        """What the server said before its collector ran; begun anew at each start."""
        return self.folder / "startup.log"

    @property
    def configuration(self) -> Path:
        """Our configuration file, rewritten at each start; it includes `local.conf` beside it, which is the user's."""
        return self.folder / "postgresql.conf"

    @property
    def password_file(self) -> Path:
        """The libpq password file, where `peer` cannot be used."""
        return self.folder / "passfile"

    @property
    def lock(self) -> Path:
        """Held by every process of the server for as long as one of them lives."""
        return self.folder / "server.lock"


def make_cluster(paths: ClusterPaths, account: ServerAccount, binaries_folder: Path, lock: int, *, fsync: bool) -> None:
    """Make the data folder with its roles and database; nothing can connect to it before all is in place.

    It is made beside its final place by `initdb` and a single-user server, which has no socket, and then renamed.
    `lock` is a descriptor that everything started here inherits.

    Raises:
        Transient: the disk is full.
        Permanent: initdb fails for another reason.
    """
    work = paths.folder / "data.new"
    if work.exists():
        shutil.rmtree(work)  # an earlier attempt did not reach its end
    work.mkdir(mode=0o700)
    account.own(work)
    try:
        command = [str(binaries_folder / "initdb"), f"--pgdata={work}", f"--username={SUPERUSER_ROLE}"]
        command += ["--auth-local=reject", "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # sorts alike on every machine, for ever
        command += [] if fsync else ["--no-sync"]
        _run_as(account, command, lock, what="initdb")
        run_single_user(work, account, binaries_folder, lock, _ROLES_SQL)
    except BaseException:
        shutil.rmtree(work)
        raise
    work.rename(paths.data)
    _sync_folder(paths.folder)


def run_single_user(
    data_folder: Path, account: ServerAccount, binaries_folder: Path, lock: int, statements: str
) -> None:
    """Run SQL, one statement per line, in a server without clients; the first error ends it.

    Raises:
        Transient, Permanent: as `make_cluster`.
    """
    command = [str(binaries_folder / "postgres"), "--single", "-D", str(data_folder)]
    command += ["-c", "exit_on_error=on", "-c", "log_min_error_statement=panic", "template1"]
    _run_as(account, command, lock, what="the single-user server", text=statements)


def run_program(
    account: ServerAccount,
    command: list[str],
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    timeout_seconds: float,
) -> str:
    """Run a client program as the server's account, in a clean environment; returns what it wrote to stderr.

    Raises:
        Transient: it took longer than `timeout_seconds`, or the disk is full.
        Permanent: it failed.
    """
    name = Path(command[0]).name
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                check=False,
                timeout=timeout_seconds,
                env={**TOOL_ENVIRONMENT, **environment},
                cwd="/",
                umask=0o077,
                **account.process_arguments(),
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{name} has not finished after {timeout_seconds:.0f} seconds"
            raise Transient(msg, code="postgres.slow", fix="allow it more time") from error
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_CHARACTERS))
        complaint = errors.read().decode(errors="replace")
    if done.returncode != 0:
        raise failure(name, complaint)
    return complaint


def write_configuration(paths: ClusterPaths, account: ServerAccount, settings: Mapping[str, str]) -> None:
    """Write `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf`; an upgrade of Interlock thereby changes them."""
    method = "peer map=interlock" if account.can_use_peer else "scram-sha-256"
    host_rules = (
        f"local all {SUPERUSER_ROLE},{OWNER_ROLE},{APP_ROLE} {method}\nlocal all all reject\nhost all all all reject\n"
    )
    pairs = [(account.name, SUPERUSER_ROLE)]
    pairs += [(name, role) for name in dict.fromkeys((account.name, account.caller)) for role in (OWNER_ROLE, APP_ROLE)]
    identities = "".join(f"interlock {_ident_quoted(name)} {role}\n" for name, role in pairs if name is not None)
    everything = {
        **SETTINGS,
        "unix_socket_directories": _list_quoted(paths.socket_folder),
        "hba_file": str(paths.folder / "pg_hba.conf"),
        "ident_file": str(paths.folder / "pg_ident.conf"),
        "log_directory": str(paths.log),
        # systemd empties /dev/shm of an ordinary user's files when he logs out, whatever still runs (RemoveIPC).
        "dynamic_shared_memory_type": "posix" if account.is_other and os.access(_SHARED_MEMORY, os.W_OK) else "mmap",
        **settings,
    }
    lines = [f"{name} = {_quoted(value)}" for name, value in everything.items()]
    configuration = "\n".join([*lines, "include_if_exists 'local.conf'", ""])
    note = "# Written by Interlock at each start; your own settings belong into local.conf.\n"
    for name, text in (
        ("pg_hba.conf", host_rules),
        ("pg_ident.conf", identities),
        (paths.configuration.name, configuration),
    ):
        write_private(paths.folder / name, note + text, account)


def set_passwords(paths: ClusterPaths, account: ServerAccount, binaries_folder: Path, lock: int) -> None:
    """Give the roles new random passwords and write them into a libpq password file of mode 0600."""
    passwords = {role: secrets.token_hex(32) for role in (SUPERUSER_ROLE, OWNER_ROLE, APP_ROLE)}
    statements = "".join(f"ALTER ROLE {role} PASSWORD '{password}';\n" for role, password in passwords.items())
    run_single_user(paths.data, account, binaries_folder, lock, statements)
    text = "".join(f"*:*:*:{role}:{password}\n" for role, password in passwords.items())
    write_private(paths.password_file, text)


def write_private(path: Path, text: str, account: ServerAccount | None = None) -> None:
    """Replace a file atomically; only we can read it, and the server's account where one is given."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            if account is not None and account.is_other:
                os.fchown(descriptor, -1, account.group_id)
                os.fchmod(descriptor, 0o640)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def failure(what: str, output: str) -> InterlockError:
    """The error for a server program that failed: it says what to do, and carries the end of what was said."""
    tail = output.strip()[-_TAIL_CHARACTERS:]
    last = tail.splitlines()[-1] if tail else "it said nothing"
    if _NO_SPACE.search(tail):
        msg = f"{what} stopped: the disk is full"
        return _disk_full(msg, {"log_tail": tail})
    msg = f"{what} failed: {last}"
    return Permanent(
        msg,
        code="postgres.failed",
        fix="the end of the server's log, in the details of this error, says why; mend that and start again",
        details={"log_tail": tail},
    )


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the operating system's errors about files and processes into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            msg = f"{doing} stopped: the disk is full"
            raise _disk_full(msg, {"file": str(error.filename)}) from error
        msg = f"{doing} failed: {error}"
        if error.errno in {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
            fix = "this machine is out of memory, processes or open files for now: try again"
            raise Transient(msg, code="postgres.system", fix=fix, effect_sent=False) from error
        raise Permanent(
            msg, code="postgres.system", fix="let this user read and write there, or choose another folder"
        ) from error


def _disk_full(message: str, details: dict[str, object]) -> Transient:
    return Transient(
        message,
        code="postgres.disk_full",
        fix="free some space (`df -h` shows where), then start again: nothing that was committed is lost",
        details=details,
        effect_sent=False,
    )


def _run_as(account: ServerAccount, command: list[str], lock: int, *, what: str, text: str = "") -> None:
    with _named_user(account) as (prefix, environment):
        try:
            done = subprocess.run(
                [*prefix, *command],
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=_INITDB_TIMEOUT_SECONDS,
                env={**TOOL_ENVIRONMENT, **environment},
                cwd="/",
                umask=0o077,
                pass_fds=(lock,),
                **account.process_arguments(),
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{what} has not finished after {_INITDB_TIMEOUT_SECONDS} seconds"
            raise Transient(
                msg, code="postgres.slow", fix="look whether the disk is stuck", effect_sent=False
            ) from error
    if done.returncode != 0:
        raise failure(what, done.stdout + done.stderr)


@contextlib.contextmanager
def _named_user(account: ServerAccount) -> Iterator[tuple[list[str], dict[str, str]]]:
    """What to put before a command so that its uid has a name: initdb and single-user servers refuse to run without.

    Yields the words to prepend and the environment to add; both are empty where the uid has a passwd entry.
    """
    if account.name is not None:
        yield [], {}
        return
    wrapper = next(
        (found for folder in _NSS_WRAPPER_FOLDERS for found in sorted(Path(folder).glob("**/libnss_wrapper.so"))), None
    )
    if wrapper is not None:
        with tempfile.TemporaryDirectory(prefix="interlock-") as folder:
            users, groups = Path(folder, "passwd"), Path(folder, "group")
            users.write_text(f"interlock:x:{account.user_id}:{account.group_id}::/:/bin/false\n")
            groups.write_text(f"interlock:x:{account.group_id}:\n")
            names = {"NSS_WRAPPER_PASSWD": str(users), "NSS_WRAPPER_GROUP": str(groups)}
            yield [], {"LD_PRELOAD": str(wrapper), **names}
        return
    yield _user_namespace(account), {}


def _user_namespace(account: ServerAccount) -> list[str]:
    """A prefix that shows our uid to the program as one that has a name; files still belong to our uid outside."""
    program = shutil.which("unshare", path="/usr/bin:/bin")
    named = next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    if program is not None and named is not None:
        prefix = [program, "--user", f"--map-user={named.pw_uid}", f"--map-group={named.pw_gid}", "--"]
        with contextlib.suppress(subprocess.SubprocessError):  # it is forbidden here, as in most containers
            subprocess.run([*prefix, "true"], capture_output=True, check=True, timeout=60, env=TOOL_ENVIRONMENT)
            return prefix
    msg = f"uid {account.user_id} has no passwd entry, and initdb refuses to make a database for it"
    raise Permanent(
        msg,
        code="postgres.nameless_user",
        fix="give the uid a passwd entry, or install libnss-wrapper, or allow user namespaces, "
        "or set INTERLOCK_DATABASE_URL to a PostgreSQL of your own",
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _list_quoted(folder: Path) -> str:
    """A path as one element of a comma-separated list setting."""
    return '"' + str(folder).replace('"', '""') + '"'


def _ident_quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
