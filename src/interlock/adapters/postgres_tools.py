"""Dumps and restores a database on a server that is not ours, with no secret in any argument."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from interlock.adapters.postgres_binaries import find_binaries
from interlock.core.errors import Permanent, Transient

TOOL_SECONDS = 3600.0
_COMPLAINT_BYTES_MAX = 64 * 1024
_SETTINGS_LINES = 100
_UNKNOWN_SETTING = b"SET transaction_timeout = 0;\n"
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
}


def dump_external(address: Mapping[str, str], target: IO[bytes]) -> None:
    """Write a database in pg_dump's custom format. `address` has libpq's names.

    Raises:
        Permanent: It failed.
        Transient: It took longer than an hour.
    """
    with tempfile.TemporaryFile() as complaints:
        command = [_tool("pg_dump"), "--format=custom", "--no-owner", "--no-privileges"]
        with subprocess.Popen(command, env=_environment(address), stdout=target, stderr=complaints) as dumping:
            _require_success(dumping, "pg_dump", complaints)


def restore_external(dump: IO[bytes], address: Mapping[str, str]) -> None:
    """Bring a dump into an empty database, in one transaction. Raises as `dump_external`.

    Our pg_restore sets `transaction_timeout`, which a server before PostgreSQL 17 takes for an error. So it writes a
    script, and psql runs that without this line. Our psql obeys no command of its own in it (pg_restore tells it so).
    """
    write = [_tool("pg_restore"), "--no-owner", "--no-privileges", "--file=-"]
    run = [_tool("psql"), "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-"]
    with (
        tempfile.TemporaryFile() as unwritten,
        tempfile.TemporaryFile() as unrun,
        subprocess.Popen(write, env=_environment({}), stdin=dump, stdout=subprocess.PIPE, stderr=unwritten) as writing,
        subprocess.Popen(
            run, env=_environment(address), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=unrun
        ) as running,
    ):
        try:
            _hand_over(writing, running)
            _require_success(writing, "pg_restore", unwritten)
        except BaseException:
            running.kill()  # at the end of its input it would commit what came so far
            writing.kill()
            if running.stdin is not None:
                with suppress(BrokenPipeError):  # what was not handed over yet is not wanted any more
                    running.stdin.close()
            raise
        _require_success(running, "psql", unrun)


def _hand_over(writing: subprocess.Popen[bytes], running: subprocess.Popen[bytes]) -> None:
    """The script, line by line until its settings are over."""
    if writing.stdout is None or running.stdin is None:
        msg = "pg_restore and psql are started with pipes"
        raise RuntimeError(msg)
    try:
        for _ in range(_SETTINGS_LINES):
            line = writing.stdout.readline()
            if line != _UNKNOWN_SETTING:
                running.stdin.write(line)
        shutil.copyfileobj(writing.stdout, running.stdin)
    except BrokenPipeError:
        return  # psql ended early and says why


def _require_success(process: subprocess.Popen[bytes], name: str, complaints: IO[bytes]) -> None:
    try:
        process.communicate(timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        msg = f"{name} took longer than {TOOL_SECONDS:.0f} s"
        raise Transient(msg, code="postgres.slow_tool") from error
    except BrokenPipeError:
        process.wait()
    if process.returncode != 0:
        complaints.seek(0)
        said = complaints.read(_COMPLAINT_BYTES_MAX).decode("utf-8", "replace").strip().splitlines()
        told = next((line for line in said if "error" in line.lower()), f"exit {process.returncode}")
        msg = f"{name} failed: {told}"
        raise Permanent(msg, code="postgres.tool", fix="look at the server's log")


def _tool(name: str) -> str:
    return str(find_binaries() / name)


def _environment(address: Mapping[str, str]) -> dict[str, str]:
    """A clean one; passwords stand in it and never among the arguments, which every account can see."""
    own = {_VARIABLES[name]: value for name, value in address.items() if name in _VARIABLES}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **own}
