"""Worker processes for chaos tests: forked from one that has imported everything, so that a new one costs no time.

Each works like the resident process (worker, sealer and the other timers), and can be given a failpoint: the n-th time
it comes to a boundary of a commit or of an effect, it is killed or stopped there.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
COMMITS = ("insert", "claim", "take_over", "append", "leave")
EFFECTS = ("start", "go")
PHASES = ("before", "after")
SQL = ("intend", "write", "put_back")
"""Boundaries of an effect in a guarded database, which only the tests of `sql.write` come to."""
BOUNDARIES = tuple(f"{name}:{phase}" for name in (*COMMITS, *EFFECTS) for phase in PHASES)


class Nursery:
    """The process that forks workers, seen by a test."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        self.pids: list[int] = []
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.nursery", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    def worker(self, failpoint: str | None = None, asks: tuple[int, int] = (0, 0)) -> int:
        """Fork one; its process id. `failpoint` is `BOUNDARY:N:SIGNAL`; `asks` is a range of keys it submits itself."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError
        stdin.write(json.dumps({"failpoint": failpoint, "asks": asks}).encode() + b"\n")
        stdin.flush()
        pid = int(stdout.readline())
        self.pids.append(pid)
        return pid

    def alive(self) -> list[int]:
        """The workers that live, stopped ones too."""
        return [pid for pid in self.pids if is_alive(pid)]

    def close(self) -> None:
        """Kill all."""
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def die_with_parent() -> None:
    """A test that is killed leaves no worker behind (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def arm(failpoint: str | None) -> None:
    """Put the failpoint where it belongs."""
    if failpoint is None:
        return
    from interlock.adapters.sql_databases import PostgresDatabases  # noqa: PLC0415 - only the forked child needs them
    from interlock.databases.store import EffectStore  # noqa: PLC0415
    from interlock.engine.guard.supervise import GuardedProcess  # noqa: PLC0415
    from interlock.engine.store import RunStore  # noqa: PLC0415

    name, phase, count, signal_name = failpoint.split(":")
    left = [int(count)]

    def reached(at: str) -> None:
        if at != phase:
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.Signals[signal_name])

    owner: Any = RunStore if name in COMMITS else GuardedProcess
    if name in SQL:
        owner = EffectStore if name == "intend" else PostgresDatabases
    original: Any = getattr(owner, name)
    awaited = name in COMMITS or name == "intend"
    setattr(owner, name, _asynchronous(original, reached) if awaited else _plain(owner, name, reached))


def _asynchronous(original: Any, reached: Callable[[str], None]) -> Any:
    async def method(*args: Any, **kwargs: Any) -> Any:
        reached("before")
        result = await original(*args, **kwargs)
        reached("after")
        return result

    return method


def _plain(owner: Any, name: str, reached: Callable[[str], None]) -> Any:
    original = owner.__dict__[name]
    function = original.__func__ if isinstance(original, classmethod) else original

    def method(*args: Any, **kwargs: Any) -> Any:
        reached("before")
        result = function(*args, **kwargs)
        reached("after")
        return result

    return classmethod(method) if isinstance(original, classmethod) else method


async def work(config: dict[str, Any], order: dict[str, Any]) -> None:
    """Be a worker until SIGTERM."""
    from harness.engine import SERVICE, open_engine  # noqa: PLC0415
    from interlock.core.ask import Ask  # noqa: PLC0415
    from interlock.settings import Locations  # noqa: PLC0415

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    locations = Locations(*(Path(config[name]) for name in ("project_file", "state_folder", "runtime_folder")))
    async with open_engine(config["app"], config["owner"], locations, reconcile=True) as engine:
        for index in range(*order["asks"]):
            body = config["asks"][index % len(config["asks"])]
            await engine.door.submit(
                SERVICE, Ask(action="test.ledger", args=body, key=f"worker-{index}", confirmed=True)
            )
        await stop.wait()


def main() -> None:
    """Fork a worker for each line that is read, and bury those that died."""
    import harness.engine  # noqa: F401, PLC0415 - so that no worker has to
    from interlock.engine.guard.orphans import become_subreaper  # noqa: PLC0415

    config = json.loads(sys.argv[1])
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.05)
        if ready:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os.dup2(2, 1)
                die_with_parent()
                become_subreaper()
                order = json.loads(line)
                arm(order["failpoint"])
                try:
                    asyncio.run(work(config, order))
                finally:
                    os._exit(0)
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()
