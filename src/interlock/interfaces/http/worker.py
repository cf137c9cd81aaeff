"""gunicorn's ASGI worker with what it leaves out: bounds on connections and on the time a request's head may take."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys

from gunicorn.arbiter import Arbiter
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from interlock.interfaces.http.events import Places


class FrontProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. gunicorn bounds the wait for a further request, but not for the first one."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Hang up on who comes when the house is full, or does not say soon what he wants."""
        super().connection_made(transport)
        worker = self.worker
        if worker.nr_conns > worker.cfg.worker_connections:
            transport.abort()
            return
        worker.loop.call_later(worker.app.head_seconds_max, self._require_head)

    def _require_head(self) -> None:
        if self.req_count <= 1 and self._current_request is None and self.transport is not None:
            self.transport.abort()


class FrontWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """The process that answers."""

    def init_process(self) -> None:
        """Its connections are ours: the worker makes them by this name of its module."""
        gasgi.ASGIProtocol = FrontProtocol
        super().init_process()

    def _get_ssl_context(self) -> ssl.SSLContext | None:
        """Gunicorn's own goes on in plain text where a certificate cannot be read; then nothing is served here."""
        context: ssl.SSLContext | None = super()._get_ssl_context()
        if self.cfg.is_ssl and context is None:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        return context

    def handle_exit_signal(self) -> None:
        """It is being replaced."""
        super().handle_exit_signal()
        self._end_streams()

    def notify(self) -> None:
        """Once a second, from when it answers: that it lives; and look whether its master still does."""
        super().notify()
        self.app.tell_ready()
        if self.ppid != os.getppid():
            self._end_streams()

    def _end_streams(self) -> None:
        """Their readers come again, to the next worker."""
        places: Places | None = getattr(self.app.served.state, "places", None)
        if places is not None:
            places.leaving.set()
