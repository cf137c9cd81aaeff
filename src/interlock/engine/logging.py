"""Sets up the log: one JSON object a line on standard error, without locals, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from interlock.lib.redact import Redactor

FIELD_CHARACTERS_MAX = 4000
_DATABASE_DETAIL = re.compile(r"\n(?:DETAIL|CONTEXT|HINT|QUERY):.*", re.DOTALL)


def configure_logging(redactor: Redactor, level: int = logging.INFO) -> None:
    """Every line has `event` (a constant name), `level`, `at` and its fields; what looks like a secret is blotted."""

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
            structlog.processors.add_log_level,
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
