"""What a role or a token may be used for: codes such as `run:command.exec` or `approve:low`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from interlock.core.model import Frozen
from interlock.core.plan import RISKS

EVERYTHING = "*"
FAMILIES: dict[str, str] = {
    "run": "ask for, cancel and settle Runs of an action: `run:unit.restart`, `run:unit.*`, `run:*`",
    "approve": "say yes or no to other people's Runs of exactly this risk: `approve:low`, `approve:*`",
    "view": "read one of Interlock's own tables: `view:runs`, `view:*`",
    "audit": "`audit:export` and `audit:verify`",
    "tokens": "`tokens:create` and `tokens:revoke`",
}
"""What stands before the colon, and what for."""

_CODE = re.compile(r"(?P<family>[a-z]+):(?P<name>\*|[a-z0-9_]+(?:[.-][a-z0-9_]+)*(?:\.\*)?)")
_CLOSED = {
    "approve": frozenset(RISKS),
    "audit": frozenset({"export", "verify"}),
    "tokens": frozenset({"create", "revoke"}),
}
_ACTIONS_ON_TOKENS = "token."
_AUDIT_VIEWS = "audit."


def _code(value: str) -> str:
    found = _CODE.fullmatch(value)
    if value != EVERYTHING and (found is None or found["family"] not in FAMILIES):
        msg = f"{value!r} is not a code: write FAMILY:NAME, FAMILY:PREFIX.*, FAMILY:* or * (families: {_families()})"
        raise ValueError(msg)
    if found is not None and (known := _CLOSED.get(found["family"])) and found["name"] not in (*known, EVERYTHING):
        msg = f"{value!r} names nothing: after {found['family']}: stands one of {', '.join(sorted(known))} or *"
        raise ValueError(msg)
    return value


def _families() -> str:
    return ", ".join(FAMILIES)


Code = Annotated[str, Field(max_length=200), AfterValidator(_code)]


class Role(Frozen):
    """What those who have it may do; whoever has several may do what any of them names."""

    codes: tuple[Code, ...] = ()


BUILT_IN_ROLES: dict[str, Role] = {
    "viewer": Role(codes=("view:*",)),
    "asker": Role(codes=("run:*", "view:*")),
    "approver": Role(codes=("approve:*", "view:*")),
    "auditor": Role(codes=("audit:*", "view:*")),
    "operator": Role(codes=("approve:*", "audit:*", "run:*", "tokens:*", "view:*")),
    "admin": Role(codes=(EVERYTHING,)),
}
"""Roles that every project has, unless it declares one of the same name itself."""


def code_of_action(action: str) -> str:
    """The code for asking for it: `run:unit.restart`; `tokens:create` for `token.create`."""
    return (
        f"tokens:{action.removeprefix(_ACTIONS_ON_TOKENS)}"
        if action.startswith(_ACTIONS_ON_TOKENS)
        else f"run:{action}"
    )


def code_of_view(view: str) -> str:
    """The code for reading it: `view:runs`; `audit:export` for `audit.export`."""
    return f"audit:{view.removeprefix(_AUDIT_VIEWS)}" if view.startswith(_AUDIT_VIEWS) else f"view:{view}"


def covering(code: str) -> tuple[str, ...]:
    """Every code that covers `code`, which has no star: `run:a.b` is covered by run:a.b, run:a.*, run:* and *."""
    family, _, name = code.partition(":")
    parts = name.split(".")
    prefixes = (f"{family}:{'.'.join(parts[:count])}.*" for count in range(len(parts) - 1, 0, -1))
    return (code, *prefixes, f"{family}:*", EVERYTHING)
