"""What an environment may be called, and the refusal of one that is not the one that runs."""

from __future__ import annotations

import re

from interlock.core.errors import Conflict

ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""Names of environments: what stands between the dots of an overlay's file name."""


def require_environment(running: str | None, asked: str | None) -> None:
    """Raises Conflict where somebody asks for another environment than the one that runs."""
    if asked is not None and asked != running:
        raise other_environment(running, asked)


def other_environment(running: str | None, asked: str) -> Conflict:
    """The refusal that both sides give."""
    msg = f"Interlock runs here {f'as {running}' if running else 'without an environment'}, and {asked} was asked for"
    fix = f"unset INTERLOCK_ENVIRONMENT; or: interlock stop && interlock serve --environment {asked}"
    return Conflict(msg, code="environment.other", fix=fix, details={"running": running, "asked": asked})
