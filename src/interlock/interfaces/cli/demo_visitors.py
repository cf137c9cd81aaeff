"""Visitors of the demo's shop: real requests at a steady pace, and what became of each."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections import Counter
from types import TracebackType
from typing import Self

PACE_SECONDS = 0.008
"""Between two requests, of all visitors together."""

VISITORS = 24
REQUESTS_EACH = 12
"""So often a visitor comes back before another one takes his place."""

ORDERS_PERCENT = 60
ANSWER_SECONDS = 10.0

_ORDER = b'{"item": "coffee"}'
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_VERSION = re.compile(rb"\r\nx-version: (\S+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nset-cookie: ([^;\r]+)", re.IGNORECASE)


class Visitors:
    """Comes to HOST:PORT from `with` on until its end; `answers` counts (version, status), 0 where no answer came."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._leave = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._come()), name="visitors", daemon=True)
        self._pace = asyncio.Lock()
        self._asked = itertools.count()
        self.answers: Counter[tuple[str, int]] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()

    @property
    def requests(self) -> int:
        """How many were made."""
        return sum(self.answers.values())

    def failed(self) -> Counter[str]:
        """How many of them failed, by the version that failed them; "nobody" where no answer came."""
        found: Counter[str] = Counter()
        for (version, status), count in self.answers.items():
            if not 200 <= status < 400:  # noqa: PLR2004 - HTTP's own classes
                found[version] += count
        return found

    async def _come(self) -> None:
        self._pace = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for _ in range(VISITORS):
                group.create_task(self._keep_coming())

    async def _keep_coming(self) -> None:
        while not self._leave.is_set():
            try:
                await self._visit()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.answers["nobody", 0] += 1

    async def _visit(self) -> None:
        """One visitor on one connection, who keeps the cookie that he is given."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        cookie = b""
        try:
            for _ in range(REQUESTS_EACH):
                async with self._pace:
                    await asyncio.sleep(PACE_SECONDS)
                if self._leave.is_set():
                    return
                writer.write(self._request(cookie))
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_SECONDS)
                length = _LENGTH.search(head)
                await asyncio.wait_for(reader.readexactly(int(length[1]) if length else 0), ANSWER_SECONDS)
                self._count(head)
                given = _COOKIE.search(head)
                cookie = given[1] if given else cookie
        finally:
            writer.close()

    def _request(self, cookie: bytes) -> bytes:
        said = b"cookie: " + cookie + b"\r\n" if cookie else b""
        if next(self._asked) * ORDERS_PERCENT % 100 >= ORDERS_PERCENT:
            return b"GET /items/coffee HTTP/1.1\r\nhost: shop\r\n" + said + b"\r\n"
        return b"POST /orders HTTP/1.1\r\nhost: shop\r\n" + said + b"content-length: %d\r\n\r\n" % len(_ORDER) + _ORDER

    def _count(self, head: bytes) -> None:
        status, version = _STATUS.match(head), _VERSION.search(head)
        self.answers[version[1].decode() if version else "nobody", int(status[1]) if status else 0] += 1
