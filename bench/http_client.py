"""The product's HTTP interface as it ships, and a plain client of it that keeps its connection."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from bench.installation import PERSON, NoOperation
from interlock.bootstrap import Installation
from interlock.core.http import Http, HttpLimits
from interlock.core.token import ENTROPY_BYTES, make_token
from interlock.interfaces.http.supervisor import Listening, http_front

END_SECONDS = 50
_INSERT = """insert into token (id, name, kind, actor, scopes, sha256, created_by, created_at, expires_at, run)
    values (%s, 'bench', 'person', %s, '{}', %s, 'person:alice', now(), %s, 1)"""


@asynccontextmanager
async def served(installation: Installation, owner: str) -> AsyncIterator[HttpClient]:
    """The front beside a resident process that is there already, and a client with a token of the person's."""
    written = make_token(secrets.token_bytes(ENTROPY_BYTES))
    with psycopg.connect(owner, autocommit=True) as connection:
        expires = datetime.now(UTC) + timedelta(days=1)
        connection.execute(_INSERT, (written.id, PERSON.name, written.sha256, expires))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limits = HttpLimits(requests_per_second=100_000)
    listening = Listening(f"127.0.0.1:{port}", Http(limits=limits))
    async with http_front(installation.locations, listening, installation.telemetry.meter):
        yield HttpClient(port, written.text)


class HttpClient:
    """One connection; the server hangs up on who is silent for long, and then a new one is made."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self) -> None:
        """One Run from the ask to its end."""
        args = {"target": str(time.perf_counter())}
        body = json.dumps({"action": NoOperation.name, "args": args, "confirmed": True, "wait": END_SECONDS})
        try:
            run = self._post(body)
        except (ConnectionError, http.client.HTTPException):
            self._connection.close()
            run = self._post(body)
        assert run["run"]["state"] == "succeeded"

    def page(self, path: str) -> int:
        """How many Runs a page holds."""
        try:
            shown = self._get(path)
        except (ConnectionError, http.client.HTTPException):
            self._connection.close()
            shown = self._get(path)
        return len(shown["runs"])

    def _get(self, path: str) -> dict[str, list[object]]:
        self._connection.request("GET", path, headers=self._headers)
        answered: dict[str, list[object]] = json.loads(self._connection.getresponse().read())
        return answered

    def _post(self, body: str) -> dict[str, dict[str, object]]:
        self._connection.request("POST", "/api/v1/runs", body, self._headers)
        answered: dict[str, dict[str, object]] = json.loads(self._connection.getresponse().read())
        return answered
