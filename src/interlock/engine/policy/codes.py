"""Which codes an actor is kept to: by his roles, by those of the person he works for, and by his token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interlock.core.actor import Actor
from interlock.core.errors import Denied
from interlock.core.project import Project
from interlock.core.role import BUILT_IN_ROLES, covering

Bounds = Mapping[str, tuple[str, ...]]
"""By the name that policies know it under (`codes`, `owner_codes`, `scopes`), what it may be used for. Each of them
must cover what is done; an actor without any is kept to nothing by codes."""

CODES = "invariant.codes"
"""The policy that forbids what a bound does not cover."""

_NONE: Bounds = {}


def bounds_of(actor: Actor, project: Project) -> Bounds:
    """What this actor is kept to. People and agents are bound by roles once interlock.yaml has a section `roles`;
    services always are, and each that is declared has a role."""
    if actor.scopes is None and project.roles is None and actor.kind != "service":
        return _NONE
    owner = (actor.on_behalf_of or "").removeprefix("person:")
    found = {
        "codes": _of_roles(actor.kind, actor.roles, project),
        "owner_codes": _of_roles("person", project.people[owner].roles, project) if owner in project.people else None,
        "scopes": tuple(sorted(set(actor.scopes))) if actor.scopes is not None else None,
    }
    return {name: codes for name, codes in found.items() if codes is not None}


def _of_roles(kind: str, roles: Sequence[str], project: Project) -> tuple[str, ...] | None:
    """None: not bound. A name that no role has is a word for policies and brings no codes."""
    if kind == "system" or (project.roles is None and kind != "service"):
        return None
    known = {**BUILT_IN_ROLES, **(project.roles or {})}
    found = [known[role].codes for role in roles if role in known]
    if not found and not (kind == "service" and roles):
        return None
    return tuple(sorted({code for codes in found for code in codes}))


def lacking(bounds: Bounds, code: str) -> tuple[str, ...]:
    """The names of the bounds that do not cover `code`."""
    enough = set(covering(code))
    return tuple(name for name, codes in bounds.items() if enough.isdisjoint(codes))


def require_code(actor: Actor, project: Project, code: str) -> None:
    """Raises Denied, naming the code, where the actor is bound and not to this."""
    missing = lacking(bounds_of(actor, project), code)
    if missing:
        whose = {"codes": "his roles", "owner_codes": "the roles of whom he works for", "scopes": "his token"}
        msg = f"{actor.id} lacks the code {code}: {' and '.join(whose[name] for name in missing)} do not name it"
        raise Denied(
            msg,
            code="code.missing",
            fix="ask somebody who has it, or let the operator add it to a role in interlock.yaml",
            details={"code": code, "missing_in": list(missing)},
        )
