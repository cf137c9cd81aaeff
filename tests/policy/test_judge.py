"""Any doubt is a refusal, requirements are gathered from all soft forbids, and nothing from a caller counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from interlock.core.actor import Actor
from interlock.core.approval import Approval
from interlock.core.decision import Decision
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.ports import PolicyAnswer
from interlock.core.project import Agent, Person, Project, Window
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook
from interlock.engine.policy.request import plan_request

from .conftest import ALICE, CLAUDE, NOW, Alarms, context_of, plan_of

JudgeOf = Callable[..., Judge]
HEAD = '@id("{0}") @reason("a test") @risk("low") '


def _yes(plan: Plan, asker: Actor, by: str, **fields: object) -> Approval:
    values = {
        "run": 1,
        "digest": plan.digest,
        "asker": asker.id,
        "approver": by,
        "roles": (),
        "kind": "confirmation" if by == asker.id else "approval",
        "verdict": True,
        "reason": None,
        "at": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return Approval.model_validate(values | fields)


def _policies(decision: Decision) -> list[str]:
    return [reason.policy for reason in decision.reasons]


OVERFLOW = HEAD.format("broken") + (
    '@effect("forbid") forbid (principal, action, resource is Plan) '
    "when { resource.risk_level + 9223372036854775807 > 5 };"
)


def test_a_forbid_that_fails_shuts_the_door(judge_of: JudgeOf, alarms: Alarms) -> None:
    """Cedar itself would skip the broken forbid and answer Allow: the schema cannot see an overflow."""
    judge = judge_of(OVERFLOW)
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    approvals = [_yes(plan, CLAUDE, "person:bob")]
    decision = judge.decide(CLAUDE, plan, context_of(plan), approvals)
    assert decision.outcome == "forbid"
    assert _policies(decision) == ["policy-error"]
    assert "overflow" in decision.reasons[0].reason
    ((event, fields),) = alarms
    assert event == "policy_error"
    assert fields["actor"] == "agent:claude"


def test_the_same_forbid_without_the_fault_lets_the_approved_plan_pass(judge_of: JudgeOf) -> None:
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    sound = OVERFLOW.replace("+ 9223372036854775807 > 5", "> 5")
    decision = judge_of(sound).decide(CLAUDE, plan, context_of(plan), [_yes(plan, CLAUDE, "person:bob")])
    assert decision.outcome == "permit"


def test_a_failing_forbid_refuses_a_read_too(judge_of: JudgeOf, alarms: Alarms) -> None:
    judge = judge_of(OVERFLOW.replace("> 5", "> 5 || resource.changes"))
    plan = plan_of(changes=False, risk="low")
    assert judge.decide(CLAUDE, plan, context_of(plan)).outcome == "forbid"
    assert alarms


@pytest.mark.parametrize(
    ("actor", "action"),
    [
        pytest.param(ALICE, "no.such_action", id="an action that the schema does not know"),
        pytest.param(
            Actor.model_construct(kind="person", name="a\ud800"), "command.exec", id="text that is no Unicode"
        ),
        pytest.param(Actor.model_construct(kind="ghost", name="boo"), "command.exec", id="an actor of no known kind"),
    ],
)
def test_what_cannot_be_asked_is_refused_loudly(judge_of: JudgeOf, alarms: Alarms, actor: Actor, action: str) -> None:
    plan = plan_of("unit:nginx.service").model_copy(update={"action": action})
    decision = judge_of().decide(actor, plan, context_of(plan))
    assert (decision.outcome, _policies(decision)) == ("forbid", ["policy-error"])
    assert [event for event, _ in alarms] == ["policy_error"]


class _Liar:
    """A handle that answers what it is told to; it stands for a library that goes wrong."""

    digest = "0"

    def __init__(self, annotations: dict[str, dict[str, str]], answers: Sequence[PolicyAnswer | Exception]) -> None:
        self.annotations = annotations
        self._answers = list(answers)

    def ask(self, requests: Sequence[JsonObject], entities: Sequence[JsonObject]) -> tuple[PolicyAnswer, ...]:
        answers = [self._answers.pop(0) for _ in requests]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return tuple(answer for answer in answers if isinstance(answer, PolicyAnswer))


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([RuntimeError("panic")], id="an exception"),
        pytest.param([PolicyAnswer(allowed=False, policies=(), errors=("no decision",))], id="no decision"),
        pytest.param([PolicyAnswer(allowed=True, policies=("change",), errors=("skipped",))], id="allowed with errors"),
        pytest.param([PolicyAnswer(allowed=True, policies=(), errors=())], id="allowed by nothing"),
        pytest.param([PolicyAnswer(allowed=True, policies=("nobody-knows",), errors=())], id="an unknown policy"),
        pytest.param([PolicyAnswer(allowed=True, policies=("windows",), errors=())], id="allowed by a forbid"),
        pytest.param([PolicyAnswer(allowed=False, policies=("change",), errors=())], id="denied by a permit"),
        pytest.param(
            [
                PolicyAnswer(allowed=False, policies=("person-change",), errors=()),
                PolicyAnswer(allowed=True, policies=("change",), errors=("skipped",)),
            ],
            id="errors only in the second answer",
        ),
    ],
)
def test_an_engine_that_goes_wrong_permits_nothing(
    judge_of: JudgeOf, alarms: Alarms, answers: list[PolicyAnswer | Exception]
) -> None:
    real = judge_of().book.current
    lying = replace(real, handle=_Liar(real.handle.annotations, answers))
    judge = Judge(PolicyBook(lambda: lying, alarms), alarms)
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    approvals = [_yes(plan, ALICE, ALICE.id)] * 2
    decision = judge.decide(ALICE, plan, context_of(plan), approvals)
    assert (decision.outcome, _policies(decision)) == ("forbid", ["policy-error"])
    assert len(alarms) == 1


def test_a_decision_carries_what_it_was_made_from(judge_of: JudgeOf) -> None:
    judge = judge_of()
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    decision = judge.decide(CLAUDE, plan, context_of(plan))
    policies = judge.book.current
    request, entities = plan_request(CLAUDE, plan, context_of(plan), policies.facts.current())
    assert (decision.request, decision.entities) == (request, entities)
    assert decision.policy_set == policies.digest
    assert Decision.model_validate(decision.model_dump()) == decision


def test_requirements_of_all_soft_forbids_are_gathered(judge_of: JudgeOf) -> None:
    judge = judge_of(
        HEAD.format("org.sre")
        + '@effect("approve") @approvals("2") @roles("sre-lead, dba") forbid (principal, action, resource is Plan) '
        'when { resource.operations.contains("unit.restart") } unless { context.granted };'
    )
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    decision = judge.decide(CLAUDE, plan, context_of(plan))
    assert decision.outcome == "needs_approval"
    needed = {each.policy: (each.approvals, each.confirmations, each.roles) for each in decision.requirements}
    assert needed == {"agent-change": (1, 0, ()), "org.sre": (2, 0, ("sre-lead", "dba"))}
    one = [_yes(plan, CLAUDE, "person:bob", roles=("dba",)), _yes(plan, CLAUDE, "person:carol", roles=("operator",))]
    (left,) = judge.decide(CLAUDE, plan, context_of(plan), one).requirements
    assert (left.policy, left.approvals) == ("org.sre", 1)
    two = [*one, _yes(plan, CLAUDE, "person:dave", roles=("sre-lead",))]
    assert judge.decide(CLAUDE, plan, context_of(plan), two).outcome == "permit"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"run": 2}, id="for another Run"),
        pytest.param({"digest": "0" * 64}, id="for another plan"),
        pytest.param({"asker": "agent:other"}, id="for another asker"),
        pytest.param({"verdict": False}, id="a no"),
        pytest.param({"expires_at": NOW}, id="expired"),
        pytest.param({"approver": "agent:claude"}, id="by the asker"),
        pytest.param({"kind": "confirmation"}, id="a confirmation"),
        pytest.param({"approver": "person:mallory"}, id="by somebody interlock.yaml does not name"),
    ],
)
def test_an_approval_that_is_not_for_this_ask_does_not_count(judge_of: JudgeOf, other: dict[str, object]) -> None:
    judge = judge_of(project=Project(people={"bob": Person(), "alice": Person()}))
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    good = _yes(plan, CLAUDE, "person:bob")
    assert judge.decide(CLAUDE, plan, context_of(plan), [good]).outcome == "permit"
    bad = good.model_copy(update=other)
    assert judge.decide(CLAUDE, plan, context_of(plan), [bad]).outcome == "needs_approval"


def test_approvals_do_not_open_what_is_forbidden(judge_of: JudgeOf) -> None:
    judge = judge_of(project=Project(protected=("unit:nginx*",)))
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    approvals = [_yes(plan, ALICE, f"person:p{index}") for index in range(9)] + [_yes(plan, ALICE, ALICE.id)] * 9
    decision = judge.decide(ALICE, plan, context_of(plan), approvals)
    assert decision.outcome == "forbid"
    assert decision.reasons[0].policy == "invariant.protected"
    assert "unit:nginx.service is covered by unit:nginx*" in decision.reasons[0].reason


def test_only_a_person_breaks_the_glass(judge_of: JudgeOf) -> None:
    judge = judge_of(project=Project(protected=("unit:nginx*",)))
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    glass = context_of(plan, break_glass=True)
    assert judge.decide(CLAUDE, plan, glass, [_yes(plan, CLAUDE, "person:bob")]).outcome == "forbid"
    assert judge.decide(ALICE, plan, glass).outcome == "needs_approval"
    assert judge.decide(ALICE, plan, glass, [_yes(plan, ALICE, ALICE.id)] * 2).outcome == "permit"


def test_an_undo_that_would_touch_a_protected_resource_is_refused(judge_of: JudgeOf) -> None:
    """Undo steps are performed without being decided on again."""
    judge = judge_of(project=Project(protected=("file:/srv/db",)))
    plan = plan_of("file:/srv/app/x", operations=("file.write",))
    back = plan_of("file:/srv/db/x").steps[0]
    two = plan.model_copy(update={"steps": (plan.steps[0].model_copy(update={"undo": back}),)})
    assert judge.decide(ALICE, plan, context_of(plan)).outcome == "needs_approval"
    assert judge.decide(ALICE, two, context_of(two)).outcome == "forbid"


def test_the_operator_may_declare_that_unknown_programs_are_isolated(judge_of: JudgeOf) -> None:
    plan = plan_of(opaque=True)
    for isolated, outcome in ((False, "forbid"), (True, "needs_approval")):
        judge = judge_of(project=Project(protected=("unit:postgresql*",), isolated=isolated))
        assert judge.decide(ALICE, plan, context_of(plan)).outcome == outcome


def test_an_opaque_step_counts_as_a_change_whatever_it_says(judge_of: JudgeOf) -> None:
    plan = plan_of(opaque=True, changes=False)
    assert judge_of().decide(CLAUDE, plan, context_of(plan)).outcome == "needs_approval"


def test_a_refused_agent_is_told_what_it_may_do(judge_of: JudgeOf) -> None:
    plan = plan_of("unit:postgresql.service", operations=("unit.stop",))
    named = plan.model_copy(update={"args": {"argv": ["systemctl", "stop", "postgresql"]}})
    decision = judge_of().decide(CLAUDE, named, context_of(named))
    assert decision.outcome == "forbid"
    assert "look: interlock exec -- systemctl status postgresql.service" in decision.instead
    assert "tell a person, who may decide to run: interlock exec -- systemctl stop postgresql" in decision.instead


def test_a_refusal_by_a_window_says_when_it_opens(judge_of: JudgeOf) -> None:
    window = Window.model_validate({"name": "night", "days": ["mon"], "from": "09:00", "to": "12:30"})
    judge = judge_of(project=Project(windows=(window,)))
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    decision = judge.decide(ALICE, plan, context_of(plan))
    assert decision.outcome == "forbid"
    assert "window night; next at 2026-03-02T12:30Z" in decision.reasons[0].reason


def test_hard_forbids_are_told_before_soft_ones(judge_of: JudgeOf) -> None:
    plan = plan_of(operations=("firewall.change",))
    assert _policies(judge_of().decide(CLAUDE, plan, context_of(plan))) == ["agents-never-firewall", "agent-change"]


def test_nothing_is_permitted_by_default(judge_of: JudgeOf) -> None:
    only = HEAD.format("soft") + (
        '@effect("confirm") @confirmations("1") forbid (principal, action, resource is Plan) '
        "when { resource.changes } unless { context.granted };"
    )
    judge = judge_of(replace=only)
    for plan in (plan_of(), plan_of(changes=False)):
        decision = judge.decide(ALICE, plan, context_of(plan), [_yes(plan, ALICE, ALICE.id)])
        assert (decision.outcome, _policies(decision)) == ("forbid", ["default-deny"])


def test_a_view_cannot_wait_for_an_approval(judge_of: JudgeOf) -> None:
    judge = judge_of()
    assert judge.decide_view(CLAUDE, "runs.pending", "nothing", NOW).outcome == "permit"
    assert judge.decide_view(CLAUDE, "keys.list", "secret", NOW).outcome == "forbid"


def test_autonomy_comes_from_the_project_alone(judge_of: JudgeOf) -> None:
    judge = judge_of(project=Project(agents={"claude": Agent(autonomy="read")}))
    plan = plan_of("unit:nginx.service", operations=("unit.restart",))
    decision = judge.decide(CLAUDE, plan, context_of(plan), [_yes(plan, CLAUDE, "person:bob")])
    assert decision.reasons[0].policy == "invariant.agent-reads-only"


def test_names_with_quotes_and_escapes_stay_names(judge_of: JudgeOf, alarms: Alarms) -> None:
    """Names go to the engine as data, so that none of them can become policy text."""
    odd = Actor(kind="agent", name='x" || true) //\\\n', on_behalf_of=None)
    plan = plan_of('unit:a"b\\c.service', operations=("unit.restart",))
    assert judge_of().decide(odd, plan, context_of(plan)).outcome == "needs_approval"
    assert alarms == []


def test_asking_both_questions_together_changes_no_decision(judge_of: JudgeOf) -> None:
    """The judge guesses from the last ask of a kind whether the second question will be needed."""
    plans = [
        plan_of(changes=False),
        plan_of(changes=False, discloses="secret"),
        plan_of("unit:nginx.service", operations=("unit.restart",)),
        plan_of("unit:postgresql.service", operations=("unit.stop",)),
        plan_of(opaque=True),
        plan_of(operations=("firewall.change",), risk="high"),
    ]
    judge = judge_of()
    for actor in (ALICE, CLAUDE, Actor(kind="service", name="ci", roles=("operator",))):
        for plan in plans + plans[::-1]:
            fresh = judge_of().decide(actor, plan, context_of(plan))
            assert judge.decide(actor, plan, context_of(plan)) == fresh
