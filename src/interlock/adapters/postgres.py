"""Runs a PostgreSQL server of our own: one for each state folder, on a Unix socket, trusting nobody."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from interlock.adapters import postgres_cluster as cluster
from interlock.adapters import postgres_process as process
from interlock.adapters.postgres_account import ServerAccount, find_account
from interlock.adapters.postgres_binaries import copy_binaries, find_binaries, server_version
from interlock.adapters.postgres_cluster import ClusterPaths
from interlock.adapters.postgres_layout import Layout
from interlock.core.errors import NotFound, Permanent, Transient
from interlock.lib.clock import Clock

SYSTEM_FOLDER = Path("/var/lib/interlock")
SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less its final NUL

_LOCK_TIMEOUT_SECONDS = 180.0
_ANSWER_TIMEOUT_SECONDS = 10.0
_STOP_STEPS = ((signal.SIGTERM, 60.0), (signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_LEFTOVER_STEPS = ((1.0, None), (3.0, signal.SIGTERM), (5.0, signal.SIGQUIT), (5.0, signal.SIGKILL))
_PROGRESS_SECONDS = 2.0
_LOG_FILES_MAX = 6
_LOG_TAIL_BYTES = 4000
_SERVER = "the PostgreSQL server"


@dataclass(frozen=True)
class Endpoint:
    """How to reach the server; it holds no secret.

    `host` is the socket's folder. `owner_user` owns the schema and migrates; `app_user` has the rights it was granted
    and no others. `password_file` is a libpq password file, where `peer` authentication is impossible.
    """

    host: str
    database: str
    owner_user: str
    app_user: str
    password_file: str | None = None

    @property
    def owner_conninfo(self) -> str:
        """The libpq connection string of the schema's owner."""
        return self._conninfo(self.owner_user)

    @property
    def app_conninfo(self) -> str:
        """The libpq connection string of the program."""
        return self._conninfo(self.app_user)

    def _conninfo(self, user: str) -> str:
        values = {"host": self.host, "port": str(cluster.PORT), "dbname": self.database, "user": user}
        if self.password_file is not None:
            values["passfile"] = self.password_file
        escaped = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in values.items()}
        return " ".join(f"{name}='{value}'" for name, value in escaped.items())


class EmbeddedPostgres:
    """The supervisor of one server.

    Every method blocks and is called from a thread. Any number of processes may use the same folders at once: the
    first one starts the server, the others attach to it, and it outlives them all until somebody calls `stop`.

    What is alive is decided by a lock that the server's processes inherit, so that neither a reused pid, a reboot, a
    zombie nor another pid namespace can deceive us; pid files only say whom to signal, and are checked.

    Args:
        state_folder: Holds the cluster, for an ordinary user; for root only the name of one below `system_folder`,
            because the server's account may not be able to enter the state folder.
        runtime_folder: A folder of this user alone, with a short path, for the socket; root does not use it.
        clock: What tells the time.
        report: Is given one sentence now and then when something takes longer than two seconds.
        settings: PostgreSQL settings that override ours.
        fsync: Only tests may turn it off.
        system_folder: Where root keeps programs and clusters; every account must be able to reach it.
    """

    def __init__(
        self,
        state_folder: Path,
        runtime_folder: Path,
        *,
        clock: Clock,
        report: Callable[[str], None] = lambda _: None,
        settings: dict[str, str] | None = None,
        fsync: bool = True,
        system_folder: Path = SYSTEM_FOLDER,
    ) -> None:
        self._layout = Layout(state_folder.resolve(), runtime_folder.resolve(), system_folder.resolve())
        self._clock = clock
        self._report = report
        self._settings = {**(settings or {}), "fsync": "on" if fsync else "off"}
        self._fsync = fsync

    @cached_property
    def binaries_folder(self) -> Path:
        """Where `pg_dump`, `pg_restore`, `psql` and the others are. Raises Permanent: they are not installed."""
        if os.geteuid() != 0:
            return find_binaries()
        self._layout.make_system_folder()
        with self._locked(self._layout.installation_lock):
            return copy_binaries(self._layout.system_folder)

    @property
    def postmaster_pid(self) -> int | None:
        """The pid of the live server; None when there is none."""
        found = self._find()
        return None if found is None else found[1].pid

    def is_running(self) -> bool:
        """Whether a server lives, ready or not."""
        return self._find() is not None

    def start(self) -> Endpoint:
        """Start the server, or attach to the one that runs; make what is missing; return when it takes connections.

        Crash recovery is waited for as long as the server is alive, however long it takes.

        Raises:
            Transient: the disk is full, or another process keeps the lock.
            Permanent: the server cannot be had here; `fix` says what to do.
            Conflict: the state folder is a copy of another, or another user's.
        """
        with cluster.explained("starting PostgreSQL"):
            self._layout.make_state_folder()
            with self._locked(self._layout.startup_lock):
                account = find_account()
                if account.is_other:
                    self._layout.make_system_folder()
                paths = self._layout.make_cluster_folder(account)
                _require_short(paths.socket_folder)
                postmaster = self._attachable(paths, account)
                if postmaster is None:
                    postmaster = self._launch(paths, account)
            host = self._wait_until_ready(paths, postmaster)
        password_file = str(paths.password_file) if paths.password_file.exists() and not account.can_use_peer else None
        return Endpoint(
            host=host,
            database=cluster.DATABASE,
            owner_user=cluster.OWNER_ROLE,
            app_user=cluster.APP_ROLE,
            password_file=password_file,
        )

    def revive(self) -> bool:
        """Start the server again, where it was, if it died; returns whether it had. Raises as `start`."""
        if self.is_running():
            return False
        self.start()
        return True

    def stop(self, *, fast: bool = True) -> None:
        """Stop the server, whoever started it; nothing happens when none runs.

        Args:
            fast: Break connections off; otherwise wait a minute for clients to leave before doing so.

        Raises:
            Transient: it does not end.
        """
        if not self._layout.state_folder.is_dir():
            return
        with cluster.explained("stopping PostgreSQL"), self._locked(self._layout.startup_lock):
            located = self._locate()
            if located is not None:
                self._end(*located, fast=fast)

    def remove(self) -> None:
        """Stop the server and delete the cluster with all it holds. Raises Transient: it does not end."""
        if not self._layout.state_folder.is_dir():
            return
        with cluster.explained("removing PostgreSQL"), self._locked(self._layout.startup_lock):
            paths = self._layout.cluster_paths()
            if paths is not None and paths.folder.is_dir():  # with a data folder, or what a killed first start left
                self._end(paths, find_account(), fast=True)
                for folder in (paths.socket_folder, paths.folder):
                    if folder.exists():
                        shutil.rmtree(folder)
            self._layout.forget_cluster()

    def tidy(self) -> None:
        """Delete all but the newest log files; `start` does it, and a long-lived process should now and then."""
        with cluster.explained("deleting old logs of PostgreSQL"):
            paths = self._layout.cluster_paths()
            for path in sorted(paths.log.glob("server-*.log") if paths else ())[:-_LOG_FILES_MAX]:
                path.unlink(missing_ok=True)

    def run_tool(
        self,
        name: str,
        arguments: list[str],
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        role: str = cluster.OWNER_ROLE,
        timeout_seconds: float = 3600.0,
    ) -> str:
        """Run a program of PostgreSQL against the running server, as the user and role that may.

        Host, database, role and password file are in its environment. The open files of the caller are handed over, so
        that the server's account needs no right to the folders they lie in. Returns what it wrote to stderr.

        Args:
            name: `pg_dump`, `pg_restore`, `psql` ...
            arguments: What follows the name; no secret belongs here, every user can see it.
            stdin: What it reads; nothing when None.
            stdout: Where it writes; nowhere when None.
            role: `interlock_owner`, or `interlock_superuser` for what only that one may.
            timeout_seconds: After this it is killed.

        Raises:
            NotFound: no server runs.
            Transient: it took longer than `timeout_seconds`, or the disk is full.
            Permanent: it failed.
        """
        found = self._find()
        pid_file = None if found is None else process.read_pid_file(found[0].data)
        if found is None or pid_file is None:
            msg = f"no PostgreSQL runs for {self._layout.state_folder}"
            raise NotFound(msg, code="postgres.stopped", fix="start Interlock first (`interlock serve`)")
        paths, account = found[0], find_account()
        environment = {"PGHOST": pid_file.socket_folder, "PGPORT": str(cluster.PORT), "PGUSER": role}
        environment["PGDATABASE"] = cluster.DATABASE
        if not account.can_use_peer:
            environment["PGPASSFILE"] = str(paths.password_file)
        with cluster.explained(f"running {name}"):
            return cluster.run_program(
                account,
                [str(self.binaries_folder / name), *arguments],
                environment,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                timeout_seconds=timeout_seconds,
            )

    def _locate(self) -> tuple[ClusterPaths, ServerAccount] | None:
        paths = self._layout.cluster_paths()
        return None if paths is None or not paths.data.is_dir() else (paths, find_account())

    def _find(self) -> tuple[ClusterPaths, process.ProcessIdentity] | None:
        with cluster.explained("looking for PostgreSQL"):
            located = self._locate()
            postmaster = None if located is None else _postmaster(*located)
        return None if located is None or postmaster is None else (located[0], postmaster)

    def _attachable(self, paths: ClusterPaths, account: ServerAccount) -> process.ProcessIdentity | None:
        """The live server, unless it is on its way out or out of reach: then it is ended, and so are its leftovers."""
        postmaster = _postmaster(paths, account)
        pid_file = process.read_pid_file(paths.data)
        if postmaster is not None:
            stopping = pid_file is not None and pid_file.status == "stopping"
            ready = pid_file is not None and pid_file.status == "ready" and pid_file.pid == postmaster.pid
            if not stopping and (not ready or (pid_file is not None and _answers(pid_file.socket_folder))):
                return postmaster
        self._end(paths, account, fast=True)
        return None

    def _launch(self, paths: ClusterPaths, account: ServerAccount) -> process.ProcessIdentity:
        binaries_folder = self.binaries_folder
        lock = process.try_lock(paths.lock)
        if lock is None:
            msg = f"another server took {paths.lock} while this one was about to start"
            raise Transient(msg, code="postgres.locked", fix="start again", effect_sent=False)
        try:  # whatever we start inherits the lock, so that it is known to live even if we are killed
            if not paths.data.exists():
                self._report("making the database")
                cluster.make_cluster(paths, account, binaries_folder, lock, fsync=self._fsync)
            self._layout.keep_cluster()
            _require_version(paths, binaries_folder)
            if not account.can_use_peer and not paths.password_file.exists():
                cluster.set_passwords(paths, account, binaries_folder, lock)
            cluster.write_configuration(paths, account, self._settings)
            self.tidy()
            postmaster = _spawn(paths, account, binaries_folder, lock)
        finally:
            os.close(lock)
        while (pid_file := process.read_pid_file(paths.data)) is None or pid_file.pid != postmaster.pid:
            self._require_alive(paths, postmaster)
            time.sleep(process.POLL_SECONDS)
        return postmaster

    def _wait_until_ready(self, paths: ClusterPaths, postmaster: process.ProcessIdentity) -> str:
        """Wait without a limit while the server lives: recovery after a crash takes as long as it takes."""
        progress = self._progress(lambda: f"PostgreSQL is starting: {_last_line(paths) or 'nothing said yet'}")
        while True:
            pid_file = process.read_pid_file(paths.data)
            if pid_file is not None and pid_file.pid == postmaster.pid and pid_file.status == "ready":
                host = pid_file.socket_folder
                if process.wait_until(lambda: _answers(host), self._clock, timeout_seconds=_ANSWER_TIMEOUT_SECONDS):  # noqa: B023
                    return host
                msg = f"PostgreSQL says that it is ready, but nothing listens in {host}"
                raise Transient(msg, code="postgres.socket_lost", fix="start again: it is restarted then")
            self._require_alive(paths, postmaster)
            progress()
            time.sleep(process.POLL_SECONDS)

    def _require_alive(self, paths: ClusterPaths, postmaster: process.ProcessIdentity) -> None:
        if postmaster.is_alive():
            return
        tail = _log_tail(paths)
        if "received fast shutdown request" in tail or "received smart shutdown request" in tail:
            msg = "PostgreSQL was stopped by somebody while we waited for it"
            raise Transient(msg, code="postgres.stopped", fix="start it again", effect_sent=False)
        raise cluster.failure(_SERVER, tail)

    def _end(self, paths: ClusterPaths, account: ServerAccount, *, fast: bool) -> None:
        """Leave nothing alive and nothing lying about that would keep a new server from starting."""
        postmaster = _postmaster(paths, account)
        if postmaster is not None:
            postmaster.send_signal(signal.SIGCONT)  # somebody may have halted it
            for number, patience_seconds in _STOP_STEPS[1:] if fast else _STOP_STEPS:
                postmaster.send_signal(number)
                if process.wait_until(lambda: not postmaster.is_alive(), self._clock, timeout_seconds=patience_seconds):
                    break
        self._clear_leftovers(paths, account)

    def _clear_leftovers(self, paths: ClusterPaths, account: ServerAccount) -> None:
        """Wait for the children of a dead server, which normally end by themselves, and drive out those that do not."""
        for patience_seconds, number in _LEFTOVER_STEPS:
            if number is not None:
                for child in process.find_children(_title(paths), account.user_id):
                    child.send_signal(number)
            if process.wait_until(lambda: _is_free(paths.lock), self._clock, timeout_seconds=patience_seconds):
                break
        else:
            msg = f"processes of an earlier server still work on {paths.data} and do not end"
            raise Transient(
                msg,
                code="postgres.leftovers",
                fix=f"see who holds {paths.lock} (`fuser -v {paths.lock}`), perhaps in another container, and end them",
                effect_sent=False,
            )
        if process.find_strangers(paths.data, account.user_id):
            msg = f"a PostgreSQL server that Interlock did not start works on {paths.data} and does not end"
            raise Transient(msg, code="postgres.leftovers", fix="end it by hand, then start again", effect_sent=False)
        socket_name = f".s.PGSQL.{cluster.PORT}"
        for path in (paths.data / "postmaster.pid", paths.socket_folder / f"{socket_name}.lock"):
            path.unlink(missing_ok=True)  # PostgreSQL would refuse if its pid were now another program's, or a zombie's

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        progress = self._progress(lambda: f"waiting for another process that holds {path}")
        with process.exclusive(path, self._clock, timeout_seconds=_LOCK_TIMEOUT_SECONDS, waiting=progress):
            yield

    def _progress(self, text: Callable[[], str]) -> Callable[[], None]:
        """A function to call at every turn of a loop; it reports every two seconds."""
        due = self._clock.monotonic() + _PROGRESS_SECONDS

        def tick() -> None:
            nonlocal due
            if self._clock.monotonic() >= due:
                due += _PROGRESS_SECONDS
                self._report(text())

        return tick


def _spawn(paths: ClusterPaths, account: ServerAccount, binaries_folder: Path, lock: int) -> process.ProcessIdentity:
    """Start the server in a session of its own, with no descriptor of ours but the lock and its log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(paths.startup_log, flags, 0o600), "wb") as log:
        server = subprocess.Popen(
            [
                *(binaries_folder / "postgres", "-D", paths.data),
                *("-c", f"config_file={paths.configuration}", "-c", f"cluster_name={_title(paths)}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=cluster.TOOL_ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            pass_fds=(lock,),
            **account.process_arguments(),
        )
    identity = process.identify(server.pid)
    # Somebody must take its exit status while this process lives, or it stays behind as a zombie.
    threading.Thread(target=server.wait, name="postgres-reaper", daemon=True).start()
    if identity is None:
        raise cluster.failure(_SERVER, _log_tail(paths))
    return identity


def _is_free(lock: Path) -> bool:
    descriptor = process.try_lock(lock)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _answers(socket_folder: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(f"{socket_folder}/.s.PGSQL.{cluster.PORT}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True  # so many wait there that the queue is full
    return True


def _postmaster(paths: ClusterPaths, account: ServerAccount) -> process.ProcessIdentity | None:
    if not paths.lock.exists():
        return None
    pid_file = process.read_pid_file(paths.data)
    return process.find_postmaster(_title(paths), account.user_id, hint=pid_file.pid if pid_file else None)


def _title(paths: ClusterPaths) -> str:
    """The `cluster_name`: one for each lock file, also after a move; never that of a like-named folder elsewhere."""
    found = paths.lock.stat()
    return f"interlock-{found.st_dev:x}-{found.st_ino:x}"


def _require_short(socket_folder: Path) -> None:
    length = len(os.fsencode(socket_folder / f".s.PGSQL.{cluster.PORT}"))
    if length > SOCKET_PATH_BYTES_MAX:
        msg = f"the database socket's path has {length} bytes, {SOCKET_PATH_BYTES_MAX} are possible: {socket_folder}"
        raise Permanent(
            msg, code="postgres.socket_path", fix="choose a runtime folder with a shorter path, below /run/user or /tmp"
        )


def _require_version(paths: ClusterPaths, binaries_folder: Path) -> None:
    have = (paths.data / "PG_VERSION").read_text().strip()
    program = server_version(binaries_folder)
    if program.split(".")[0] != have:
        msg = f"{paths.data} was made by PostgreSQL {have}, and the installed program is {program}"
        raise Permanent(
            msg,
            code="postgres.version",
            fix="make a backup with the Interlock that made it, and restore it with this one",
        )


def _log_tail(paths: ClusterPaths) -> str:
    """The end of what the server has said since its last start; the words looked for are those of `lc_messages=C`."""
    text = _end_of(paths.startup_log)
    if "redirecting log output to logging collector" in text:
        newest = sorted(paths.log.glob("server-*.log"))[-1:]  # of an earlier server as well, started in the same second
        text = "".join(_end_of(path) for path in newest).rpartition("starting PostgreSQL")[2]
    return text


def _end_of(path: Path) -> str:
    try:  # the server's account owns its log folder; a link in there must not make root read something else
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        return stream.read().decode(errors="replace")


def _last_line(paths: ClusterPaths) -> str:
    lines = _log_tail(paths).strip().splitlines()
    return lines[-1] if lines else ""
