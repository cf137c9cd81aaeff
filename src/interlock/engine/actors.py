"""Who an operating-system account is to Interlock; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from interlock.core.actor import Actor
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.core.project import Agent, Person, Project, Service
from interlock.core.token import Token

AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
OPERATOR_ROLE = "operator"
SHOWN_MAX = 10


def actor_of_account(project: Project, uid: int, user: str | None, own_uid: int) -> Actor:
    """The actor behind an account, as the kernel named it.

    Agents and services with an account of their own are what they are, whatever they say. A declared person is himself.
    Where nobody is declared, the account that runs Interlock (and root) is a person with the role `operator`, so that
    somebody who works alone is not locked out.

    Raises: Denied when the account is nobody to this installation.
    """
    for name, agent in project.agents.items():
        if agent.user is not None and agent.user == user:
            return Actor(kind="agent", name=name, roles=agent.roles, on_behalf_of=_owner(agent.on_behalf_of))
    for name, service in project.services.items():
        if service.user is not None and service.user == user:
            return Actor(kind="service", name=name, roles=service.roles)
    for name, person in project.people.items():
        if (person.user or name) == user:
            return Actor(kind="person", name=name, roles=person.roles)
    if uid in (own_uid, 0):
        roles = () if project.people else (OPERATOR_ROLE,)
        return Actor(kind="person", name=user or f"uid-{uid}", roles=roles)
    msg = f"the account {user or uid} is nobody to this installation"
    raise Denied(msg, code="actor.unknown", fix="let the operator add it under `people` or `agents` in interlock.yaml")


def as_agent(project: Project, caller: Actor, name: str) -> Actor:
    """A person may act as an agent of his own, which has fewer rights; nobody acts as another person.

    Where no agent is declared any name will do; once one is, a mistyped name must not become another agent.

    Raises: Denied (the caller is no person, or the agent works for somebody else), Invalid (that cannot be a name),
        NotFound (agents are declared, and it is none of them).
    """
    if not AGENT_NAME.fullmatch(name):
        msg = f"{name[:80]!r} is not a name for an agent: letters, digits, dot, dash and underscore"
        raise Invalid(msg, code="actor.agent_name", fix="interlock --as claude ...")
    if caller.kind != "person":
        if caller.kind == "agent" and caller.name == name:
            return caller
        msg = f"{caller.id} may not act as anybody else"
        raise Denied(msg, code="actor.as", fix="leave out --as: it makes a person less than he is, and nobody else")
    if name in project.people:
        msg = f"{name} is a person, and nobody acts as another person"
        raise Denied(msg, code="actor.as_person", fix="use the name of an agent")
    declared = project.agents.get(name)
    if declared is None and project.agents:
        msg = f"interlock.yaml declares no agent {name}, but {_listed(project.agents)}"
        fix = "name one of those, or declare it under `agents` in interlock.yaml"
        raise NotFound(msg, code="actor.agent_undeclared", fix=fix)
    owner = _owner(declared.on_behalf_of) if declared is not None else None
    if owner is not None and owner != caller.id:
        msg = f"the agent {name} works for {owner}"
        raise Denied(msg, code="actor.as_other", fix="use an agent of your own")
    if declared is not None and declared.user is not None:
        msg = f"the agent {name} has an account of its own ({declared.user})"
        raise Denied(msg, code="actor.as_account", fix=f"run it as {declared.user}")
    roles = declared.roles if declared is not None else ()
    # What narrows the person narrows what works for him: his token's scopes go with it.
    return Actor(kind="agent", name=name, roles=roles, on_behalf_of=caller.id, via=caller.via, scopes=caller.scopes)


def declared_actor(project: Project, token: Token) -> Actor:
    """The actor that a token stands for, with the roles that interlock.yaml gives him now.

    Raises: Denied when interlock.yaml no longer declares him, or whom he works for.
    """
    found: Person | Agent | Service | None
    owner = token.on_behalf_of
    if token.kind == "person":
        found = project.people.get(token.actor)
    elif token.kind == "service":
        found = project.services.get(token.actor)
    else:
        found = agent = project.agents.get(token.actor)
        declared = _owner(agent.on_behalf_of) if agent is not None else None
        if declared is not None and owner not in (None, declared):
            found = None
        owner = declared or owner
    if found is None or (owner is not None and owner.removeprefix("person:") not in project.people):
        msg = f"interlock.yaml does not declare {token.kind}:{token.actor} (any more), or whom it works for"
        raise Denied(msg, code="actor.undeclared", fix="let the operator declare it, or use a token of somebody else")
    return Actor(
        kind=token.kind,
        name=token.actor,
        roles=found.roles,
        on_behalf_of=owner,
        via=token.id,
        scopes=token.scopes or None,
    )


def require_declared_agents(project: Project, pattern: str) -> None:
    """Raise NotFound where agents are declared and `pattern` (a name, or a pattern of names) matches none of them."""
    if pattern == "*" or not project.agents or any(fnmatchcase(name, pattern) for name in project.agents):
        return
    msg = f"no agent that interlock.yaml declares is called {pattern}; there is {_listed(project.agents)}"
    raise NotFound(msg, code="actor.agent_undeclared", fix="name one of those, or leave the name out to mean all")


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(found[:SHOWN_MAX]) + more


def _owner(name: str | None) -> str | None:
    if name is None:
        return None
    return name if ":" in name else f"person:{name}"
