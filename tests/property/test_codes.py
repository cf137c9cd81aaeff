"""Codes: what covers what, held against a plain reading of the rule, and policy against both."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from interlock.core.actor import Actor
from interlock.core.errors import Denied
from interlock.core.project import Person, Project, Service
from interlock.core.role import BUILT_IN_ROLES, FAMILIES, Code, Role, code_of_action, code_of_view, covering
from interlock.engine.policy.codes import bounds_of, lacking, require_code

CODE = TypeAdapter(Code)
WORD = st.sampled_from(["command", "exec", "file", "unit", "a", "b2", "audit"])
NAME = st.lists(WORD, min_size=1, max_size=4).map(".".join)
OPEN_FAMILY = st.sampled_from(["run", "view"])
ASKED = st.builds("{}:{}".format, OPEN_FAMILY, NAME)
GIVEN = st.one_of(
    st.just("*"),
    OPEN_FAMILY.map("{}:*".format),
    ASKED,
    ASKED.map("{}.*".format),
)


def covers(given_code: str, asked: str) -> bool:
    """The rule in other words: a star at the end stands for one or more characters behind a colon or dot."""
    if given_code == "*":
        return True
    if given_code.endswith("*"):
        return re.fullmatch(re.escape(given_code[:-1]) + ".+", asked) is not None
    return given_code == asked


@given(GIVEN, ASKED)
def test_a_code_covers_what_it_says_and_nothing_else(given_code: str, asked: str) -> None:
    assert CODE.validate_python(given_code) == given_code
    assert (given_code in covering(asked)) == covers(given_code, asked)
    assert (lacking({"scopes": (given_code,)}, asked) == ()) == covers(given_code, asked)


@given(st.lists(GIVEN, max_size=4), st.lists(GIVEN, min_size=1, max_size=4), ASKED)
def test_roles_and_scopes_must_each_cover_it(codes: list[str], scopes: list[str], asked: str) -> None:
    project = Project(services={"ci": Service(roles=("one",))}, roles={"one": Role(codes=tuple(codes))})
    bearer = Actor(kind="service", name="ci", roles=("one",), via="a" * 12, scopes=tuple(scopes))
    allowed = any(covers(code, asked) for code in codes) and any(covers(code, asked) for code in scopes)
    assert (lacking(bounds_of(bearer, project), asked) == ()) == allowed
    if allowed:
        require_code(bearer, project, asked)
    else:
        with pytest.raises(Denied, match=re.escape(asked)):
            require_code(bearer, project, asked)


@given(st.text(max_size=30))
def test_what_is_no_code_is_refused(text: str) -> None:
    try:
        CODE.validate_python(text)
    except ValidationError:
        return
    assert text == "*" or text.partition(":")[0] in FAMILIES
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("wrong", ["", "run", "run:", ":x", "run:**", "run:*.x", "run:a.*.b", "fly:x", "approve:some"])
def test_a_code_that_can_name_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        CODE.validate_python(wrong)


def test_what_is_asked_has_one_code() -> None:
    assert code_of_action("command.exec") == "run:command.exec"
    assert code_of_action("token.create") == "tokens:create"
    assert code_of_view("runs") == "view:runs"
    assert code_of_view("audit.export") == "audit:export"
    assert covering("run:a.b.c") == ("run:a.b.c", "run:a.b.*", "run:a.*", "run:*", "*")


def test_the_built_in_roles_are_of_codes_that_exist() -> None:
    for role in BUILT_IN_ROLES.values():
        assert role.codes
        for code in role.codes:
            assert CODE.validate_python(code) == code


def test_without_a_section_for_roles_people_and_agents_are_bound_by_none() -> None:
    project = Project(people={"ann": Person(roles=("viewer",))})
    assert bounds_of(Actor(kind="person", name="ann", roles=("viewer",)), project) == {}
    assert bounds_of(Actor(kind="agent", name="claude", on_behalf_of="person:ann"), project) == {}
    assert bounds_of(Actor(kind="service", name="ci", roles=("viewer",)), project) == {"codes": ("view:*",)}


def test_with_one_the_built_in_roles_bind_and_may_be_declared_anew() -> None:
    people = {"ann": Person(roles=("viewer",)), "bob": Person(roles=("lead",))}
    ann = Actor(kind="person", name="ann", roles=("viewer",))
    assert bounds_of(ann, Project(people=people, roles={})) == {"codes": ("view:*",)}
    own = Project(people=people, roles={"viewer": Role(codes=("view:runs",))})
    assert bounds_of(ann, own) == {"codes": ("view:runs",)}
    assert bounds_of(Actor(kind="person", name="bob", roles=("lead",)), own) == {}
    agent = Actor(kind="agent", name="claude", on_behalf_of="person:ann")
    assert bounds_of(agent, own) == {"owner_codes": ("view:runs",)}


def test_a_service_whose_role_is_gone_may_do_nothing() -> None:
    gone = Actor(kind="service", name="ci", roles=("no-longer",))
    assert bounds_of(gone, Project()) == {"codes": ()}
    assert lacking(bounds_of(gone, Project()), "view:runs") == ("codes",)
