"""The keeper keeps processes running, whoever dies: the process, its keeper, the control plane."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from interlock.adapters.keeper import OwnKeeper
from interlock.adapters.keeper_tree import is_alive, look
from interlock.bootstrap.kept import own_keeper
from interlock.bootstrap.restoring import carry_over
from interlock.core.errors import Conflict, Invalid, NotFound, Permanent
from interlock.core.keeper import KeptProcess, KeptState
from interlock.lib.clock import SystemClock

PROGRAM = str(Path(__file__).resolve().parents[1] / "harness" / "kept_program.py")
WAIT_SECONDS = 20.0


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def keeper(state_folder: Path) -> Iterator[OwnKeeper]:
    opened = own_keeper(state_folder, SystemClock())
    yield opened
    for state in opened.states():
        opened.stop(state.process.name)


def awaited(look_for: Callable[[], Any]) -> Any:
    """What it finds, as soon as it finds something."""
    limit = time.monotonic() + WAIT_SECONDS
    while not (found := look_for()):
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.005)
    return found


def program(folder: Path, *arguments: str, name: str = "web@v1", **settings: Any) -> KeptProcess:
    return KeptProcess(
        name=name, argv=(sys.executable, "-S", PROGRAM, *arguments), folder=str(folder), **{**_QUICK, **settings}
    )


_QUICK = {"restart_pause_seconds": 0.01, "restart_pause_seconds_max": 0.1, "stop_grace_seconds": 0.3}


def keeper_pid(keeper: OwnKeeper, name: str = "web@v1") -> int:
    found = keeper._keeper_of(name)
    assert found is not None
    return found.pid


def kill_keeper(keeper: OwnKeeper, name: str = "web@v1") -> None:
    os.kill(keeper_pid(keeper, name), signal.SIGKILL)
    awaited(lambda: keeper._keeper_of(name) is None)


def alive(pid: int) -> bool:
    seen = look(pid)
    return seen is not None and seen.alive


def pid_in(folder: Path, name: str) -> int:
    return int(awaited(lambda: (folder / name).exists() and (folder / name).read_text()))


def state_of(keeper: OwnKeeper, name: str = "web@v1") -> KeptState:
    state = keeper.state(name)
    assert state is not None
    return state


def test_a_process_is_started_once_however_often_it_is_asked_for(keeper: OwnKeeper, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        states = list(threads.map(lambda _: keeper.ensure(program(tmp_path)), range(8)))
    assert {state.pid for state in states} == {states[0].pid}
    assert states[0].phase == "running"
    assert states[0].pid == pid_in(tmp_path, "main")
    assert [state.process.name for state in keeper.states()] == ["web@v1"]


def test_a_process_that_ends_is_started_again_and_its_end_is_told(keeper: OwnKeeper, tmp_path: Path) -> None:
    first = keeper.ensure(program(tmp_path)).pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    awaited(lambda: state_of(keeper).restarts == 1 and state_of(keeper).phase == "running")
    assert state_of(keeper).last_exit == "signal 9"
    assert state_of(keeper).pid not in {None, first}


def test_a_process_that_ends_too_often_is_given_up_and_a_new_ask_starts_it_again(
    keeper: OwnKeeper, tmp_path: Path
) -> None:
    failing = KeptProcess(name="web@v1", argv=("/bin/sh", "-c", "exit 3"), restarts_per_hour_max=3, **_QUICK)
    keeper.ensure(failing)
    state = awaited(lambda: state_of(keeper).phase == "given_up" and state_of(keeper))
    assert (state.restarts, state.last_exit, state.pid) == (3, "exit 3", None)
    keeper.ensure(failing)
    awaited(lambda: state_of(keeper).restarts > 3)


def test_pauses_between_restarts_grow(keeper: OwnKeeper, tmp_path: Path) -> None:
    noted = tmp_path / "starts"
    note = f"date +%s%N >> {noted}; exit 1"
    keeper.ensure(
        KeptProcess(
            name="web@v1",
            argv=("/bin/sh", "-c", note),
            restart_pause_seconds=0.05,
            restart_pause_seconds_max=10,
            restarts_per_hour_max=4,
        )
    )
    awaited(lambda: state_of(keeper).phase == "given_up")
    starts = [int(line) / 1e9 for line in noted.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(gap >= 0.05 * 2**number for number, gap in enumerate(gaps))


def test_a_stop_ends_the_whole_tree_also_what_left_its_session_and_cleared_its_mark(
    keeper: OwnKeeper, tmp_path: Path
) -> None:
    keeper.ensure(program(tmp_path, "--children", "--stubborn", "--hidden"))
    pids = [pid_in(tmp_path, name) for name in ("main", "child", "orphan")]
    awaited(lambda: Path(f"/proc/{pids[2]}/environ").read_bytes() == b"")
    own = keeper_pid(keeper)
    keeper.stop("web@v1")
    assert [alive(pid) for pid in (*pids, own)] == [False] * 4
    assert keeper.state("web@v1") is None
    assert keeper.log_path("web@v1").exists()
    keeper.stop("web@v1")
    keeper.forget("web@v1")
    assert not keeper.log_path("web@v1").parent.exists()


def test_what_a_process_left_behind_ends_before_it_is_started_again(keeper: OwnKeeper, tmp_path: Path) -> None:
    keeper.ensure(program(tmp_path, "--children"))
    first = [pid_in(tmp_path, name) for name in ("main", "child", "orphan")]
    for name in ("main", "child", "orphan"):
        (tmp_path / name).unlink()
    os.kill(first[0], signal.SIGKILL)
    second = pid_in(tmp_path, "main")
    assert [alive(pid) for pid in first] == [False] * 3
    assert alive(second)


def test_a_restart_by_order_is_another_process(keeper: OwnKeeper, tmp_path: Path) -> None:
    first = keeper.ensure(program(tmp_path))
    second = keeper.restart("web@v1")
    assert second.pid not in {None, first.pid}
    assert second.phase == "running"
    assert not alive(first.pid or 0)
    with pytest.raises(NotFound):
        keeper.restart("other")


def test_a_process_outlives_its_keeper_and_is_not_started_a_second_time(keeper: OwnKeeper, tmp_path: Path) -> None:
    before = keeper.ensure(program(tmp_path, "--children"))
    pids = [pid_in(tmp_path, name) for name in ("main", "child", "orphan")]
    kill_keeper(keeper)
    assert state_of(keeper).phase == "running"
    assert keeper.ensure(program(tmp_path, "--children")).pid == before.pid
    assert state_of(keeper).started_at == before.started_at
    os.kill(pids[0], signal.SIGKILL)
    again = awaited(lambda: state_of(keeper).restarts == 1 and state_of(keeper))
    assert again.last_exit == "unknown"
    assert [alive(pid) for pid in pids] == [False] * 3
    kill_keeper(keeper)
    keeper.stop("web@v1")
    assert not alive(again.pid)


def test_keepers_that_died_are_revived_and_a_stop_that_broke_off_is_finished(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = keeper.ensure(program(tmp_path / "a", name="a"))
    second = keeper.ensure(program(tmp_path / "b", name="b"))
    assert keeper.revive() == ()
    kill_keeper(keeper, "a")
    os.kill(first.pid or 0, signal.SIGKILL)
    awaited(lambda: state_of(keeper, "a").phase == "stopped")
    (state_folder / "kept" / "b" / "process.json").unlink()
    assert keeper.revive() == ("a",)
    assert state_of(keeper, "a").phase == "running"
    assert not alive(second.pid or 0)
    assert keeper.state("b") is None


def test_what_cannot_be_revived_is_tried_again_with_growing_pauses(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "web"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    first = keeper.ensure(KeptProcess(name="web@v1", argv=(str(script),), **_QUICK))
    kill_keeper(keeper)
    os.kill(first.pid or 0, signal.SIGKILL)
    away = script.rename(tmp_path / "away")
    for _ in range(3):
        with pytest.raises(NotFound):
            keeper.revive()
    lock = state_folder / "kept" / "web@v1" / "lock"
    tried = lock.stat().st_mtime_ns
    away.rename(script)
    with pytest.raises(NotFound):
        keeper.revive()  # it is not time yet
    assert lock.stat().st_mtime_ns == tried
    assert keeper.ensure(KeptProcess(name="web@v1", argv=(str(script),), **_QUICK)).phase == "running"
    assert keeper.revive() == ()


def test_what_runs_belongs_to_the_backup_that_took_the_place_of_its_installation(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    before = keeper.ensure(program(tmp_path))
    aside = state_folder.rename(tmp_path / "aside")
    state_folder.mkdir()
    assert keeper.states() == ()
    carry_over(aside, state_folder)
    assert state_of(keeper).pid == before.pid
    assert keeper.revive() == ()
    assert keeper.restart("web@v1").pid not in {None, before.pid}


def test_a_process_that_nobody_wrote_down_is_no_twin(keeper: OwnKeeper, state_folder: Path, tmp_path: Path) -> None:
    """Its keeper was killed between the start and the first word about it."""
    first = keeper.ensure(program(tmp_path))
    kill_keeper(keeper)
    (state_folder / "kept" / "web@v1" / "state.json").unlink()
    second = keeper.ensure(program(tmp_path))
    assert second.pid != first.pid
    assert not alive(first.pid or 0)


def test_a_second_keeper_of_one_folder_gives_up_at_once(keeper: OwnKeeper, tmp_path: Path) -> None:
    process = program(tmp_path)
    first = keeper.ensure(process)
    with pytest.raises(Conflict):
        keeper._launch(process, adopt=False)
    assert state_of(keeper).pid == first.pid
    assert alive(first.pid or 0)


def test_another_process_under_the_same_name_is_a_conflict(keeper: OwnKeeper, tmp_path: Path) -> None:
    keeper.ensure(program(tmp_path))
    with pytest.raises(Conflict) as caught:
        keeper.ensure(program(tmp_path, "--lines", "1"))
    assert "argv" in caught.value.message
    with pytest.raises(Conflict):
        keeper.forget("web@v1")


def test_a_program_that_cannot_be_executed_is_refused_and_nothing_stays(keeper: OwnKeeper, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        keeper.ensure(KeptProcess(name="web@v1", argv=("/nowhere/web",)))
    with pytest.raises(NotFound):
        keeper.ensure(program(tmp_path / "nowhere"))
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(Permanent):
        keeper.ensure(KeptProcess(name="web@v1", argv=(str(plain),)))
    assert keeper.states() == ()
    assert keeper.revive() == ()
    with pytest.raises(Invalid):
        keeper.state("../web")


def test_a_keeper_is_small_and_holds_nothing_of_whoever_started_it(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    with (tmp_path / "secret").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        state = keeper.ensure(program(tmp_path))
    own = keeper_pid(keeper)
    for pid in (own, state.pid):
        places = [str(place.readlink()) for place in Path(f"/proc/{pid}/fd").iterdir()]
        strange = [place for place in places if not place.startswith((str(state_folder), "/dev/null", "pipe:"))]
        assert strange == []
    assert os.getsid(own) not in {os.getsid(0), own}
    assert os.getsid(state.pid or 0) == state.pid
    status = Path(f"/proc/{own}/status").read_text()
    (resident,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    assert int(resident) < 12 * 1024


def test_a_log_is_bounded_and_its_end_is_kept(keeper: OwnKeeper, tmp_path: Path) -> None:
    lines = 20_000
    keeper.ensure(program(tmp_path, "--lines", str(lines), log_bytes_max=65_536))
    log = keeper.log_path("web@v1")
    awaited(lambda: (log.with_name("log.1").exists() and log.stat().st_size == 0) or None)
    kept = log.with_name("log.1").read_text()
    assert 65_536 <= len(kept) < 2 * 65_536 + 1024 * 1024
    assert kept.endswith(f"line {lines - 1:09}\n")
    assert log.stat().st_mode & 0o077 == 0


def test_a_keeper_whose_folder_was_deleted_ends_what_nobody_could_end_any_more(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    state = keeper.ensure(program(tmp_path))
    own = keeper_pid(keeper)
    shutil.rmtree(state_folder)
    awaited(lambda: not alive(own) and not alive(state.pid or 0))


def test_a_keeper_that_somebody_stopped_is_ended_all_the_same(keeper: OwnKeeper, tmp_path: Path) -> None:
    state = keeper.ensure(program(tmp_path))
    os.kill(keeper_pid(keeper), signal.SIGSTOP)
    keeper.stop("web@v1")
    assert not alive(state.pid or 0)


def test_a_process_goes_on_when_the_control_plane_is_killed_and_the_next_one_finds_it(
    keeper: OwnKeeper, state_folder: Path, tmp_path: Path
) -> None:
    control = """
        import os, signal, sys
        from pathlib import Path
        from interlock.bootstrap.kept import own_keeper
        from interlock.core.keeper import KeptProcess
        from interlock.engine.guard.orphans import become_subreaper
        from interlock.lib.clock import SystemClock
        become_subreaper()
        process = KeptProcess.model_validate_json(sys.argv[2])
        print(own_keeper(Path(sys.argv[1]), SystemClock()).ensure(process).pid, flush=True)
        signal.pause()
    """
    process = program(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(control), str(state_folder), process.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
    ) as resident:
        assert resident.stdout is not None
        pid = int(resident.stdout.readline())
        seen = look(pid)
        resident.kill()
    assert seen is not None
    assert is_alive(*seen.key)
    assert keeper.ensure(process).pid == pid
    assert state_of(keeper).restarts == 0
