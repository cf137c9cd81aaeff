"""A line of the log: JSON with the fields that every line has, without secrets and without variables.

Each in a process of its own: loggers keep the standard error that they began with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

SECRET = "ghp_" + "a1B2" * 9
PROGRAM = f"""
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars
from interlock.engine.logging import configure_logging
from interlock.lib.redact import Redactor

SECRET = {SECRET!r}
configure_logging(Redactor())
log = structlog.get_logger()
log.info("run.left", status="succeeded", latency=0.5)
with bound_contextvars(trace_id="t", run_id=7, actor="person:alice", action="a.b"):
    log.warning("step.bug")
log.warning("step.bug")
bind_contextvars(path="/x?token=" + SECRET)
log.info("http.bug", reason="it was " + SECRET, args={{"deep": [SECRET]}})
def fail():
    hidden = "only in " + "a variable"
    raise ValueError(len(hidden))
try:
    fail()
except ValueError:
    log.exception("run.bug")
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_a_line_has_what_every_line_has(lines: list[dict[str, Any]]) -> None:
    told = lines[0]
    assert (told["event"], told["level"], told["status"], told["latency"]) == ("run.left", "info", "succeeded", 0.5)
    assert datetime.fromisoformat(told["at"]).tzinfo == UTC
    assert told["module"] == "__main__"


def test_what_was_bound_is_on_each_line_until_the_next_begins(lines: list[dict[str, Any]]) -> None:
    bound, after = lines[1], lines[2]
    assert (bound["trace_id"], bound["run_id"], bound["actor"], bound["action"]) == ("t", 7, "person:alice", "a.b")
    assert "run_id" not in after


def test_a_secret_is_blotted_wherever_it_stands(lines: list[dict[str, Any]]) -> None:
    assert lines[3]["reason"].startswith("it was ")
    assert SECRET not in json.dumps(lines)


def test_a_traceback_shows_no_variables(lines: list[dict[str, Any]]) -> None:
    (told,) = lines[4]["exception"]
    assert (told["exc_type"], told["exc_value"]) == ("ValueError", "18")
    assert len(told["frames"]) == 2
    assert "only in a variable" not in json.dumps(told)
