"""The guard on real processes: what it refuses, what it kills, and what the effect gets to see."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from interlock.core.errors import Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.ports import TAIL_BYTES, ProcessSpec
from interlock.engine.guard import supervise
from interlock.engine.guard.process_tree import (
    MARK,
    all_processes,
    boot_seconds,
    descendants,
    kill_group,
    kill_process,
    marked,
    process_stat,
)
from interlock.engine.guard.supervise import GuardedProcess, ProcessOutcome, prove_dead

SOURCE = Path(__file__).resolve().parents[2] / "src"
PYTHON = (sys.executable, "-I", "-S", "-E", "-c")
TOKEN = "7:0"
PATH = {"PATH": "/usr/bin:/bin"}
NOBODY = 65534
PYTHONPATH = os.pathsep.join([str(SOURCE), *(entry for entry in sys.path if "site-packages" in entry)])
# Three that go on for long: the program itself, one in a session of its own, one that lost its parent besides.
TREE = "setsid sleep 300 & (setsid sh -c 'sleep 300 & wait' &) ; echo up; sleep 300"
TREE_SIZE = 5

both_ways = pytest.mark.parametrize("use_cgroup", [True, False], ids=["cgroup", "no_cgroup"])


def sh(script: str, **fields: object) -> ProcessSpec:
    return spec("/bin/sh", "sh", "-c", script, **fields)


def spec(path: str, *argv: str, **fields: object) -> ProcessSpec:
    return ProcessSpec.model_validate({"path": path, "argv": argv, "environment": PATH, **fields})


def ignore(_piece: bytes) -> None:
    """An `on_output` for tests that do not look at the output."""


def run(
    program: ProcessSpec, on_output: Callable[[bytes], None] = ignore, *, use_cgroup: bool = True
) -> ProcessOutcome:
    process = GuardedProcess.start(program, TOKEN, use_cgroup=use_cgroup)
    return process.go(boot_seconds() + 60, on_output)


def output_of(program: ProcessSpec) -> bytes:
    pieces: list[bytes] = []
    outcome = run(program, pieces.append)
    assert outcome.exit_code == 0, outcome
    return b"".join(pieces)


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


def living(token: object) -> set[int]:
    """Who carries the mark and is alive, the guard too."""
    return {process.pid for process in marked(str(token), all_processes()) if process.is_alive}


def is_alive(pid: int) -> bool:
    process = process_stat(pid)
    return process is not None and process.is_alive


@contextmanager
def going(
    program: ProcessSpec, *, lease_seconds: float = 60.0, use_cgroup: bool = True, awaited: bytes = b"up\n"
) -> Iterator[tuple[GuardedProcess, Future[ProcessOutcome]]]:
    """A guarded program that is running in another thread and has printed `awaited`."""
    said = bytearray()
    with ThreadPoolExecutor(1) as pool:
        process = GuardedProcess.start(program, TOKEN, use_cgroup=use_cgroup)
        ended = pool.submit(process.go, boot_seconds() + lease_seconds, said.extend)
        try:
            until(lambda: awaited in said or ended.done())
            yield process, ended
        finally:
            process.kill()


def guard_pid(process: GuardedProcess) -> int:
    return int(str(process.identity["pid"]))


# --- before the effect ----------------------------------------------------------------------------


def test_nothing_is_executed_before_go(tmp_path: Path) -> None:
    with GuardedProcess.start(sh(f"echo x > {tmp_path}/effect"), TOKEN) as process:
        assert is_alive(guard_pid(process))
        with pytest.raises(Transient) as caught:
            process.go(boot_seconds() - 0.001, ignore)
    assert caught.value.code == "lease.lost"
    assert caught.value.effect_sent is False
    assert list(tmp_path.iterdir()) == []


def test_a_guard_stopped_over_the_deadline_executes_nothing_when_it_continues(tmp_path: Path) -> None:
    process = GuardedProcess.start(sh(f"echo x > {tmp_path}/effect"), TOKEN)
    os.kill(guard_pid(process), signal.SIGSTOP)
    deadline = boot_seconds() + 0.2
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, deadline, ignore)
        until(lambda: boot_seconds() > deadline)
        os.kill(guard_pid(process), signal.SIGCONT)
        error = ended.exception(10)
    assert isinstance(error, Transient)
    assert error.effect_sent is False
    assert list(tmp_path.iterdir()) == []


def test_a_kill_behind_a_go_is_heard_first(tmp_path: Path) -> None:
    process = GuardedProcess.start(sh(f"echo x > {tmp_path}/effect"), TOKEN)
    os.kill(guard_pid(process), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, boot_seconds() + 60, ignore)
        until(lambda: process._went)
        for _ in range(2000):  # more renewals than the socket holds must not keep a kill from arriving
            process.renew(boot_seconds() + 60)
        process.kill()
        os.kill(guard_pid(process), signal.SIGCONT)
        error = ended.exception(10)
    assert isinstance(error, Transient)
    assert error.effect_sent is False
    assert list(tmp_path.iterdir()) == []


def test_a_kill_ends_the_program_of_a_guard_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "REPORT_SECONDS", 0.5)
    process = GuardedProcess.start(sh("exec sleep 60"), TOKEN)
    pid = guard_pid(process)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, boot_seconds() + 600, ignore)
        until(lambda: bool(list(descendants(pid, all_processes()))))
        (child,) = (each.pid for each in descendants(pid, all_processes()))
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        error = ended.exception(20)
    assert isinstance(error, Transient)
    assert error.code == "guard.stuck"
    assert process_stat(pid) is None
    left = process_stat(child)
    assert left is None or not left.is_alive


def test_a_guard_that_never_goes_leaves_with_its_worker_side() -> None:
    process = GuardedProcess.start(sh("true"), TOKEN)
    pid, cgroup = guard_pid(process), process.identity["cgroup"]
    process.close()
    process.close()
    assert process_stat(pid) is None
    assert cgroup is None or not Path(str(cgroup)).exists()


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (spec("/nowhere/program", "program"), NotFound),
        (spec("/bin/sh", "sh", "-c", "true", folder="/nowhere"), NotFound),
        (spec("/etc/passwd", "passwd"), Permanent),
        (spec("/bin", "bin"), Permanent),
        (spec("/bin/true", "true", "x" * 3_000_000), Invalid),
        (spec("/bin/true", "true", sha256="0" * 64), Stale),
        (spec("/dev/zero", "zero", sha256="0" * 64), Permanent),
    ],
)
def test_what_cannot_be_executed_is_refused_with_the_right_error(program: ProcessSpec, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(program)


@pytest.mark.parametrize(
    "program",
    [
        spec("bin/true", "true"),
        spec("/bin/true"),
        spec("/bin/true", "a\0b"),
        spec("/bin/true", "true", "\ud800"),
        spec("/bin/true", "true", environment={"A=B": "c"}),
        spec("/bin/true", "true", timeout_seconds=float("nan")),
        spec("/bin/true", "true", folder="tmp"),
    ],
)
def test_what_no_system_could_execute_is_invalid(program: ProcessSpec) -> None:
    with pytest.raises(Invalid):
        GuardedProcess.start(program, TOKEN)


def test_a_named_pipe_in_place_of_a_pinned_program_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "program")
    started = time.monotonic()
    with pytest.raises(Permanent):
        run(spec(str(tmp_path / "program"), "program", sha256="0" * 64))
    assert time.monotonic() - started < 3


def test_a_changed_file_is_not_executed(tmp_path: Path) -> None:
    script = tmp_path / "report"
    script.write_text(f"#!/bin/sh\necho x > {tmp_path}/effect\n")
    script.chmod(0o755)
    pinned = hashlib.sha256(script.read_bytes()).hexdigest()
    with script.open("a") as file:
        file.write("echo more\n")
    with pytest.raises(Stale):
        run(spec(str(script), "report", sha256=pinned))
    assert not (tmp_path / "effect").exists()


def slow_to_hash(folder: Path) -> ProcessSpec:
    """A pinned script whose hashing takes longer than a lease of 0.15 s."""
    script = folder / "report"
    script.write_text(f"#!/bin/sh\necho x > {folder}/effect\nexit 0\n")
    script.chmod(0o755)
    os.truncate(script, 800_000_000)
    with script.open("rb") as file:
        return spec(str(script), "report", sha256=hashlib.file_digest(file, "sha256").hexdigest())


def test_an_effect_that_is_killed_while_its_file_is_hashed_is_known_not_to_have_happened(tmp_path: Path) -> None:
    process = GuardedProcess.start(slow_to_hash(tmp_path), TOKEN)
    with pytest.raises(Transient) as caught:
        process.go(boot_seconds() + 0.15, ignore)
    assert (caught.value.code, caught.value.effect_sent) == ("lease.lost", False)
    assert not (tmp_path / "effect").exists()


def test_the_child_looks_at_the_clock_itself_when_its_guard_is_stopped(tmp_path: Path) -> None:
    process = GuardedProcess.start(slow_to_hash(tmp_path), TOKEN)
    pid = guard_pid(process)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, boot_seconds() + 0.15, ignore)
        until(lambda: any(descendants(pid, all_processes())) or ended.done())
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not any(process.is_alive for process in descendants(pid, all_processes())), 30)
        os.kill(pid, signal.SIGCONT)
        error = ended.exception(10)
    assert isinstance(error, Transient)
    assert (error.code, error.effect_sent) == ("lease.lost", False)
    assert not (tmp_path / "effect").exists()


# --- what the effect sees -------------------------------------------------------------------------


def test_the_environment_is_exactly_the_given_one_and_the_mark() -> None:
    os.environ["INTERLOCK_TEST_SECRET"] = "of the worker"
    try:
        said = output_of(spec("/usr/bin/env", "env", environment={"A": "b c", "EMPTY": "", "U": "\u00e9"}))
    finally:
        del os.environ["INTERLOCK_TEST_SECRET"]
    entries = dict(line.split("=", 1) for line in said.decode().splitlines())
    assert entries.pop(MARK).startswith(f"{TOKEN}:")
    assert entries == {"A": "b c", "EMPTY": "", "U": "\u00e9"}


def test_the_effect_inherits_only_its_three_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        said = output_of(spec("/bin/ls", "ls", "-l", "/proc/self/fd"))
    links = dict(line.split()[-3::2] for line in said.decode().splitlines()[1:])
    listing = links.pop("3")  # `ls` has opened the folder that it lists
    assert listing.endswith("/fd")
    assert set(links) == {"0", "1", "2"}
    assert links["0"] == "/dev/null"
    assert links["1"] == links["2"]


def test_a_pinned_binary_runs_through_its_descriptor_and_inherits_no_other() -> None:
    digest = hashlib.sha256(Path("/bin/ls").read_bytes()).hexdigest()
    said = output_of(spec("/bin/ls", "ls", "/proc/self/fd", sha256=digest))
    assert said.split() == [b"0", b"1", b"2", b"3"]


def test_a_pinned_script_that_nobody_else_can_change_knows_where_it_lies(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    script = tmp_path / "report"
    script.write_text('#!/bin/sh\ndirname "$0"\necho "$1"\n')
    script.chmod(0o755)
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    said = output_of(spec(str(script), "report", "nightly", sha256=digest))
    assert said.decode().splitlines() == [str(tmp_path), "nightly"]


def in_reach_of_others(folder: Path, text: bytes, mode: int = 0o755) -> ProcessSpec:
    """A pinned program in a folder that others may write."""
    folder.chmod(0o777)
    program = folder / "report"
    program.write_bytes(text)
    program.chmod(mode)
    return spec(str(program), "report", "nightly", sha256=hashlib.sha256(text).hexdigest())


def test_a_pinned_script_in_a_folder_of_others_runs_as_a_sealed_copy(tmp_path: Path) -> None:
    text = b'#!/bin/sh\nreadlink "$0"\n(echo more >> "$0") 2>/dev/null || echo sealed\necho "$1"\n'
    said = output_of(in_reach_of_others(tmp_path, text))
    assert said.decode().splitlines() == ["/memfd:interlock (deleted)", "sealed", "nightly"]


@pytest.mark.parametrize("above", [False, True], ids=["folder", "folder above it"])
def test_a_pinned_script_that_is_rewritten_while_it_runs_goes_on_as_it_was(tmp_path: Path, *, above: bool) -> None:
    """More than a shell reads at once, so that it comes to the rest after the change."""
    folder = tmp_path / "deeper" if above else tmp_path
    folder.mkdir(exist_ok=True)
    wait = f"echo up\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.01; done\n"
    head, padding = f"#!/bin/sh\n{wait}", "#" * 100_000
    program = in_reach_of_others(folder, f"{head}{padding}\necho as it was\n".encode())
    if above:
        folder.chmod(0o755)
        tmp_path.chmod(0o777)
    pieces = bytearray()
    with ThreadPoolExecutor(1) as pool:
        process = GuardedProcess.start(program, TOKEN)
        ended = pool.submit(process.go, boot_seconds() + 60, pieces.extend)
        until(lambda: b"up\n" in pieces or ended.done())
        with Path(program.path).open("r+b") as file:
            file.write(f"{head}{padding}\necho rewritten\n".encode())
            file.truncate()
        (tmp_path / "go").touch()
        assert ended.result(10).exit_code == 0
    assert bytes(pieces) == b"up\nas it was\n"


def test_a_pinned_binary_in_a_folder_of_others_runs_as_a_copy_and_inherits_no_other_descriptor(tmp_path: Path) -> None:
    program = in_reach_of_others(tmp_path, Path("/bin/ls").read_bytes())
    said = output_of(program.model_copy(update={"argv": ("ls", "/proc/self/fd")}))
    assert said.split() == [b"0", b"1", b"2", b"3"]


def test_a_copy_gives_no_right_to_execute_that_the_file_does_not_give(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        run(in_reach_of_others(tmp_path, b"#!/bin/sh\n", mode=0o644))


def test_a_pinned_python_script_finds_modules_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    script = tmp_path / "report"
    script.write_text(f"#!{sys.executable} -B\nimport beside\nprint(beside.WORD)\n")
    script.chmod(0o755)
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    assert output_of(spec(str(script), "report", sha256=digest)) == b"found\n"


def test_signals_mask_and_session_are_fresh() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        said = output_of(sh("grep -E '^Sig(Blk|Ign)' /proc/self/status; umask; cut -d' ' -f6 /proc/$$/stat; echo $$"))
    finally:
        signal.signal(signal.SIGHUP, before)
    words = said.decode().split()
    own_of_libc = 0b11 << 31  # signals 32 and 33, which no program can set
    assert [int(words[place], 16) & ~own_of_libc for place in (1, 3)] == [0, 0]
    assert words[4] == "0022"
    assert words[5] == words[6], "the effect leads a session of its own"


@pytest.mark.parametrize("stdin", [b"", b"a\0b\xff", b"x" * 3_000_000], ids=["none", "bytes", "more than a pipe holds"])
def test_the_effect_reads_exactly_its_input(stdin: bytes) -> None:
    assert output_of(spec("/bin/cat", "cat", stdin=stdin)) == stdin


def test_the_folder_is_the_given_one(tmp_path: Path) -> None:
    assert output_of(sh("pwd", folder=str(tmp_path))).decode().strip() == str(tmp_path)


# --- output ---------------------------------------------------------------------------------------


def test_output_is_bytes_and_both_streams() -> None:
    pieces: list[bytes] = []
    outcome = run(sh("printf '\\377\\303\\251\\n'; printf 'wrong\\n' >&2; exit 3"), pieces.append)
    assert b"".join(pieces) == b"\xff\xc3\xa9\nwrong\n" == outcome.tail
    assert (outcome.exit_code, outcome.signal, outcome.output_bytes, outcome.truncated) == (3, None, 10, False)
    assert outcome.output_sha256 == hashlib.sha256(outcome.tail).hexdigest()


def test_200_megabytes_of_output_stay_bounded() -> None:
    kept = bytearray()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = run(sh("head -c 200000000 /dev/zero; echo end", output_bytes_max=1_000_000), kept.extend)
    grown_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert outcome.exit_code == 0
    assert outcome.output_bytes == 200_000_004
    assert outcome.truncated
    assert len(kept) == 1_000_000
    assert outcome.output_sha256 == hashlib.sha256(bytes(1_000_000)).hexdigest()
    assert outcome.tail == b"\0" * (TAIL_BYTES - 4) + b"end\n"
    assert grown_kilobytes < 20_000


def test_a_reader_that_hangs_does_not_keep_the_time_out_from_killing() -> None:
    seen: list[int] = []

    def hang(piece: bytes) -> None:
        if not seen:
            seen.append(int(piece.split()[0]))
            until(lambda: not is_alive(seen[0]))

    outcome = run(sh("echo $$; exec cat /dev/zero", timeout_seconds=0.3, output_bytes_max=1000), hang)
    assert outcome.timed_out
    assert not is_alive(seen[0])


def test_an_error_while_taking_output_kills_the_effect_and_is_raised() -> None:
    process = GuardedProcess.start(sh("echo up; sleep 300"), TOKEN)
    token = process.identity["token"]

    def full(_piece: bytes) -> None:
        msg = "the disk is full"
        raise Transient(msg, code="blob.full")

    with pytest.raises(Transient, match="disk is full"):
        process.go(boot_seconds() + 60, full)
    assert living(token) == set()


# --- endings --------------------------------------------------------------------------------------


@both_ways
def test_a_time_out_kills_the_whole_tree(*, use_cgroup: bool) -> None:
    process = GuardedProcess.start(sh(TREE, timeout_seconds=0.4), TOKEN, use_cgroup=use_cgroup)
    outcome = process.go(boot_seconds() + 60, ignore)
    assert outcome.timed_out
    assert (outcome.exit_code, outcome.signal, outcome.ended_by) == (None, signal.SIGTERM, "timed_out")
    assert outcome.duration_seconds < 3
    assert living(process.identity["token"]) == set()


def test_an_effect_that_is_cancelled_may_tidy_up_and_has_not_succeeded(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    script = f"trap 'rm {draft}; exit 0' TERM; : > {draft}; echo up; while :; do sleep 0.05; done"
    with going(sh(script)) as (process, ended):
        until(draft.exists)
        process.kill()
        outcome = ended.result(10)
    assert (outcome.exit_code, outcome.signal, outcome.ended_by) == (None, signal.SIGTERM, "killed")
    assert not draft.exists()


def test_an_effect_that_does_not_listen_is_killed_all_the_same() -> None:
    process = GuardedProcess.start(sh("trap '' TERM; while :; do sleep 0.05; done", timeout_seconds=0.2), TOKEN)
    outcome = process.go(boot_seconds() + 60, ignore)
    assert (outcome.signal, outcome.ended_by) == (signal.SIGKILL, "timed_out")
    assert outcome.duration_seconds < 8


def test_a_lost_lease_leaves_no_time_to_tidy_up() -> None:
    process = GuardedProcess.start(sh("trap '' TERM; while :; do sleep 0.05; done"), TOKEN)
    began = boot_seconds()
    assert process.go(boot_seconds() + 0.3, ignore).ended_by == "lease_lost"
    assert boot_seconds() - began < 2


@both_ways
def test_a_kill_ends_the_whole_tree(*, use_cgroup: bool) -> None:
    with going(sh(TREE), use_cgroup=use_cgroup) as (process, ended):
        until(lambda: len(living(process.identity["token"])) == TREE_SIZE + 1)
        process.kill()
        assert ended.result(10).ended_by == "killed"
        assert living(process.identity["token"]) == set()


@both_ways
def test_a_daemon_that_threw_away_its_environment_is_killed(*, use_cgroup: bool) -> None:
    said = bytearray()
    daemon = "env -i /bin/sh -c 'setsid /bin/sh -c \"echo \\$\\$; exec sleep 300\" &'; sleep 300"
    process = GuardedProcess.start(sh(daemon), TOKEN, use_cgroup=use_cgroup)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, boot_seconds() + 60, said.extend)
        until(lambda: b"\n" in said)
        assert is_alive(int(said))
        process.kill()
        assert ended.result(10).ended_by == "killed"
    assert not is_alive(int(said))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_guard_that_is_asked_to_stop_takes_the_tree_along(number: int) -> None:
    with going(sh(TREE)) as (process, ended):
        os.kill(guard_pid(process), number)
        assert ended.result(10).ended_by == "killed"
        assert living(process.identity["token"]) == set()


def test_the_end_of_the_lease_ends_the_effect() -> None:
    with going(sh(TREE), lease_seconds=0.5) as (process, ended):
        outcome = ended.result(10)
        assert (outcome.ended_by, outcome.exit_code, outcome.timed_out) == ("lease_lost", None, False)
        assert living(process.identity["token"]) == set()


def test_a_renewed_lease_lets_the_effect_finish() -> None:
    with going(sh("echo up; sleep 1"), lease_seconds=0.5) as (process, ended):
        process.renew(boot_seconds() + 60)
        assert ended.result(10).exit_code == 0


@both_ways
def test_what_the_effect_leaves_behind_is_killed(*, use_cgroup: bool) -> None:
    process = GuardedProcess.start(sh("setsid sleep 300 & setsid sleep 300 & echo done"), TOKEN, use_cgroup=use_cgroup)
    outcome = process.go(boot_seconds() + 60, ignore)
    assert (outcome.exit_code, outcome.ended_by, outcome.leftovers_killed) == (0, "exited", 2)
    assert living(process.identity["token"]) == set()


def test_what_ends_shortly_after_the_effect_is_not_counted_as_left_behind() -> None:
    outcome = run(sh("(sleep 0.1; echo late) & echo done"))
    assert outcome.leftovers_killed == 0
    assert outcome.tail == b"done\nlate\n"


def test_a_process_that_hides_behind_its_dead_first_thread_is_killed() -> None:
    code = (
        "import ctypes, _thread, time, os\n"
        "_thread.start_new_thread(time.sleep, (300,))\n"
        "os.write(1, b'up\\n')\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with going(spec(sys.executable, *PYTHON, code)) as (process, ended):
        (child,) = descendants(guard_pid(process), all_processes())
        until(lambda: b"State:\tZ" in Path(f"/proc/{child.pid}/status").read_bytes())
        process.kill()
        assert ended.result(10).ended_by == "killed"
        assert not Path(f"/proc/{child.pid}").exists()


@both_ways
def test_a_limited_fork_bomb_is_killed(*, use_cgroup: bool) -> None:
    code = (
        "import os, time\nfor _ in range(7): os.fork()\n"
        "os.getpid() % 2 and os.getpgrp() != os.getpid() and os.setsid()\ntime.sleep(300)\n"
    )
    process = GuardedProcess.start(spec(sys.executable, *PYTHON, code), TOKEN, use_cgroup=use_cgroup)
    token = process.identity["token"]
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.go, boot_seconds() + 60, ignore)
        until(lambda: len(living(token)) == 129)
        process.kill()
        assert ended.result(15).ended_by == "killed"
    assert living(token) == set()


@both_ways
def test_a_process_that_forks_and_exits_for_ever_is_killed(*, use_cgroup: bool) -> None:
    code = (
        "import os, time\nos.write(1, b'up\\n')\nlimit = time.monotonic() + 20\n"
        "while time.monotonic() < limit:\n  if os.fork(): os._exit(0)\n"
    )
    walker = f'{sys.executable} -I -S -E -c "$CODE" & sleep 300'
    environment = {**PATH, "CODE": code}
    with going(sh(walker, environment=environment), use_cgroup=use_cgroup) as (process, ended):
        process.kill()
        assert ended.result(15).ended_by == "killed"
        assert living(process.identity["token"]) == set()


def test_eight_at_once_do_not_mix() -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: run(sh(f"sleep 0.1; echo {number}; exit {number}")), range(8)))
    assert [(outcome.exit_code, outcome.tail) for outcome in outcomes] == [(n, b"%d\n" % n) for n in range(8)]


# --- death of the worker, of the guard ------------------------------------------------------------

WORKER = """
import json, os, sys, time
from interlock.core.ports import ProcessSpec
from interlock.engine.guard.supervise import GuardedProcess
from interlock.engine.guard.process_tree import boot_seconds
script, lease, use_cgroup, fork = json.loads(sys.argv[1])
spec = ProcessSpec(path="/bin/sh", argv=("sh", "-c", script), environment={"PATH": "/usr/bin:/bin"})
process = GuardedProcess.start(spec, "7:0", use_cgroup=use_cgroup)
print(json.dumps(process.identity), flush=True)
if fork and os.fork() == 0:
    time.sleep(8)  # keeps the worker's end of the control socket open
    os._exit(0)
outcome = process.go(boot_seconds() + lease, lambda piece: print(piece.decode(), end="", flush=True))
print(json.dumps([outcome.exit_code, outcome.ended_by]), flush=True)
"""


@contextmanager
def worker(
    script: str,
    *,
    lease_seconds: float = 60.0,
    use_cgroup: bool = True,
    fork: bool = False,
    interpreter: str = sys.executable,
    user: int | None = None,
) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """A worker process of its own, and the identity of its guard."""
    arguments = json.dumps([script, lease_seconds, use_cgroup, fork])
    with subprocess.Popen(
        [interpreter, "-c", WORKER, arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": PYTHONPATH},
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        cwd="/",
    ) as popen:
        assert popen.stdout is not None
        try:
            yield popen, json.loads(popen.stdout.readline())
        finally:
            popen.kill()


def await_up(popen: subprocess.Popen[str]) -> None:
    assert popen.stdout is not None
    assert popen.stdout.readline() == "up\n"


@both_ways
def test_kill_9_of_the_worker_kills_the_whole_tree(*, use_cgroup: bool) -> None:
    with worker(TREE, use_cgroup=use_cgroup) as (popen, identity):
        await_up(popen)
        until(lambda: len(living(identity["token"])) == TREE_SIZE + 1)
        popen.kill()
        until(lambda: living(identity["token"]) == set(), 3)


def test_kill_9_of_the_worker_counts_although_a_fork_of_it_lives_on() -> None:
    with worker(TREE, fork=True) as (popen, identity):
        await_up(popen)
        popen.kill()
        until(lambda: living(identity["token"]) == set(), 3)


@both_ways
def test_a_stopped_worker_loses_its_tree_at_the_deadline(*, use_cgroup: bool) -> None:
    with worker(TREE, lease_seconds=1.5, use_cgroup=use_cgroup) as (popen, identity):
        await_up(popen)
        popen.send_signal(signal.SIGSTOP)
        until(lambda: len(living(identity["token"])) == TREE_SIZE + 1)
        until(lambda: living(identity["token"]) == set(), 4)
        popen.send_signal(signal.SIGCONT)
        assert popen.stdout is not None
        assert json.loads(popen.stdout.readline()) == [None, "lease_lost"]


@both_ways
def test_a_stopped_guard_is_proven_dead_with_all_that_it_ran(*, use_cgroup: bool) -> None:
    with going(sh(TREE), use_cgroup=use_cgroup) as (process, ended):
        os.kill(guard_pid(process), signal.SIGSTOP)
        prove_dead(process.identity)
        assert living(process.identity["token"]) == set()
        error = ended.exception(10)
    assert isinstance(error, Transient)
    assert (error.code, error.effect_sent) == ("guard.died", True)
    prove_dead(process.identity)


@both_ways
def test_orphans_of_a_killed_guard_are_found_and_killed(*, use_cgroup: bool) -> None:
    with worker(TREE, use_cgroup=use_cgroup) as (popen, identity):
        await_up(popen)
        popen.send_signal(signal.SIGSTOP)  # so that only this process looks after them
        os.kill(int(str(identity["pid"])), signal.SIGKILL)
        until(lambda: len(living(identity["token"])) == TREE_SIZE)
        prove_dead(json.loads(json.dumps(identity)))
        assert living(identity["token"]) == set()


def test_a_worker_notices_at_once_that_its_guard_was_killed() -> None:
    with going(sh(TREE)) as (process, ended):
        os.kill(guard_pid(process), signal.SIGKILL)
        error = ended.exception(10)
        assert isinstance(error, Transient)
        assert (error.code, error.effect_sent) == ("guard.died", True)
        assert living(process.identity["token"]) == set()
        assert not Path(str(process.identity["cgroup"])).exists()


def test_another_process_with_the_same_id_is_left_alone() -> None:
    with GuardedProcess.start(sh("true"), TOKEN) as process, subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        stat = process_stat(stranger.pid)
        assert stat is not None
        reused = {"pid": stranger.pid, "start_time_ticks": stat.start_time_ticks - 1, "token": "other", "cgroup": None}
        prove_dead({**process.identity, **reused})
        assert stranger.poll() is None
        prove_dead({**process.identity, **reused, "start_time_ticks": stat.start_time_ticks})
        assert stranger.wait(5) == -signal.SIGKILL, "the same words with the right start time do kill"


def test_a_signal_meant_for_a_process_never_reaches_the_next_one_with_its_id() -> None:
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as stranger:
        stat = process_stat(stranger.pid)
        assert stat is not None
        stat.start_time_ticks -= 1
        kill_process(stat)
        kill_group(stat)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.1)
        stat.start_time_ticks += 1
        kill_process(stat)
        assert stranger.wait(5) == -signal.SIGKILL


def test_only_a_reboot_of_the_same_machine_counts_as_death() -> None:
    with GuardedProcess.start(sh("true"), TOKEN) as process:
        here = {**process.identity, "machine": "0" * 31 + "1"}
        elsewhere: list[dict[str, str]] = [
            {"host": f"not-{socket.gethostname()}"},
            {"machine": "1" * 32},
            {"machine": "", "boot_id": "other"},
            {"pid_namespace": "pid:[1]"},
        ]
        for difference in elsewhere:
            with pytest.raises(Permanent) as caught:
                prove_dead({**process.identity, **difference})
            assert caught.value.code == "guard.other_host"
        if process.identity["machine"]:
            prove_dead({**process.identity, "boot_id": "an earlier one"})
        assert here["pid"] == guard_pid(process)
        assert is_alive(guard_pid(process))


@pytest.mark.parametrize("change", [{"pid": "x"}, {"cgroup": "/sys/fs/cgroup/system.slice"}, {"more": 1}])
def test_words_that_no_guard_recorded_kill_nothing(change: dict[str, object]) -> None:
    with GuardedProcess.start(sh("true"), TOKEN) as process:
        with pytest.raises(Permanent) as caught:
            prove_dead({**process.identity, **change})  # type: ignore[dict-item]
        assert caught.value.code == "guard.identity"
        assert is_alive(guard_pid(process))


# --- an ordinary user -----------------------------------------------------------------------------


def interpreter_for_everyone() -> str | None:
    """A Python of our version that any user may execute; a checkout may lie in a folder that only root may enter."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        if Path(candidate).exists():
            probe = "import sys, pydantic, interlock.engine.guard.supervise"
            try:
                found = subprocess.run(
                    [candidate, "-c", probe],
                    env={"PYTHONPATH": PYTHONPATH},
                    cwd="/",
                    user=NOBODY,
                    group=NOBODY,
                    capture_output=True,
                    check=False,
                )
            except PermissionError:
                continue
            if found.returncode == 0:
                return candidate
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests of this file already run as an ordinary user")
def test_an_ordinary_user_has_the_same_protection() -> None:
    interpreter = interpreter_for_everyone()
    if interpreter is None:
        pytest.skip("no Python here that another user may execute")
    with worker(TREE, interpreter=interpreter, user=NOBODY) as (popen, identity):
        await_up(popen)
        assert identity["cgroup"] is None
        until(lambda: len(living(identity["token"])) == TREE_SIZE + 1)
        popen.kill()
        until(lambda: living(identity["token"]) == set(), 3)
    with worker("id -u; exit 4", interpreter=interpreter, user=NOBODY) as (popen, identity):
        assert popen.stdout is not None
        assert popen.stdout.read().splitlines() == [str(NOBODY), '[4, "exited"]']


# --- adoption -------------------------------------------------------------------------------------

RESIDENT = """
import json, os, signal, subprocess, sys, threading, time
from interlock.core.errors import Transient
from interlock.core.ports import ProcessSpec
from interlock.engine.guard.supervise import GuardedProcess
from interlock.engine.guard.orphans import OrphanReaper, become_subreaper
from interlock.engine.guard.process_tree import all_processes, boot_seconds, descendants
become_subreaper()
reaper = OrphanReaper()
mine = [subprocess.Popen(["/bin/sh", "-c", "exit 7"], start_new_session=session) for session in (False, True)]
# A daemon of ours whose children outlive it: they lead sessions, as PostgreSQL's do.
daemon = subprocess.Popen(["/bin/sh", "-c", "setsid sleep 0.6 & setsid sleep 0.6 & exec sleep 300"])
time.sleep(0.2)
reaper.sweep()
daemon.kill()
daemon.wait()
tree = "setsid sleep 300 & (setsid sleep 300 &) ; echo up; sleep 300"
spec = ProcessSpec(path="/bin/sh", argv=("sh", "-c", tree), environment={"PATH": "/usr/bin:/bin"})
process = GuardedProcess.start(spec, "7:0")
def strike(piece):
    # As if the one who called `go` were not there: the reaper alone has to find them.
    os.kill(process.identity["pid"], signal.SIGKILL)
    limit = time.monotonic() + 5
    while len(list(descendants(os.getpid(), all_processes()))) > 3 and time.monotonic() < limit:
        reaper.sweep()
        time.sleep(0.02)
try:
    process.go(boot_seconds() + 60, strike)
except Transient as error:
    code = error.code
print(json.dumps([code, [popen.wait() for popen in mine], len(list(descendants(os.getpid(), all_processes())))]))
"""


def test_orphans_are_adopted_killed_and_buried_and_exit_codes_of_others_stay() -> None:
    result = subprocess.run(
        [sys.executable, "-c", RESIDENT],
        env={"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.stderr == ""
    assert json.loads(result.stdout) == ["guard.died", [7, 7], 0]


def test_a_thread_that_ends_does_not_end_the_effect_that_it_started() -> None:
    """PR_SET_PDEATHSIG would have."""
    started: list[GuardedProcess] = []
    thread = threading.Thread(target=lambda: started.append(GuardedProcess.start(sh("echo up"), TOKEN)))
    thread.start()
    thread.join()
    assert started[0].go(boot_seconds() + 60, ignore).exit_code == 0
