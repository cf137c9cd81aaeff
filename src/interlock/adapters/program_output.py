"""Runs a program that only reads, and takes what it says within bounds of time and size."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interlock.core.errors import NotFound, Transient

CLEAN_ENVIRONMENT: dict[str, str] = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/dev/null",  # nothing can be made below it; a folder that only does not exist yet could be
    "TERM": "dumb",
}
OUTPUT_BYTES_MAX = 4 * 1024 * 1024
_CHUNK_BYTES = 65536


@dataclass(frozen=True)
class ProgramOutput:
    """What a program said. `exit_code` is negative when a signal ended it."""

    exit_code: int
    stdout: str
    stderr: str


def read_program(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    output_bytes_max: int = OUTPUT_BYTES_MAX,
    environment: Mapping[str, str] = CLEAN_ENVIRONMENT,
    decode_errors: str = "strict",
    folder: str = "/",
) -> ProgramOutput:
    """Start `argv[0]` (an absolute path) without a shell, terminal or input, and wait for its end.

    Raises: NotFound (no such program), Transient when it cannot be started, does not end in time, says too much or
    what is not UTF-8 (`decode_errors` as for `bytes.decode`). Whatever it started in its process group is gone by then.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        msg = f"there is no {argv[0]} on this machine"
        raise NotFound(msg, code="program.absent", fix="install it, or ask for something else") from error
    except OSError as error:
        msg = f"{argv[0]} cannot be started: {error.strerror}"
        raise Transient(msg, code="program.failed", effect_sent=False, fix=f"check {argv[0]}") from error
    try:
        streams = _read_streams(process, argv[0], time.monotonic() + timeout_seconds, output_bytes_max)
    finally:
        _end(process)
    try:
        stdout, stderr = (stream.decode("utf-8", decode_errors) for stream in streams)
    except UnicodeDecodeError as error:
        msg = f"{argv[0]} answered with bytes that are not text"
        raise Transient(msg, code="program.unreadable", fix=f"run {argv[0]} by hand and look") from error
    return ProgramOutput(exit_code=process.returncode, stdout=stdout, stderr=stderr)


def _read_streams(
    process: subprocess.Popen[bytes], program: str, deadline: float, bytes_max: int
) -> tuple[bytes, bytes]:
    """Both streams to their ends, and the end of the process itself."""
    if process.stdout is None or process.stderr is None:  # both were asked for as pipes
        msg = "a process without pipes"
        raise TypeError(msg)
    bodies = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in bodies:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _late(program)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                body = bodies[key.fileobj]  # type: ignore[index] # only our two streams are registered
                body.extend(chunk)
                if len(body) > bytes_max:
                    msg = f"{program} said more than {bytes_max} bytes"
                    raise Transient(msg, code="program.too_much", fix="ask for less")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _late(program) from None
    return bytes(bodies[process.stdout]), bytes(bodies[process.stderr])


def _late(program: str) -> Transient:
    msg = f"{program} did not answer in time"
    return Transient(msg, code="program.timeout", fix=f"run {program} by hand and see why it hangs")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what may be left of its group; before the leader is reaped its id cannot belong to another group."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
