"""Starts a keeper, which is on its own from then on: it inherits a folder, its orders and a pipe, and nothing else."""

from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from interlock.adapters import keeper_process, keeper_tree
from interlock.core.errors import Conflict, InterlockError, NotFound, Permanent, Transient
from interlock.core.keeper import KeptProcess

KEEPER_MODULES = (keeper_tree, keeper_process)
"""What the keeper's program is made of, each after what it imports."""
READY_SECONDS = 20.0
WORD_BYTES_MAX = 256


def orders_for(
    process: KeptProcess,
    mark: bytes,
    *,
    adopt: tuple[int, int] | None,
    restarts: int,
    last_exit: str | None,
    started_at: float | None,
) -> dict[str, object]:
    """What a keeper is told, in the keeper's own words."""
    return {
        "argv": [os.fsencode(argument) for argument in process.argv],
        "environment": [(os.fsencode(name), os.fsencode(value)) for name, value in process.environment.items()],
        "folder": os.fsencode(process.folder),
        "mark": mark,
        "stop_signal": int(signal.Signals[process.stop_signal]),
        "stop_grace_seconds": process.stop_grace_seconds,
        "restart_pause_seconds": process.restart_pause_seconds,
        "restart_pause_seconds_max": process.restart_pause_seconds_max,
        "restarts_per_hour_max": process.restarts_per_hour_max,
        "log_bytes_max": process.log_bytes_max,
        "adopt": adopt,
        "restarts": restarts,
        "last_exit": last_exit,
        "started_at": started_at,
    }


def start_keeper(program: int, folder: Path, process: KeptProcess, orders: dict[str, object]) -> None:
    """Start a keeper from its compiled program and wait until what it keeps was started.

    Raises:
        NotFound, Permanent: The program cannot be executed; no keeper is left.
        Conflict: Another keeper has this folder.
        Transient: No keeper could be started, or it says nothing.
    """
    reader, writer = os.pipe()
    try:
        try:
            _spawn(program, folder, process.name, orders, writer)
        finally:
            os.close(writer)
        word = _hear(reader)
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"no keeper could be started for {process.name}: {error}"
        raise Transient(msg, code="keeper.not_started", fix="look at the machine's memory and limits") from error
    finally:
        os.close(reader)
    if word not in ("started", "adopted"):
        raise _refusal(word, process, folder)


def _spawn(program: int, folder: Path, name: str, orders: dict[str, object], writer: int) -> None:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        told = os.memfd_create("interlock-keeper", os.MFD_CLOEXEC)
        try:
            os.write(told, marshal.dumps(orders))
            numbers = (place, told, writer)
            # The isolated interpreter: no site, no environment, no folder of anybody's on its path.
            started = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-E", f"/proc/self/fd/{program}"),
                    *(str(number) for number in numbers),
                    name,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(*numbers, program),
                env={},
                cwd="/",
                start_new_session=True,
            )
            try:
                started.wait(READY_SECONDS)  # it leaves a child, the keeper, which is nobody's
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
                raise
        finally:
            os.close(told)
    finally:
        os.close(place)


def _hear(reader: int) -> str:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if not poll.poll(READY_SECONDS * 1000):
        return "silent"
    return os.read(reader, WORD_BYTES_MAX).decode("ascii", "replace")


def _refusal(word: str, process: KeptProcess, folder: Path) -> InterlockError:
    if word == "busy":
        msg = f"{process.name} has a keeper already"
        return Conflict(msg, code="keeper.kept", fix="ask again")
    if word.startswith("failed "):
        number = int(word.removeprefix("failed "))
        msg = f"{process.argv[0]} cannot be started in {process.folder}: {os.strerror(number)}"
        code = "keeper.not_executable"
        if number == errno.ENOENT:
            return NotFound(msg, code=code, fix="check the path, the folder, and the #! line of a script")
        return Permanent(msg, code=code, fix="check the program's permissions, and the folder's")
    msg = f"the keeper of {process.name} ended without a word"
    return Transient(msg, code="keeper.not_started", fix=f"see {folder}/log")
