"""A resident process that answers HTTP on a port of its own, and bearers' tokens for it."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg

from harness.resident import Resident, resident
from interlock.core.token import ENTROPY_BYTES, make_token

PREFIX = "/api/v1"
ME = pwd.getpwuid(os.geteuid()).pw_name
PROJECT: dict[str, Any] = {
    "people": {"alice": {"user": ME, "roles": ["operator"]}, "bob": {"user": "nobody", "roles": ["operator"]}},
    "agents": {"claude": {"on_behalf_of": "alice"}},
    "http": {"limits": {"requests_per_second": 100_000, "streams_max": 1200, "head_seconds_max": 1}},
}


@dataclass
class HttpFront:
    """Where it answers, and whose tokens it knows."""

    resident: Resident
    port: int
    owner_conninfo: str
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, who: str = "person:alice", *, life: timedelta = timedelta(hours=1), **columns: Any) -> str:
        """A token of somebody, made as `interlock tokens create` makes it: of its secret only the digest is kept."""
        written = make_token(secrets.token_bytes(ENTROPY_BYTES))
        kind, _, actor = who.partition(":")
        now = datetime.now(UTC)
        row = {
            "id": written.id,
            "name": "test",
            "kind": kind,
            "actor": actor,
            "on_behalf_of": "person:alice" if kind == "agent" else None,
            "scopes": [],
            "sha256": written.sha256,
            "created_by": "person:alice",
            "created_at": now,
            "expires_at": now + life,
            "run": 1,
            **columns,
        }
        names = ", ".join(row)
        places = ", ".join(f"%({name})s" for name in row)
        with psycopg.connect(self.owner_conninfo, autocommit=True) as connection:
            connection.execute(f"insert into token ({names}) values ({places})".encode(), row)  # noqa: S608 - our own names
        return written.text

    def client(self, who: str | None = "person:alice", **options: Any) -> httpx.Client:
        """A client with that bearer's token; None: with no token."""
        headers = dict(options.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.bearer(who)}"
        return httpx.Client(base_url=self.url, headers=headers, timeout=options.pop("timeout", 30.0), **options)

    def bearer(self, who: str) -> str:
        """The token of somebody, always the same one."""
        if who not in self.tokens:
            self.tokens[who] = self.token(who)
        return self.tokens[who]

    def lives(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def front_pids(self) -> list[int]:
        """The master first, then its workers."""
        marks = (b"interlock.interfaces.http.front", str(self.resident.folder).encode())
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if all(mark in words for mark in marks):
                    found.append(int(entry.name))
        return sorted(found)

    def write(self, client: httpx.Client, name: str, content: str, **more: Any) -> httpx.Response:
        """Ask for a file to be written below `data`."""
        headers = more.pop("headers", None)
        args = {"path": str(self.resident.data / name), "content": content}
        body = {"action": "file.write", "args": args, "confirmed": True, "wait": 20, **more}
        return client.post(f"{PREFIX}/runs", json=body, headers=headers)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def http_front(endpoint: Any, policy: str = "small-team", *, start: bool = True, **body: Any) -> Iterator[HttpFront]:
    """A project of its own, served at the socket and over HTTP."""
    with resident(endpoint, policy, **{**PROJECT, **body}) as made:
        port = free_port()
        made.serve_options = ("--listen", f"127.0.0.1:{port}")
        front = HttpFront(made, port, made.environment["INTERLOCK_DATABASE_OWNER_URL"])
        if start:
            made.start()
            made.until(front.ready)
        yield front
