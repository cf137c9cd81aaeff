"""The one table of outcomes is complete and says what the command line promises."""

from __future__ import annotations

import pytest

from interlock.core.errors import ERRORS
from interlock.core.run import RunState
from interlock.interfaces.errors import (
    ERROR_CODES,
    EXIT_CODES,
    STATE_CODES,
    exit_code_of_error,
    exit_code_of_proposal,
    exit_code_of_run,
)


def test_every_kind_of_error_has_codes() -> None:
    assert ERROR_CODES.keys() == ERRORS.keys()


def test_every_state_of_a_run_has_codes() -> None:
    assert STATE_CODES.keys() == {state.value for state in RunState}


def test_every_exit_code_in_the_table_is_documented() -> None:
    used = {code.exit_code for code in (*ERROR_CODES.values(), *STATE_CODES.values())}
    assert used <= EXIT_CODES.keys()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("invalid", 2),
        ("not_found", 3),
        ("denied", 4),
        ("conflict", 5),
        ("stale", 5),
        ("transient", 1),
        ("permanent", 1),
        ("of-a-newer-version", 1),
    ],
)
def test_an_error_ends_with_its_exit_code(kind: str, code: int) -> None:
    assert exit_code_of_error(kind) == code


@pytest.mark.parametrize(
    ("state", "state_code", "code"),
    [
        ("succeeded", None, 0),
        ("failed", None, 1),
        ("undone", "step.failed", 1),
        ("failed", "step.timed_out", 124),
        ("undone", "run.timed_out", 124),
        ("succeeded", "step.timed_out", 0),
        ("denied", "denied.policy", 4),
        ("stale", None, 5),
        ("expired", None, 1),
        ("cancelled", None, 1),
        ("waiting", None, 8),
        ("queued", None, 8),
        ("running", None, 8),
        ("unresolved", "step.timed_out", 20),
        ("of-a-newer-version", None, 1),
    ],
)
def test_a_run_ends_with_its_exit_code(state: str, state_code: str | None, code: int) -> None:
    assert exit_code_of_run(state, state_code) == code


@pytest.mark.parametrize(("outcome", "code"), [("permit", 8), ("needs_approval", 8), ("forbid", 4)])
def test_a_plan_that_was_only_shown_is_nothing_done_unless_it_is_forbidden(outcome: str, code: int) -> None:
    assert exit_code_of_proposal(outcome) == code
