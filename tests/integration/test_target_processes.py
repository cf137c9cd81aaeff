"""A process is itself and no other with its id, it is known by all its names, and Interlock knows its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.adapters import processes
from interlock.adapters.processes import OWN_MARK, ProcessTargets
from interlock.core.errors import Invalid, NotFound, Permanent
from interlock.core.model import JsonObject
from interlock.core.plan import Target
from interlock.engine.policy.protected import Patterns
from interlock.engine.policy.target_classes import classes_of

NOTHING: JsonObject = {}
Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start `sleep` under another name, and wait until it really is that program."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str = "sleep", *arguments: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        program = tmp_path / name
        if not program.exists():
            shutil.copy("/usr/bin/sleep", program)
        process = subprocess.Popen([program, "1000", *arguments], cwd=cwd)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _one(name: str, **own: object) -> Target:
    (target,) = ProcessTargets(**own).resolve("process", name, NOTHING)  # type: ignore[arg-type]
    return target


def test_a_process_is_known_by_id_start_and_names(spawn: Spawn) -> None:
    process = spawn("shop-worker")
    target = _one(str(process.pid))
    pid, start = target.id.split(":")
    assert int(pid) == process.pid
    assert int(start) > 0
    assert {str(process.pid), "shop-worker"} <= set(target.names)
    assert _one(target.id) == target


def test_another_process_with_the_same_id_is_not_found(spawn: Spawn) -> None:
    with pytest.raises(NotFound):
        _one(f"{spawn().pid}:12345")


def test_a_process_that_ended_is_not_found(spawn: Spawn) -> None:
    process = spawn()
    target = _one(str(process.pid))
    process.kill()
    process.wait()
    with pytest.raises(NotFound):
        _one(str(process.pid))
    assert ProcessTargets().pulled_along(target, "process.signal", NOTHING) == ()


def test_a_zombie_is_not_found() -> None:
    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotFound):
        _one(str(process.pid))
    process.wait()


def test_a_word_is_every_process_it_could_mean(spawn: Spawn) -> None:
    first, second = spawn("shop-worker-a"), spawn("Shop-Worker-b")
    found = ProcessTargets().resolve("process", "shop-worker", NOTHING)
    assert {int(target.id.split(":")[0]) for target in found} == {first.pid, second.pid}


def test_an_exact_word_is_the_whole_name(spawn: Spawn) -> None:
    process = spawn("shop-a")
    spawn("shop-a-helper")
    found = ProcessTargets().resolve("process", "shop-a", {"match": "exact"})
    assert [target.id.split(":")[0] for target in found] == [str(process.pid)]


def test_a_dot_is_any_character_as_pkill_reads_it(spawn: Spawn) -> None:
    process = spawn("shop-worker-c")
    (target,) = ProcessTargets().resolve("process", "shop.worker.c", NOTHING)
    assert target.id.startswith(f"{process.pid}:")
    with pytest.raises(NotFound):
        ProcessTargets().resolve("process", "shop.worker.c", {"match": "exact"})


def test_an_id_with_zeros_in_front_is_that_id_as_kill_reads_it(spawn: Spawn) -> None:
    process = spawn()
    assert _one(f"0{process.pid}") == _one(str(process.pid))


def test_a_long_name_is_found_by_what_the_kernel_keeps_of_it(spawn: Spawn) -> None:
    process = spawn("a-very-long-program-name")
    found = ProcessTargets().resolve("process", "a-very-long-program-name", {"match": "exact"})
    assert [target.id.split(":")[0] for target in found] == [str(process.pid)]


def test_a_word_of_the_command_line_is_found_where_that_is_asked(spawn: Spawn) -> None:
    process = spawn("shop-b", "0.77777771")
    assert [
        found.id.split(":")[0] for found in ProcessTargets().resolve("process", "0.77777771", {"match": "full"})
    ] == [str(process.pid)]
    with pytest.raises(NotFound):
        ProcessTargets().resolve("process", "0.77777771", NOTHING)


def test_a_postmaster_is_a_database(spawn: Spawn) -> None:
    assert classes_of(_one(str(spawn("postgres").pid))) == ("database",)


def test_a_program_in_a_protected_folder_is_protected(spawn: Spawn, tmp_path: Path) -> None:
    target = _one(str(spawn("payd").pid))
    if f"{tmp_path}/payd" not in target.names:
        pytest.skip("this account may not see which program a process runs")
    assert Patterns([f"file:{tmp_path}/**"]).match(target)


def test_our_own_process_and_what_it_started_are_our_own(spawn: Spawn) -> None:
    process = spawn()
    for name in (str(os.getpid()), str(process.pid)):
        target = _one(name, own_pids=lambda: [os.getpid()])
        assert OWN_MARK in target.names
        assert Patterns(["interlock:*"]).match(target)
    assert OWN_MARK not in _one(str(process.pid)).names


@pytest.mark.parametrize("how", ["works in it", "names it", "names it in an option"])
def test_a_process_that_lives_in_our_folder_is_our_own(how: str, spawn: Spawn, tmp_path: Path) -> None:
    """A postmaster that somebody else started, or whose pid we lost, keeps its data folder."""
    state = tmp_path / "state"
    (state / "data").mkdir(parents=True)
    where = str(state / "data")
    process = {
        "works in it": lambda: spawn("store", cwd=state / "data"),
        "names it": lambda: subprocess.Popen([sys.executable, "-c", "input()", where], stdin=subprocess.PIPE),
        "names it in an option": lambda: subprocess.Popen(
            [sys.executable, "-c", "input()", f"--dir={where}"], stdin=subprocess.PIPE
        ),
    }[how]()
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        continue  # its parent goes on a moment before the kernel has put its arguments in place
    try:
        assert OWN_MARK in _one(str(process.pid), own_folders=[str(state)]).names
        assert OWN_MARK not in _one(str(process.pid), own_folders=[str(tmp_path / "stat")]).names
    finally:
        process.kill()
        process.communicate()


def test_another_program_that_a_supervisor_runs_goes_with_it(tmp_path: Path) -> None:
    """And one worker stands for all of its kind, because workers come and go."""
    shutil.copy("/usr/bin/sleep", tmp_path / "postgres")
    script = (
        "import subprocess, sys\n"
        f"children = [subprocess.Popen(['{tmp_path}/postgres', '1000']) for _ in range(3)]\n"
        "print('ready', flush=True)\nsys.stdin.read()\n[child.kill() for child in children]\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        target = _one(str(parent.pid))
        (child,) = ProcessTargets().pulled_along(target, "process.signal", NOTHING)
        assert classes_of(child) == ("database",)
    finally:
        parent.communicate()


@pytest.mark.parametrize(
    "name",
    ["-1", "-9", "0", "000", "%1", "postgre+s", "", "a\0b", "post.*s", "(a|b)", "postgre\u0455", "$(id)", "x" * 600],
)
def test_what_stands_for_anything_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        ProcessTargets().resolve("process", name, NOTHING)


def test_more_processes_than_a_plan_can_show_are_refused(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROCESSES_MAX", 2)
    for number in range(3):
        spawn(f"many-of-us-{number}")
    with pytest.raises(Invalid, match="more than a plan can show"):
        ProcessTargets().resolve("process", "many-of-us", NOTHING)


def test_a_machine_without_proc_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        ProcessTargets(proc=tmp_path / "none").resolve("process", "nginx", NOTHING)


STAT = "{pid} (evil) S 1 name) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0\n"
CONTAINER = "c0" * 32


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ("0::/system.slice/nginx.service\n", {"unit:nginx.service"}),
        ("0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", {"unit:postgresql@15-main.service"}),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", {"unit:user@1000.service"}),
        ("1:name=systemd:/system.slice/ssh.service\n0::/\n", {"unit:ssh.service"}),
        (f"0::/system.slice/docker-{CONTAINER}.scope\n", {f"container:{CONTAINER}"}),
        (f"5:memory:/docker/{CONTAINER}\n", {f"container:{CONTAINER}"}),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{CONTAINER}.scope\n", {f"container:{CONTAINER}"}),
        (f"0::/machine.slice/libpod-{CONTAINER}.scope/container\n", {f"container:{CONTAINER}"}),
        ("0::/\n", set()),
        ("garbage", set()),
    ],
)
def test_a_process_is_known_by_its_unit_and_container(groups: str, names: set[str], tmp_path: Path) -> None:
    """From files as the kernel writes them; its name may hold brackets."""
    folder = tmp_path / "41"
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(pid=41))
    (folder / "cgroup").write_text(groups)
    (folder / "cmdline").write_bytes(b"nginx: master process\0")
    (target,) = ProcessTargets(proc=tmp_path).resolve("process", "41", NOTHING)
    assert target.id == "41:777"
    assert {name for name in target.names if ":" in name} == names
    assert "nginx" in target.names
    assert ProcessTargets(lambda: [41], proc=tmp_path).own_places() == frozenset(names)


def test_a_name_made_to_deceive_is_made_visible(tmp_path: Path) -> None:
    folder = tmp_path / "41"
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(pid=41).replace("evil", "\u202enginx"))
    (target,) = ProcessTargets(proc=tmp_path).resolve("process", "41", NOTHING)
    assert all(name.isprintable() for name in target.names)
