"""Sets up the log: one JSON object a line on standard error, without locals, without secrets.

Every line has `event` (a constant name), `level`, `at` and `module`. What it is about has one name everywhere:
`trace_id`, `run_id`, `actor`, `action`, `status` (a state), `latency` (seconds), `error_code`. Those that belong to a
request or to a Run are bound once, where it begins, and are on each of its lines.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from types import FrameType
from typing import Any

import structlog

from interlock.lib.redact import Redactor

FIELD_CHARACTERS_MAX = 4000
_DATABASE_DETAIL = re.compile(r"\n(?:DETAIL|CONTEXT|HINT|QUERY):.*", re.DOTALL)


def _add_module(_logger: object, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Which module writes the line: the nearest one outside of this and of the library."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as `logging` itself does
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"structlog", "logging"}:
        frame = frame.f_back
    fields.setdefault("module", frame.f_globals.get("__name__", "") if frame is not None else "")
    return fields


def configure_logging(redactor: Redactor, level: int = logging.INFO) -> None:
    """From now on; what looks like a secret is blotted, whoever wrote it."""

    def clean(_logger: object, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: cleaned(value) for name, value in fields.items()}

    def cleaned(value: Any) -> Any:
        """Text without secrets, and without what a database adds to an error: its DETAIL quotes the values."""
        if isinstance(value, str):
            return redactor.redact(_DATABASE_DETAIL.sub("", value))[:FIELD_CHARACTERS_MAX]
        if isinstance(value, dict):
            return {name: cleaned(inner) for name, inner in value.items()}
        return [cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_module,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
            ),
            clean,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
