"""A replay finds exactly what a changed set would have answered otherwise, and says of what it cannot know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from interlock.core.approval import Approval
from interlock.core.model import JsonObject
from interlock.core.project import Project
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyLoader, PolicySet, PolicySource, built_in_sources
from interlock.engine.policy.replay import ORDERED, Known, RecordedRun, ReplayReport, known_of, ranges_in_words, replay
from interlock.engine.submit import AGENTS_PAUSED, FROZEN

from .conftest import ALICE, CLAUDE, NOW, Alarms, context_of, plan_of

NOBODY = Known("", {})
BASE = """
@id("all") @reason("all is permitted") @risk("low") permit (principal, action, resource is Plan);
@id("agents") @reason("agents wait for one person") @risk("medium") @effect("approve") @approvals("1")
forbid (principal is Agent, action, resource is Plan) when { resource.changes } unless { context.granted };
@id("sure") @reason("a person confirms") @risk("low") @effect("confirm") @confirmations("1")
forbid (principal is Person, action, resource is Plan) when { resource.changes } unless { context.granted };
"""
NO_DISKS = """
@id("disks") @reason("nobody touches a disk") @risk("high") @effect("forbid")
forbid (principal, action, resource is Plan) when { resource.target_kinds.contains("device") };
"""
PLANS = {
    "agent reads": (CLAUDE, plan_of("file:/srv/a", changes=False)),
    "agent writes": (CLAUDE, plan_of("file:/srv/a")),
    "person writes": (ALICE, plan_of("file:/srv/a")),
    "person formats": (ALICE, plan_of("device:8-0")),
}

Record = Callable[..., RecordedRun]


@pytest.fixture
def set_of(loader: PolicyLoader) -> Callable[[str], PolicySet]:
    def build(text: str) -> PolicySet:
        invariants = built_in_sources("small-team")[0]
        return loader.load_sources(Project(), (invariants, PolicySource("project", "policies/team.cedar", text)))

    return build


@pytest.fixture
def record(judge_of: Callable[..., Judge]) -> Record:
    """A Run as the table has it, decided by the given text; `yes` counts as the asker's own."""
    numbers = itertools.count(1)

    def decide(text: str, name: str, *, yes: bool = False, **context: Any) -> RecordedRun:
        actor, plan = PLANS[name]
        given = context_of(plan, **context)
        own = Approval(
            run=1, digest=plan.digest, asker=actor.id, approver=actor.id, roles=(), kind="confirmation", verdict=True,
            reason=None, at=NOW, expires_at=NOW.replace(hour=11),
        )  # fmt: skip
        decision = judge_of(replace=text).decide(actor, plan, given, (own,) if yes else ())
        body: JsonObject = json.loads(decision.model_dump_json())
        return RecordedRun(next(numbers), actor.id, plan.action, plan.summary, body)

    return decide


def _replay(policies: PolicySet, runs: list[RecordedRun]) -> Any:
    return replay(policies, runs, NOBODY)


def _found(policies: PolicySet, runs: list[RecordedRun], known: Known = NOBODY) -> list[tuple[Any, ...]]:
    """(Run, policy, part, what, from, to) of each difference."""
    page: Any = replay(policies, runs, known)
    assert page["unreplayable"] == []
    assert page["decided"] == len(runs)
    names = ("run", "policy", "part", "what")
    return [
        (*(each[name] for name in names), each["old"]["outcome"], each["new"]["outcome"])
        for each in page["differences"]
    ]


def _without(policy: str) -> str:
    return "\n@id".join(part for part in BASE.split("\n@id") if not part.startswith(f'("{policy}")'))


CHANGES = [
    (BASE, []),
    (BASE.replace("; ", ";\n"), []),
    (BASE + NO_DISKS, [(4, "disks", "added", "outcome", "needs_approval", "forbid")]),
    (_without("agents"), [(2, "agents", "removed", "outcome", "needs_approval", "permit")]),
    (
        _without("all"),
        [
            (1, "all", "removed", "outcome", "permit", "forbid"),
            (2, "agents", "removed", "outcome", "needs_approval", "forbid"),
            (3, "sure", "removed", "outcome", "needs_approval", "forbid"),
            (4, "sure", "removed", "outcome", "needs_approval", "forbid"),
        ],
    ),
    (
        BASE.replace('@approvals("1")', '@approvals("2")'),
        [(2, "agents", "changed", "requirements", "needs_approval", "needs_approval")],
    ),
    (
        BASE.replace('@approvals("1")', '@approvals("1") @roles("sre")'),
        [(2, "agents", "changed", "requirements", "needs_approval", "needs_approval")],
    ),
    (
        BASE.replace("agents wait for one person", "an agent asks first"),
        [(2, "agents", "changed", "reasons", "needs_approval", "needs_approval")],
    ),
    (
        BASE.replace('@id("all")', '@id("everything")'),
        [(1, "everything", "added", "reasons", "permit", "permit")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), CHANGES)
@pytest.mark.parametrize("yes", [False, True], ids=["asked", "confirmed"])
def test_every_difference_is_found_and_nothing_else(
    set_of: Callable[[str], PolicySet], record: Record, text: str, expected: list[tuple[Any, ...]], *, yes: bool
) -> None:
    runs = [record(BASE, name, yes=yes) for name in PLANS]
    assert _found(set_of(text), runs) == expected


def test_what_a_confirmation_asks_for_is_compared_while_the_set_that_decided_is_known(
    set_of: Callable[[str], PolicySet], judge_of: Callable[..., Judge], record: Record
) -> None:
    twice = set_of(BASE.replace('@confirmations("1")', '@confirmations("2")'))
    runs = [record(BASE, "person writes", yes=True)]
    in_force = judge_of(replace=BASE).book.current
    assert _found(twice, runs, known_of(in_force)) == [
        (1, "sure", "changed", "requirements", "needs_approval", "needs_approval")
    ]
    assert _found(twice, runs) == [], "nobody knows any more what that set asked for"


def test_the_moment_and_the_orders_of_a_run_are_its_own(set_of: Callable[[str], PolicySet], record: Record) -> None:
    night = """
        @id("night") @reason("r") @risk("low") @effect("forbid")
        forbid (principal, action, resource is Plan) when { context.hour >= 22 };
    """
    runs = [record(BASE, "agent reads"), record(BASE, "agent reads", now=NOW.replace(hour=23))]
    assert _found(set_of(BASE + night), runs) == [(2, "night", "added", "outcome", "permit", "forbid")]
    frozen = record(BASE, "person writes", frozen=True)
    assert frozen.decision["outcome"] == "forbid"
    assert _found(set_of(BASE), [frozen]) == []
    assert {FROZEN, AGENTS_PAUSED} == ORDERED


def test_a_reason_that_names_a_target_is_the_same_reason(
    set_of: Callable[[str], PolicySet], judge_of: Callable[..., Judge], alarms: Alarms
) -> None:
    project = Project(protected=("file:/srv/a",))
    _, plan = PLANS["person writes"]
    decision = judge_of(replace=BASE, project=project).decide(ALICE, plan, context_of(plan))
    assert any("/srv/a" in reason.reason for reason in decision.reasons)
    run = RecordedRun(1, ALICE.id, plan.action, plan.summary, json.loads(decision.model_dump_json()))
    assert _found(set_of(BASE), [run]) == []
    assert not alarms


def _broken(decision: JsonObject, **changes: Any) -> Any:
    return json.loads(json.dumps({**decision, **changes}))


def test_what_cannot_be_decided_again_is_listed_with_why(set_of: Callable[[str], PolicySet], record: Record) -> None:
    good, waiting = record(BASE, "agent reads"), record(BASE, "agent writes")
    recorded: Any = good.decision
    request, (principal, plan) = recorded["request"], recorded["entities"]
    less = {**plan, "attrs": {key: value for key, value in plan["attrs"].items() if key != "opaque"}}
    gone = {**request, "action": {"type": "Action", "id": "gone.away"}}
    cases = {
        "not recorded in a shape": [{}, {"outcome": "perhaps"}, _broken(good.decision, entities="none")],
        "could not be asked": [_broken(good.decision, request={}), _broken(good.decision, entities=[])],
        "no answer that can be trusted": [
            _broken(good.decision, entities=[principal, less]),
            _broken(good.decision, request=gone),
        ],
        "question is not recorded": [_broken(waiting.decision, request={"principal": 1})],
    }
    bodies = [(why, body) for why, found in cases.items() for body in found]
    runs = [good._replace(number=number, decision=body) for number, (_, body) in enumerate(bodies, 1)]
    page = _replay(set_of(BASE), [*runs, good._replace(number=99)])
    assert (page["decided"], page["differences"]) == (1, [])
    listed = {each["run"]: each["why"] for each in page["unreplayable"]}
    assert list(listed) == list(range(1, len(runs) + 1))
    for number, (why, _) in enumerate(bodies, 1):
        assert why in listed[number], listed[number]


def test_a_report_counts_all_keeps_few_and_names_every_run(set_of: Callable[[str], PolicySet], record: Record) -> None:
    one = record(BASE, "person formats")
    report = ReplayReport()
    for first in (1, 20):
        runs = [one._replace(number=number) for number in range(first, first + 10)]
        report.add(replay(set_of(BASE + NO_DISKS), [*runs, one._replace(number=first + 100, decision={})], NOBODY))
    told: Any = report.to_json()
    assert (told["decided"], told["different"], told["unreplayable"]) == (20, 20, 2)
    (group,) = told["differences"]
    assert (group["policy"], group["count"], group["runs"]) == ("disks", 20, "1-10, 20-29")
    assert group["reason"] == "nobody touches a disk"
    assert [each["run"] for each in group["examples"]] == [1, 2, 3, 4, 5]
    (cause,) = told["unreplayable_by_cause"]
    assert (cause["count"], cause["runs"]) == (2, "101, 120")


@pytest.mark.parametrize(
    ("numbers", "words"), [([], ""), ([7], "7"), ([3, 1, 2], "1-3"), ([1, 2, 4, 6, 7], "1-2, 4, 6-7")]
)
def test_numbers_are_told_as_ranges(numbers: list[int], words: str) -> None:
    assert ranges_in_words(numbers) == words
