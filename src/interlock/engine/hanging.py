"""Ends the process although threads hang: the interpreter would wait for them for ever."""

from __future__ import annotations

import os
import sys
import threading
import time

import structlog

log = structlog.get_logger()

THREADS_GRACE_SECONDS = 2.0


def leave_hanging_threads(name: str, grace_seconds: float = THREADS_GRACE_SECONDS) -> None:
    """Return when no thread whose name begins with `name` is alive; otherwise end this process at once, with code 0.

    To be called last, when everything worth keeping is kept: nobody's `finally` runs any more. A thread that waits for
    a mount that never answers cannot be ended by anything else.
    """
    limit = time.monotonic() + grace_seconds
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(name)]
    for thread in threads:
        thread.join(max(0.0, limit - time.monotonic()))
    hanging = [thread.name for thread in threads if thread.is_alive()]
    if not hanging:
        return
    log.error("serve.threads_hang", threads=hanging)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
