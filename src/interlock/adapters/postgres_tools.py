"""Runs pg_dump and pg_restore against a server that is not ours, with no secret in any argument."""

from __future__ import annotations

import subprocess
from typing import IO
from urllib.parse import parse_qsl, unquote, urlsplit

from interlock.adapters.postgres_binaries import find_binaries
from interlock.core.errors import Permanent, Transient

TOOL_SECONDS = 3600.0
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


def run_external_tool(
    name: str,
    arguments: list[str],
    conninfo: str,
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    """Run a program of PostgreSQL against `conninfo` (a URL or `key=value` words).

    Raises:
        Permanent: It failed.
        Transient: It took longer than an hour.
    """
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **connection_environment(conninfo)}
    try:
        done = subprocess.run(
            [str(find_binaries() / name), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.PIPE,
            timeout=TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{name} took longer than {TOOL_SECONDS:.0f} s"
        raise Transient(msg, code="postgres.slow_tool") from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        msg = f"{name} failed: {last[0] if last else f'exit {done.returncode}'}"
        raise Permanent(msg, code="postgres.tool", fix="look at the server's log")


def connection_environment(conninfo: str) -> dict[str, str]:
    """The libpq environment variables that say the same as a connection string."""
    if "://" in conninfo:
        url = urlsplit(conninfo)
        words = dict(parse_qsl(url.query))
        for key, value in (
            ("host", url.hostname),
            ("port", str(url.port) if url.port else None),
            ("user", unquote(url.username) if url.username else None),
            ("password", unquote(url.password) if url.password else None),
            ("dbname", unquote(url.path.lstrip("/")) or None),
        ):
            if value is not None:
                words.setdefault(key, value)
    else:
        words = dict(word.split("=", 1) for word in conninfo.split() if "=" in word)
    return {_VARIABLES[key]: value for key, value in words.items() if key in _VARIABLES}
