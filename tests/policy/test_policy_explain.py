"""An explanation names the policies with their lines, and the smallest change that leads to another outcome."""

from __future__ import annotations

from collections.abc import Callable

from interlock.core.project import Agent, Project, Window
from interlock.engine.policy.explain import Explanation, explain
from interlock.engine.policy.judge import Judge

from .conftest import ALICE, CLAUDE, NOW, context_of, plan_of

JudgeOf = Callable[..., Judge]


def _explain(judge: Judge, actor: object, plan: object, **context: object) -> Explanation:
    decision = judge.decide(actor, plan, context_of(plan, **context))  # type: ignore[arg-type]
    return explain(judge.book.current, decision, NOW)


def _ways(explanation: Explanation) -> dict[tuple[str, ...], str]:
    return {change.what: change.outcome for change in explanation.changes}


def test_it_says_which_policy_decided_and_where_it_stands(judge_of: JudgeOf) -> None:
    explanation = _explain(judge_of(), CLAUDE, plan_of(operations=("unit.restart",)))
    (policy,) = explanation.policies
    assert (policy.policy, policy.effect) == ("agent-change", "approve")
    assert policy.file == "interlock:presets/small-team.cedar"
    assert policy.line > 1


def test_an_approval_is_named_as_the_way(judge_of: JudgeOf) -> None:
    ways = _ways(_explain(judge_of(), CLAUDE, plan_of(operations=("unit.restart",))))
    assert ways["1 approval(s)",] == "permit"
    assert ways["if it only read",] == "permit"


def test_a_freeze_is_named_as_the_obstacle(judge_of: JudgeOf) -> None:
    ways = _ways(_explain(judge_of(), ALICE, plan_of(operations=("unit.restart",)), frozen=True))
    assert ways["after `interlock unfreeze`",] == "needs_approval"
    assert ("under a break-glass",) not in ways


def test_a_window_is_named_with_its_hour(judge_of: JudgeOf) -> None:
    window = Window.model_validate({"name": "night", "days": ["mon"], "from": "09:00", "to": "12:30"})
    ways = _ways(_explain(judge_of(project=Project(windows=(window,))), ALICE, plan_of(operations=("unit.restart",))))
    assert ways["at 2026-03-02T12:30Z",] == "needs_approval"


def test_for_what_only_people_do_a_person_is_the_way(judge_of: JudgeOf) -> None:
    ways = _ways(_explain(judge_of(), CLAUDE, plan_of("unit:postgresql.service", operations=("unit.stop",))))
    assert ways["if a person asked",] == "needs_approval"
    assert ways["if no database were touched",] == "needs_approval"


def test_two_obstacles_are_named_together(judge_of: JudgeOf) -> None:
    judge = judge_of(project=Project(agents={"claude": Agent(autonomy="read")}))
    explanation = _explain(judge, CLAUDE, plan_of(operations=("unit.restart",)), frozen=True)
    both = ("after `interlock unfreeze`", "if interlock.yaml gave this agent autonomy: ask")
    assert _ways(explanation)[both] == "needs_approval"


def test_for_a_protected_resource_there_is_only_the_break_glass(judge_of: JudgeOf) -> None:
    judge = judge_of(project=Project(protected=("unit:nginx*",)))
    ways = _ways(_explain(judge, ALICE, plan_of("unit:nginx.service", operations=("unit.restart",))))
    assert ways == {
        ("under a break-glass",): "needs_approval",
        ("if it touched no protected resource",): "needs_approval",
        ("if it only read",): "permit",
    }


def test_a_permit_needs_no_other_way(judge_of: JudgeOf) -> None:
    explanation = _explain(judge_of(), CLAUDE, plan_of(changes=False))
    assert (explanation.outcome, explanation.changes) == ("permit", ())
    assert [policy.policy for policy in explanation.policies] == ["read"]
    assert explanation.facts["plan"]
