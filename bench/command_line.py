"""Claim: `interlock --version` takes less than 0.15 s of CPU, `interlock exec -- uptime` less than 0.35 s."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Result, figure
from bench.report import run
from bench.server import BenchServer, bench_server

READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
COMMAND_SECONDS = 60
PROJECT = "version: 1\nname: bench\npreset: small-team\n"


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """CPU seconds (user and system) of the client alone; the resident process runs already."""
    rounds = 5 if quick else 21
    with bench_server() as server:
        environment = _environment(server)
        versions = [_cpu_and_wall_seconds(["--version"], environment) for _ in range(rounds)]
        with _resident(environment, server.folder):
            _cpu_and_wall_seconds(["exec", "--", "uptime"], environment)
            runs = [_cpu_and_wall_seconds(["exec", "--", "uptime"], environment) for _ in range(rounds)]
    return [
        Result("interlock --version, CPU", "s", tuple(cpu for cpu, _ in versions), 0.15),
        Result("interlock exec -- uptime against the resident, CPU", "s", tuple(cpu for cpu, _ in runs), 0.35),
        figure("interlock exec -- uptime, wall clock", "s", [wall for _, wall in runs]),
    ]


def _environment(server: BenchServer) -> dict[str, str]:
    """A project of its own on a database of its own; nothing of whoever runs this."""
    project = server.folder / "project"
    project.mkdir(mode=0o755)
    (project / "interlock.yaml").write_text(PROJECT, encoding="utf-8")
    database = server.database()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(server.folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "INTERLOCK_PROJECT": str(project),
        "INTERLOCK_RUNTIME_FOLDER": str(server.folder / "door"),
        "INTERLOCK_DATABASE_URL": database.app,
        "INTERLOCK_DATABASE_OWNER_URL": database.owner,
    }


def _program() -> list[str]:
    """The installed program, or the module where it is not installed."""
    installed = Path(sys.executable).with_name("interlock")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "interlock"]


def _cpu_and_wall_seconds(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [*_program(), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"interlock {' '.join(words)}: {done.returncode} {done.stderr}"
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


@contextmanager
def _resident(environment: dict[str, str], folder: Path) -> Iterator[None]:
    """The resident process, so that no client has to start it."""
    log = folder / "serve.log"
    with log.open("wb") as output:
        serving = subprocess.Popen([*_program(), "serve", "--no-http"], env=environment, stdout=output, stderr=output)
    try:
        _wait_for(Path(environment["INTERLOCK_RUNTIME_FOLDER"]) / "door.sock", serving, log)
        yield
    finally:
        serving.terminate()
        serving.wait(READY_SECONDS)


def _wait_for(socket: Path, serving: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while not socket.exists():
        assert serving.poll() is None, log.read_text(encoding="utf-8")[-4000:]
        assert time.monotonic() < end, f"no door after {READY_SECONDS:g} s: {log.read_text(encoding='utf-8')[-4000:]}"
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    sys.exit(run((measure,)))
