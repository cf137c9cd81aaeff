"""Who an account is, and whom it may act as."""

from __future__ import annotations

import pytest

from interlock.core.actor import Actor
from interlock.core.errors import Denied, Invalid, NotFound
from interlock.core.project import Agent, Person, Project
from interlock.engine.actors import actor_of_account, as_agent, require_declared_agents

OWN_UID = 1000
TEAM = Project(
    people={"ann": Person(user="ann", roles=("operator",)), "bob": Person()},
    agents={"claude": Agent(on_behalf_of="ann"), "deployer": Agent(user="deploy"), "free": Agent()},
)


def test_a_declared_person_is_himself_with_his_roles() -> None:
    actor = actor_of_account(TEAM, 2001, "ann", OWN_UID)
    assert (actor.id, actor.roles) == ("person:ann", ("operator",))


def test_a_person_without_a_user_is_the_account_of_his_name() -> None:
    assert actor_of_account(TEAM, 2002, "bob", OWN_UID).id == "person:bob"


def test_an_account_that_is_an_agents_is_an_agent_whatever_it_says() -> None:
    actor = actor_of_account(TEAM, 2003, "deploy", OWN_UID)
    assert actor.kind == "agent"
    with pytest.raises(Denied):
        as_agent(TEAM, actor, "claude")


def test_who_works_alone_is_not_locked_out() -> None:
    actor = actor_of_account(Project(), OWN_UID, "solo", OWN_UID)
    assert (actor.id, actor.roles) == ("person:solo", ("operator",))


def test_the_account_that_runs_interlock_has_no_role_once_people_are_declared() -> None:
    assert actor_of_account(TEAM, OWN_UID, "interlock", OWN_UID).roles == ()


@pytest.mark.parametrize("user", ["stranger", None])
def test_an_unknown_account_is_nobody(user: str | None) -> None:
    with pytest.raises(Denied) as caught:
        actor_of_account(TEAM, 4000, user, OWN_UID)
    assert caught.value.code == "actor.unknown"


def test_a_person_acts_as_his_own_agent_with_fewer_rights() -> None:
    ann = actor_of_account(TEAM, 2001, "ann", OWN_UID)
    agent = as_agent(TEAM, ann, "claude")
    assert (agent.id, agent.on_behalf_of, agent.roles) == ("agent:claude", "person:ann", ())
    assert agent.principals == {"agent:claude", "person:ann"}


def test_a_person_may_act_as_any_agent_while_none_is_declared() -> None:
    bob = Actor(kind="person", name="bob")
    assert as_agent(Project(people=TEAM.people), bob, "helper").on_behalf_of == "person:bob"


def test_once_agents_are_declared_a_mistyped_name_is_none_of_them() -> None:
    with pytest.raises(NotFound, match="claude, deployer, free"):
        as_agent(TEAM, Actor(kind="person", name="ann"), "cluade")
    for pattern in ("*", "cl*", "deployer"):
        require_declared_agents(TEAM, pattern)
    require_declared_agents(Project(), "whoever")
    with pytest.raises(NotFound, match="claude, deployer, free"):
        require_declared_agents(TEAM, "nosuch")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ann", "actor.as_person"),
        ("claude", "actor.as_other"),
        ("deployer", "actor.as_account"),
    ],
)
def test_nobody_acts_as_another_person_or_as_an_agent_that_is_not_his(name: str, code: str) -> None:
    with pytest.raises(Denied) as caught:
        as_agent(TEAM, Actor(kind="person", name="bob"), name)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "person:ann", "../x", "a\n"])
def test_an_agents_name_is_plain(name: str) -> None:
    with pytest.raises(Invalid):
        as_agent(TEAM, Actor(kind="person", name="bob"), name)
