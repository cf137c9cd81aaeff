"""The one table of what each error and each state of a Run is called in exit codes, HTTP and MCP."""

from __future__ import annotations

from typing import NamedTuple

SUCCEEDED = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4
CONFLICT = 5
NOTHING_DONE_YET = 8
UNRESOLVED = 20
TIMED_OUT = 124
INTERRUPTED = 130
NOT_READ = 141

EXIT_CODES: dict[int, str] = {
    SUCCEEDED: "succeeded",
    FAILED: "failed or undone; or a read succeeded and its answer is no (grep without a hit)",
    USAGE: "usage or invalid input",
    NOT_FOUND: "not found",
    DENIED: "denied",
    CONFLICT: "conflict or stale",
    NOTHING_DONE_YET: "nothing done yet: it needs a confirmation, an approval or a window, or is still running",
    UNRESOLVED: "unresolved: an effect may have happened, and a person has to say what to do",
    TIMED_OUT: "timed out",
    INTERRUPTED: "interrupted; a Run that changes something goes on, one that only looks is cancelled",
    NOT_READ: "whoever read the output closed it (`| head`), as a shell counts SIGPIPE",
}


class Code(NamedTuple):
    """One outcome in three languages: sysexits of ours, HTTP (RFC 9110), and JSON-RPC errors as MCP uses them.

    `mcp_code` is None where the answer is no error of the protocol.
    """

    exit_code: int
    http_status: int
    mcp_code: int | None


ERROR_CODES: dict[str, Code] = {
    "invalid": Code(USAGE, 422, -32602),
    "not_found": Code(NOT_FOUND, 404, -32002),
    "denied": Code(DENIED, 403, -32003),
    "conflict": Code(CONFLICT, 409, -32009),
    "stale": Code(CONFLICT, 412, -32012),
    "transient": Code(FAILED, 503, -32050),
    "permanent": Code(FAILED, 500, -32603),
}
"""By the kind of the seven errors. A Run that was not made has no state."""

HTTP_STATUS_OF_CODE: dict[str, int] = {
    "token.missing": 401,
    "token.refused": 401,
    "actor.undeclared": 401,
    "token.too_many_failures": 429,
    "api.path": 404,
    "api.method": 405,
    "api.body_slow": 408,
    "api.body_size": 413,
    "api.media_type": 415,
    "api.range": 416,
    "api.host": 421,
    "api.rate": 429,
    "api.streams": 429,
}
"""Where HTTP has a word of its own for an error, by its code; otherwise its kind says the status."""

STATE_CODES: dict[str, Code] = {
    "succeeded": Code(SUCCEEDED, 200, None),
    "failed": Code(FAILED, 200, None),
    "undone": Code(FAILED, 200, None),
    "denied": Code(DENIED, 403, -32003),
    "stale": Code(CONFLICT, 412, -32012),
    "expired": Code(FAILED, 200, None),
    "cancelled": Code(FAILED, 200, None),
    "waiting": Code(NOTHING_DONE_YET, 202, None),
    "queued": Code(NOTHING_DONE_YET, 202, None),
    "running": Code(NOTHING_DONE_YET, 202, None),
    "unresolved": Code(UNRESOLVED, 409, None),
}
"""By the state of a Run, whether it is over or not."""

PROPOSAL_CODE = Code(NOTHING_DONE_YET, 202, None)
"""A plan was made and shown; nothing was recorded and nothing was done."""


def exit_code_of_error(kind: str) -> int:
    """The exit code of an error; an unknown kind (of a newer resident process) counts as failed."""
    return ERROR_CODES[kind].exit_code if kind in ERROR_CODES else FAILED


def exit_code_of_run(state: str, state_code: str | None) -> int:
    """The exit code of a Run; `state_code` tells a Run that ran out of time from one that failed otherwise."""
    if state in {"failed", "undone"} and (state_code or "").endswith("timed_out"):
        return TIMED_OUT
    return STATE_CODES[state].exit_code if state in STATE_CODES else FAILED


def exit_code_of_proposal(outcome: str) -> int:
    """The exit code of a plan that was only shown: denied where policy forbids it, otherwise nothing is done yet."""
    return DENIED if outcome == "forbid" else PROPOSAL_CODE.exit_code
