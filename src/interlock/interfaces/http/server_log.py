"""What the HTTP server has to say, in the form in which all of Interlock says it."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from gunicorn.glogging import Logger

log = structlog.get_logger()


class Structured(logging.Handler):
    """Hands every line on."""

    def emit(self, record: logging.LogRecord) -> None:
        """As `http.server`, with the traceback where there is one."""
        log.log(record.levelno, "http.server", text=record.getMessage(), exc_info=record.exc_info or None)


class ServerLog(Logger):  # type: ignore[misc]
    """gunicorn's log without its own handlers."""

    def setup(self, cfg: Any) -> None:
        """Again at every reload."""
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.addHandler(Structured())
