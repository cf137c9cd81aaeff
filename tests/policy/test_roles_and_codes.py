"""Roles are entities that policies may name; a missing code is a refusal that says which one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from interlock.core.actor import Actor
from interlock.core.project import Person, Project
from interlock.core.role import Role
from interlock.engine.policy.codes import CODES
from interlock.engine.policy.explain import explain
from interlock.engine.policy.judge import Judge, judge
from interlock.engine.policy.request import plan_request

from .conftest import ALICE, NOW, context_of, plan_of

JudgeOf = Callable[..., Judge]
BY_ENTITY = """
@id("team.interns")
@reason("interns change nothing")
@risk("low")
@effect("forbid")
forbid (principal in Role::"intern", action, resource is Plan)
when { resource.changes };
"""
BY_NAME = BY_ENTITY.replace('principal in Role::"intern"', "principal").replace(
    "resource.changes", 'resource.changes && principal.roles.contains("intern")'
)
READ = plan_of("unit:nginx.service", changes=False)
TEAM = Project(
    people={"alice": Person(roles=("operator",)), "vera": Person(roles=("viewer",))},
    roles={"writer": Role(codes=("run:file.write",))},
)
VERA = Actor(kind="person", name="vera", roles=("viewer",))


@pytest.mark.parametrize("policy", [BY_ENTITY, BY_NAME])
def test_a_policy_names_a_role_as_an_entity_or_by_its_name(judge_of: JudgeOf, policy: str) -> None:
    plan = plan_of("unit:nginx.service")
    decide = judge_of(policy).decide
    intern = Actor(kind="person", name="ida", roles=("helper", "intern"))
    decision = decide(intern, plan, context_of(plan))
    assert decision.outcome == "forbid"
    assert "team.interns" in {reason.policy for reason in decision.reasons}
    assert decide(ALICE, plan, context_of(plan)).outcome == "needs_approval"


def test_the_reason_and_the_explanation_name_the_missing_code(judge_of: JudgeOf) -> None:
    made = judge_of(project=TEAM)
    decision = made.decide(VERA, READ, context_of(READ))
    assert [(reason.policy, reason.reason) for reason in decision.reasons] == [
        (CODES, "a code is missing: run:command.exec")
    ]
    told = explain(made.book.current, decision, NOW)
    assert (("with the code run:command.exec",), "permit") in [(each.what, each.outcome) for each in told.changes]
    view = made.decide_view(Actor(kind="person", name="w", roles=("writer",)), "audit.export", "content", NOW)
    assert [reason.reason for reason in view.reasons] == ["a code is missing: audit:export"]


def test_a_token_and_a_role_that_both_lack_it_are_explained_together(judge_of: JudgeOf) -> None:
    made = judge_of(project=TEAM)
    bearer = VERA.model_copy(update={"via": "a" * 12, "scopes": ("view:*",)})
    told = explain(made.book.current, made.decide(bearer, READ, context_of(READ)), NOW)
    assert (("with the code run:command.exec",), "permit") in [(each.what, each.outcome) for each in told.changes]


@pytest.mark.parametrize("bound", ["codes", "owner_codes", "scopes"])
def test_who_is_bound_and_asks_without_a_code_is_refused(judge_of: JudgeOf, bound: str) -> None:
    policies = judge_of(project=TEAM).book.current
    request, (principal, plan) = plan_request(ALICE, READ, context_of(READ), policies.facts.current())
    attributes: Any = principal["attrs"]
    context: Any = request["context"]
    code = context.pop("code")
    for name in ("codes", "owner_codes", "scopes"):
        attributes.pop(name, None)
    assert judge(policies, request, (principal, plan)).outcome == "permit"
    attributes[bound] = ["*"]
    assert judge(policies, request, (principal, plan)).outcome == "forbid"
    context["code"] = code
    assert judge(policies, request, (principal, plan)).outcome == "permit"


def test_whom_no_codes_bind_is_asked_for_none(judge_of: JudgeOf) -> None:
    decision = judge_of().decide(ALICE, READ, context_of(READ))
    assert decision.outcome == "permit"
    attributes: Any = decision.entities[0]["attrs"]
    assert not {"codes", "owner_codes", "scopes", "via"} & attributes.keys()
    context: Any = decision.request["context"]
    assert "code" not in context


def test_another_set_of_roles_is_another_policy_set(judge_of: JudgeOf) -> None:
    digests = {
        judge_of(project=project).book.current.digest
        for project in (TEAM, Project(people=TEAM.people), Project(people=TEAM.people, roles={}))
    }
    assert len(digests) == 3


def test_what_was_recorded_before_there_were_tokens_is_still_understood(judge_of: JudgeOf) -> None:
    policies = judge_of().book.current
    request, (principal, plan) = plan_request(ALICE, READ, context_of(READ), policies.facts.current())
    attributes: Any = principal["attrs"]
    del attributes["id"]
    assert judge(policies, request, ({**principal, "parents": []}, plan)).outcome == "permit"
