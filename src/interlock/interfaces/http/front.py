"""The process that answers HTTP: `python -m interlock.interfaces.http.front FILE`, started by the resident process."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from interlock.engine.logging import configure_logging
from interlock.interfaces.http.options import READY, FrontOptions
from interlock.lib.redact import Redactor

WORKERS = 1
"""One: it waits far more than it works, and bounds for each token hold in one place."""

SHORT_MAX = 48
LONG_MAX = 16
"""Requests and long answers that are under way at once; while a worker is replaced there are two of them, and the
resident process keeps room for the command line beside both."""

KEEP_ALIVE_SECONDS = 5
GRACE_SECONDS = 20
HEAD_BYTES_MAX = 8190
FIELDS_MAX = 64
LINE_BYTES_MAX = 8190
RECENT_SECONDS = 30
LEAST_WORDS = 3
_PR_SET_PDEATHSIG = 1


class Front(BaseApplication):  # type: ignore[misc]
    """What gunicorn serves; it reads the file anew at every SIGHUP."""

    def __init__(self, file: Path, told: int | None) -> None:
        self._file = file
        self._told = told
        self.served: Any = None
        self.head_seconds_max = 10.0
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's own choice."""
        options = FrontOptions.read(self._file)
        self.head_seconds_max = options.limits.head_seconds_max
        chosen: dict[str, object] = {
            "bind": f"fd://{options.descriptor}",
            "workers": WORKERS,
            "worker_class": "interlock.interfaces.http.worker.FrontWorker",
            "worker_connections": options.limits.connections_max,
            "keepalive": KEEP_ALIVE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "timeout": RECENT_SECONDS,
            "limit_request_line": LINE_BYTES_MAX,
            "limit_request_fields": FIELDS_MAX,
            "limit_request_field_size": HEAD_BYTES_MAX,
            "forwarded_allow_ips": "",
            "control_socket_disable": True,
            "asgi_loop": "uvloop",
            "asgi_lifespan": "on",
            "loglevel": "warning",
            "logger_class": "interlock.interfaces.http.server_log.ServerLog",
            "proc_name": "interlock-http",
            "http_protocols": "h1",
        }
        if options.tls is not None:
            chosen |= {"certfile": options.tls.certificate, "keyfile": options.tls.key}
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def tell_ready(self) -> None:
        """Once, to whoever still waits for it."""
        if self._told is not None:
            with suppress(OSError):
                os.write(self._told, READY)
                os.close(self._told)
            self._told = None

    def load(self) -> Any:
        """The application, made in the worker: what is imported here is new after a SIGHUP."""
        from interlock.engine.catalog import find_action_classes, find_view_classes
        from interlock.interfaces.http.app import build_app, gated
        from interlock.interfaces.http.asking import Resident
        from interlock.interfaces.local.async_client import AsyncClient
        from interlock.interfaces.local.watching import Watcher

        options = FrontOptions.read(self._file)
        door, trusted = options.door, options.trusted_uids
        resident = Resident(
            client=AsyncClient(door, trusted_uids=trusted, connections_max=SHORT_MAX, bearers_only=True),
            long=AsyncClient(door, trusted_uids=trusted, connections_max=LONG_MAX, bearers_only=True),
            watcher=Watcher(door, trusted_uids=trusted),
            probe=AsyncClient(door, trusted_uids=trusted, connections_max=1),
        )
        self.served = build_app(resident, options.limits, find_view_classes(), find_action_classes())
        return gated(self.served, options.limits, options.hosts, secure=options.tls is not None)


def main(file: Path, parent: int, told: int | None) -> None:
    """Serve until the resident process ends, or says so."""
    # The signal of its thread's end reaches whoever is alive then; what ended before is seen by who the parent is.
    if (
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0
        or os.getppid() != parent
    ):
        sys.exit(1)
    configure_logging(Redactor())
    options = FrontOptions.read(file)
    # Shared by this process and its workers for as long as one of them lives: then the address is free again.
    lock = os.open(options.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    Front(file, told).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > LEAST_WORDS else None)
